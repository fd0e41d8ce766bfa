"""FoleyCrafter: its own prompt and seed for every clip. Never run against the real model.

The repository's ``inference.py`` has ``build_models(config)`` and ``run_inference(config, *models)``, which works on a
folder of videos with one prompt; here the folder holds one video, and the config the clip's prompt and seed. Three
networks are named by their place on the hub inside the functions; here they come from the weights folder.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import inference  # type: ignore[import-not-found]
from avbench_driver import Job  # type: ignore[import-not-found]

STEPS = 25  # stand in the code

job = Job.from_arguments()
generation = job.request["generation"]
extra = generation["extra"]
weights = Path(job.request["model"]["weights_dir"])
if generation["steps"] not in (None, STEPS) or generation["guidance"] is not None:
    raise SystemExit(f"FoleyCrafter's script has {STEPS} steps and no guidance option")


class ImageEncoder:
    """The encoder that ``run_inference`` asks the hub for, from the weights folder."""

    real = inference.CLIPVisionModelWithProjection

    @classmethod
    def from_pretrained(cls, name: str, **more: Any) -> Any:
        """The same loader with a local folder; it is called once per clip, and loads once."""
        return cls.load(name, **more)

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def load(name: str, **more: Any) -> Any:
        """Load it."""
        return ImageEncoder.real.from_pretrained(str(weights / Path(name).name), **more)


inference.snapshot_download = lambda name, local_dir=None, **_: local_dir or str(weights / Path(name).name)
inference.build_foleycrafter = functools.partial(inference.build_foleycrafter, str(weights / "auffusion"))
inference.CLIPVisionModelWithProjection = ImageEncoder


def config(**more: Any) -> argparse.Namespace:
    """The settings of the official script."""
    return argparse.Namespace(
        pretrain=str(weights / "auffusion"),
        ckpt=str(weights),
        device=job.request["device"],
        nprompt=generation["negative_prompt"] or "",
        temporal_scale=extra["temporal_scale"],
        semantic_scale=extra["semantic_scale"],
        **more,
    )


models = inference.build_models(config(prompt="", seed=0, input="", save_dir=""))


def make(item: dict[str, Any]) -> tuple[Path, int]:
    """One video in a folder of its own. The official function reads and writes files itself, so it is timed whole."""
    folder = Path(tempfile.mkdtemp(dir=job.request["cache_dir"]))
    (folder / "in").mkdir()
    shutil.copyfile(item["video"], str(folder / "in/clip.mp4"))
    places = {"input": str(folder / "in"), "save_dir": str(folder / "out")}
    inference.run_inference(config(prompt=item["text"] or "", seed=item["seed"] % 2**32, **places), *models)
    found = sorted((folder / "out").rglob("*.wav"))
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} wav files, one is expected")
    return found[0], struct.unpack_from("<I", found[0].read_bytes(), 24)[0]


job.run(make, packages=("torch", "diffusers", "transformers", "numpy"))
