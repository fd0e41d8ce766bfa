"""AudioX: the functions its demo calls, without the demo's peak normalisation. Never run against the real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from avbench_driver import Job  # type: ignore[import-not-found]
from stable_audio_tools.data.utils import read_video  # type: ignore[import-not-found]
from stable_audio_tools.inference.generation import generate_diffusion_cond  # type: ignore[import-not-found]
from stable_audio_tools.models.factory import create_model_from_config  # type: ignore[import-not-found]
from stable_audio_tools.models.utils import load_ckpt_state_dict  # type: ignore[import-not-found]

job = Job.from_arguments()
generation = job.request["generation"]
extra = generation["extra"]
weights = Path(job.request["model"]["weights_dir"])
settings = json.loads((weights / "config.json").read_text(encoding="utf8"))
rate, window = int(settings["sample_rate"]), int(settings["sample_size"])
model = create_model_from_config(settings)
model.load_state_dict(load_ckpt_state_dict(str(weights / "model.ckpt")))
model = model.to(job.request["device"]).eval().requires_grad_(False)


def make(item: dict[str, Any]) -> tuple[Any, int]:
    """One sample of the model's window; without a video its place is zeros."""
    seconds = window / rate
    frames = int(settings["video_fps"])
    shape = (int(seconds * frames), 3, 224, 224)
    video = torch.zeros(shape) if not item["video"] else read_video(item["video"], 0, seconds, target_fps=frames)
    given = {
        "video_prompt": [video.unsqueeze(0).to(job.request["device"])],
        "text_prompt": item["text"] or extra["prompt"],
        "audio_prompt": torch.zeros((1, 2, window), device=job.request["device"]),
        "seconds_start": 0,
        "seconds_total": seconds,
    }
    with job.timed("generation"):
        audio = generate_diffusion_cond(
            model,
            steps=int(generation["steps"] or extra["steps"]),
            cfg_scale=float(generation["guidance"] or extra["guidance"]),
            conditioning=[given],
            sample_size=window,
            sampler_type=extra["sampler"],
            seed=item["seed"] % 2**32,
            device=job.request["device"],
        )
    return audio[0].float(), rate


job.run(make, parameters=sum(p.numel() for p in model.model.parameters()), weights=[weights / "model.ckpt"])
