"""FoleyCrafter: its own prompt and seed for every clip. Never run against the real model.

The repository's ``inference.py`` has ``build_models(config)`` and ``run_inference(config, pipe, ...)``, which works on
a folder of videos with one prompt; here the folder holds one video, and the config the clip's prompt and seed.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from avbench_driver import Job  # type: ignore[import-not-found]
from inference import build_models, run_inference  # type: ignore[import-not-found]

job = Job.from_arguments()
generation = job.request["generation"]
extra = generation["extra"]


def config(**more: Any) -> argparse.Namespace:
    """The settings of the official script."""
    return argparse.Namespace(
        pretrain=str(Path(job.request["model"]["weights_dir"])),
        ckpt=str(Path(job.request["model"]["weights_dir"])),
        device=job.request["device"],
        num_inference_steps=int(generation["steps"] or extra["steps"]),
        nprompt=generation["negative_prompt"] or "",
        temporal_scale=extra["temporal_scale"],
        semantic_scale=extra["semantic_scale"],
        temporal_align=True,
        **more,
    )


models = build_models(config(prompt="", seed=0, input="", save_dir=""))


def make(item: dict[str, Any]) -> tuple[Path, int]:
    """One video in a folder of its own. The official function reads and writes files itself, so it is timed whole."""
    folder = Path(tempfile.mkdtemp(dir=job.request["cache_dir"]))
    (folder / "in").mkdir()
    shutil.copyfile(item["video"], folder / "in/clip.mp4")
    places = {"input": str(folder / "in"), "save_dir": str(folder / "out")}
    run_inference(config(prompt=item["text"] or "", seed=item["seed"] % 2**32, **places), *models)
    found = sorted((folder / "out").rglob("*.wav"))
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} wav files, one is expected")
    return found[0], struct.unpack_from("<I", found[0].read_bytes(), 24)[0]


job.run(make, packages=("torch", "diffusers", "transformers", "numpy"))
