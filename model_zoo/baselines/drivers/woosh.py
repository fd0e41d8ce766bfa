"""Woosh-VFlow and its distilled form Woosh-DVFlow: what the official test scripts call. Never run against real weights.

The scripts scale a sample down when it exceeds full scale; here it stays as the network gave it (float wav).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from avbench_driver import Job  # type: ignore[import-not-found]
from woosh.components.base import LoadConfig  # type: ignore[import-not-found]
from woosh.utils.video import SynchformerProcessor  # type: ignore[import-not-found]
from woosh.utils.videoio import extract_video_frames  # type: ignore[import-not-found]

RATE, SECONDS, LATENT = 48_000, 8, (128, 801)

job = Job.from_arguments()
generation = job.request["generation"]
extra = generation["extra"]
device = job.request["device"]
weights = Path(job.request["model"]["weights_dir"]) / extra["component"]
guidance = float(generation["guidance"] or extra["guidance"])
if extra["distilled"]:
    from woosh.inference.flowmap_sampler import sample_euler  # type: ignore[import-not-found]
    from woosh.model.flowmap_from_pretrained import FlowMapFromPretrained as Network  # type: ignore[import-not-found]
else:
    from woosh.inference.flowmatching_sampler import flowmatching_integrate  # type: ignore[import-not-found]
    from woosh.model.video_kontext import VideoKontext as Network  # type: ignore[import-not-found]
network = Network(LoadConfig(path=str(weights))).eval().to(device)
video_features = SynchformerProcessor(frame_rate=24).eval().to(device)


@torch.inference_mode()
def make(item: dict[str, Any]) -> tuple[Any, int]:
    """8 s of 48 kHz from the first 8 s of the video and a text that may be empty."""
    with job.timed("features"):
        frames, rate, _ = extract_video_frames(item["video"], start_time=0, end_time=SECONDS)
        features = video_features(frames.to(device), rate)
        given = {"audio": None, "description": [item["text"] or ""], "synch_out": features["synch_out"]}
        conditions = network.get_cond(given, no_dropout=True, device=device)
    torch.manual_seed(item["seed"] % 2**32)
    noise = torch.randn(1, *LATENT).to(device)
    with job.timed("generation"):
        latent = sampled(noise, conditions)
    with job.timed("decoding"):
        audio = network.autoencoder.inverse(latent)
    return audio[0].float(), RATE


def sampled(noise: Any, conditions: Any) -> Any:
    """The samplers with the settings of the test scripts."""
    if extra["distilled"]:
        steps = {"num_steps": 4, "renoise": [0, 0.5, 0.5, 0.3]}
        return sample_euler(model=network, noise=noise, cond=conditions, cfg=guidance, **steps)
    exact = {"atol": 1e-3, "rtol": 1e-3, "dtype": torch.float64}
    return flowmatching_integrate(network, noise=noise, cond=conditions, cfg=guidance, device=device, **exact)


files = sorted(weights.glob("*.safetensors"))
job.run(make, parameters=sum(p.numel() for p in network.parameters()), weights=files)
