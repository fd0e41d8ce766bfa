"""AudioX: the functions its readme calls, without the readme's peak normalisation. Never run against the real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avbench_driver import Job  # type: ignore[import-not-found]
from stable_audio_tools.data.utils import load_and_process_audio, read_video  # type: ignore[import-not-found]
from stable_audio_tools.inference.generation import generate_diffusion_cond  # type: ignore[import-not-found]
from stable_audio_tools.models.factory import create_model_from_config  # type: ignore[import-not-found]
from stable_audio_tools.models.utils import load_ckpt_state_dict  # type: ignore[import-not-found]

SECONDS = 10  # of video, of the empty audio prompt, and of the sound that is kept

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
    """One sample of the model's window; without a video the official reader gives zeros in its place."""
    video = read_video(item["video"], seek_time=0, duration=SECONDS, target_fps=settings["video_fps"])
    silence = load_and_process_audio(None, rate, 0, SECONDS)
    given = {
        "video_prompt": [video.unsqueeze(0)],
        "text_prompt": item["text"] or extra["prompt"],
        "audio_prompt": silence.unsqueeze(0),
        "seconds_start": 0,
        "seconds_total": SECONDS,
    }
    with job.timed("generation"):
        audio = generate_diffusion_cond(
            model,
            steps=int(generation["steps"] or extra["steps"]),
            cfg_scale=float(generation["guidance"] or extra["guidance"]),
            conditioning=[given],
            sample_size=window,
            sigma_min=extra["sigma_min"],
            sigma_max=extra["sigma_max"],
            sampler_type=extra["sampler"],
            seed=item["seed"] % 2**32,
            device=job.request["device"],
        )
    return audio[0, :, : SECONDS * rate].float(), rate


job.run(make, parameters=sum(p.numel() for p in model.model.parameters()), weights=[weights / "model.ckpt"])
