"""AudioX-Turbo: what its demo calls, without the demo's peak normalisation. Never run against the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from audiox_turbo.data.utils import (  # type: ignore[import-not-found]
    encode_video_with_synchformer,
    load_and_process_audio,
    read_video,
)
from audiox_turbo.inference import load_audiox_turbo_model  # type: ignore[import-not-found]
from audiox_turbo.inference.generation import generate_diffusion_cond_dmd  # type: ignore[import-not-found]
from avbench_driver import Job  # type: ignore[import-not-found]

job = Job.from_arguments()
generation = job.request["generation"]
extra = generation["extra"]
weights, device = Path(job.request["model"]["weights_dir"]), job.request["device"]
if generation["guidance"] is not None:
    raise SystemExit("AudioX-Turbo is distilled: it has no guidance")
files = [weights / "audiox_turbo/audiox_turbo.ckpt", weights / "pretransform/vae.ckpt"]
model, settings = load_audiox_turbo_model(extra["config"], str(files[0]), str(files[1]), device=device)
rate, frames = int(settings["sample_rate"]), int(settings.get("video_fps", 5))
seconds = int(-(-job.request["seconds"] // 1))  # whole seconds, as the demo's slider


@torch.no_grad()
def make(item: dict[str, Any]) -> tuple[Any, int]:
    """One sample; without a video zeros stand in its place, as in the demo."""
    with job.timed("features"):
        if item["video"]:
            video = read_video(item["video"], seek_time=0, duration=seconds, target_fps=frames)
            sync = encode_video_with_synchformer(item["video"], 0, seconds, device=device)
        else:
            video = torch.zeros(seconds * frames, 3, 224, 224)
            sync = torch.zeros(1, 240, 768, device=device)
    given = {
        "video_prompt": {"video_tensors": video.unsqueeze(0), "video_sync_frames": sync},
        "text_prompt": item["text"] or extra["prompt"],
        "audio_prompt": load_and_process_audio(None, rate, 0, seconds).unsqueeze(0),
        "seconds_start": 0,
        "seconds_total": seconds,
    }
    with job.timed("generation"):
        audio = generate_diffusion_cond_dmd(
            model,
            steps=int(generation["steps"] or extra["steps"]),
            conditioning=[given],
            sample_size=settings["sample_size"],
            seed=item["seed"] % 2**32,
            device=device,
        )
    return audio[0, :, : seconds * rate].float(), rate


job.run(make, parameters=sum(p.numel() for p in model.model.parameters()), weights=files)
