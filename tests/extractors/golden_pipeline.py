"""The published tool's results on real clips, and the weight files under which it computed them.

Every weight is a function of its key (see the recipe beside the golden files), so official-layout files are rebuilt
here, checked tensor by tensor against stored checksums, and enter through our own loaders.
"""

from __future__ import annotations

import importlib.util
import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SHARED = Path(__file__).parents[2] / "../shared"
PIPELINE = SHARED / "golden/pipeline"
SECONDS = 8.0
SIDE_CLIPS = ["ZYc410CE4Rg_000000", "scene_a", "scene_b", "hitting_bag"]  # real clips outside the golden run
MEASURED: list[tuple[str, str, float, str]] = []  # what, against what, largest difference, unit
needs_golden = pytest.mark.skipif(
    not PIPELINE.is_dir(), reason="no golden files: folder 'shared' is not beside the repo"
)


def needs_package(*names: str) -> pytest.MarkDecorator:
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}; pip install 'av-bench[paper]'")


@cache
def stems() -> list[str]:
    with np.load(PIPELINE / "features_pred.npz") as stored:
        return [str(stem) for stem in stored["stems"]]


def golden(side: str, key: str) -> np.ndarray[Any, Any]:
    """Rows in the order of ``stems()``; side is gt, pred, video or text."""
    with np.load(PIPELINE / f"features_{side}.npz") as stored:
        assert [str(stem) for stem in stored["stems"]] == stems()
        return np.asarray(stored[key])


def per_clip(metric: str) -> np.ndarray[Any, Any]:
    table = json.loads((PIPELINE / "per_clip.json").read_text())[metric]
    return np.array([table[stem] for stem in stems()])


def media(side: str) -> list[Path]:
    """The files behind the rows: gt wav, pred flac, or the video."""
    pattern = {"gt": "golden/pipeline/audio_gt/{}.wav", "pred": "golden/pipeline/audio_pred/{}.flac"}
    return [SHARED / pattern.get(side, "clips/{}.mp4").format(stem) for stem in stems()]


def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("golden_weight_recipe", PIPELINE / "weight_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rebuild(net: str, only: str | None = None) -> dict[str, torch.Tensor]:
    """State dict of a network in the official layout, or the keys that match ``only``; checksums verified."""
    layout = json.loads((PIPELINE / f"layout_{net}.json").read_text())["tensors"]
    kept = PIPELINE / f"kept_{net}.npz"
    made = recipe().build(layout, kept if kept.exists() else None, only)
    for key, value in made.items():
        assert zlib.crc32(np.ascontiguousarray(value).tobytes()) == layout[key]["crc32"], key
    return {key: torch.from_numpy(value) for key, value in made.items()}


def relative(ours: Any, reference: Any) -> float:
    """Largest absolute difference in units of the reference's root mean square."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.sqrt(np.square(b).mean()))


def note(what: str, against: str, ours: Any, reference: Any, limit: float, *, absolute: bool = False) -> None:
    """Record the largest difference, of the reference's rms or absolute, and hold it to the limit."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    assert a.shape == b.shape
    value = float(np.abs(a - b).max()) if absolute else relative(a, b)
    MEASURED.append((what, against, value, "absolute" if absolute else "of the rms"))
    assert value < limit, what


def raw(path: Path) -> tuple[torch.Tensor, int]:
    """``(channels, samples)`` and the sample rate, read without our decoder."""
    import soundfile

    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(np.ascontiguousarray(data.T)), rate


def published_load(path: Path, rate: int, *, centre: bool = True) -> torch.Tensor:
    """Channel mean, file mean removed, torchaudio's resampler, first 8 s."""
    import torchaudio

    audio, old = raw(path)
    mono = audio.mean(dim=0)
    mono = mono - mono.mean() if centre else mono
    return torchaudio.transforms.Resample(old, rate)(mono)[: int(rate * SECONDS)]
