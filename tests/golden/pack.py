"""Reading and writing of the pack: arrays, the versions that made them, and what of a long array is kept."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
INPUTS, OUTPUTS = HERE / "inputs", HERE / "outputs"
SOUNDS = {"impact": INPUTS / "impact.flac", "chirp": INPUTS / "chirp.flac"}
VIDEO = INPUTS / "impact.mp4"
SECONDS = 4.9  # of the window: the chirp has 5 s
ALWAYS = ("torch", "numpy")
Array = NDArray[Any]


def names() -> list[str]:
    """All goldens."""
    return sorted(path.stem for path in OUTPUTS.glob("*.npz"))


def save(name: str, packages: tuple[str, ...], arrays: dict[str, Array], **facts: Any) -> None:
    """Write a golden with the versions of ``packages`` (and of torch and numpy) that computed it."""
    versions = {package: metadata.version(package) for package in (*ALWAYS, *packages)}
    note = json.dumps({"made_from": versions, **facts}, sort_keys=True)
    OUTPUTS.mkdir(exist_ok=True)
    np.savez_compressed(OUTPUTS / f"{name}.npz", **arrays, note=np.array(note))


def load(name: str) -> dict[str, Array]:
    """The arrays of a golden."""
    with np.load(OUTPUTS / f"{name}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files if key != "note"}


def note(name: str) -> dict[str, Any]:
    """``made_from`` (package -> version) and what else is said of a golden."""
    with np.load(OUTPUTS / f"{name}.npz", allow_pickle=False) as stored:
        found: dict[str, Any] = json.loads(str(stored["note"]))
    return found


def thinned(values: Any, axis: int = -1, *, edge: int = 8, step: int = 13) -> Array:
    """Both ends of an axis and every ``step``-th place between: what is kept of a long array."""
    array = np.asarray(values)
    count = array.shape[axis]
    places = sorted({*range(min(edge, count)), *range(0, count, step), *range(max(0, count - edge), count)})
    return np.take(array, places, axis=axis)


def bytes_of(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise of whole numbers, the same everywhere."""
    return np.random.PCG64(seed).random_raw(math.prod(shape)).astype(np.uint8).reshape(shape)


def relative(ours: Any, reference: Any) -> float:
    """Largest absolute difference in units of the reference's root mean square."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    assert a.shape == b.shape, f"{a.shape} instead of {b.shape}"
    return float(np.abs(a - b).max() / np.sqrt(np.square(b).mean()))


def absolute(ours: Any, reference: Any) -> float:
    """Largest absolute difference."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    assert a.shape == b.shape, f"{a.shape} instead of {b.shape}"
    return float(np.abs(a - b).max())
