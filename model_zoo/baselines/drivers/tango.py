"""TANGO and TANGO 2: one prompt at a time through the class of its repository. Never run against the real model.

The class asks the hub for the folder of its weights; here the folder is given, and the hub is not asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tango  # type: ignore[import-not-found]
import torch
from avbench_driver import Job  # type: ignore[import-not-found]

job = Job.from_arguments()
extra = job.request["generation"]["extra"]
steps = int(job.request["generation"]["steps"] or extra["steps"])
guidance = float(job.request["generation"]["guidance"] or extra["guidance"])
folder = job.request["model"]["weights_dir"]
tango.snapshot_download = lambda repo_id, **_: repo_id
model = tango.Tango(folder, device=job.request["device"])


def make(item: dict[str, Any]) -> tuple[Any, int]:
    """Seeded per item, so that neither order nor a restart changes a sample."""
    torch.manual_seed(item["seed"] % 2**32)
    with job.timed("generation"):
        waves = model.generate_for_batch([item["text"]], steps=steps, guidance=guidance, samples=1, batch_size=1)
    return torch.as_tensor(waves[0]).float().flatten() / 32768.0, 16_000  # the vocoder gives 16-bit numbers


unet = getattr(model.model, "unet", None)
count = sum(p.numel() for p in unet.parameters()) if unet is not None else None
files = [path for path in sorted(Path(folder).glob("*.bin")) if path.is_file()]
job.run(make, parameters=count, weights=files, packages=("torch", "transformers", "diffusers", "numpy"))
