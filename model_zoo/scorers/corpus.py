"""Training data of the nano networks: scenes of ``impacts``, rendered once into memory-mapped arrays.

Frames are rendered at 128 px and brought to size with the very resize the extractors use, so that training sees what
scoring sees (but for the codecs, whose effect the held-out report on encoded clips includes).
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from av_bench.contracts import MissingRequirement, UsageError, VideoRequest
from av_bench.media.decode import resize
from av_bench.media.resample import resample
from av_bench.networks import nano
from av_bench.rows import LARGEST_TABLE
from av_bench.runtime.files import lock, write_atomically
from av_bench.schema import build, load_json

Split = Literal["train", "val", "test"]
RENDER_SIZE = 128
SOUND_RATE = 44_100
FRAMES = 200
BIND_FRAMES = 16
_CHUNK = 8
_KEEP = 8  # chunks after which what is rendered counts as done


@dataclass(frozen=True)
class Corpus:
    """Memory-mapped arrays; row i of each belongs to scene i of the split.

    audio int16 ``(n, 128000)`` 16 kHz; grey uint8 ``(n, 200, 48, 48)``; colour uint8 ``(n, 16, 3, 64, 64)``;
    words int64 ``(n, 32)``; classes int64 ``(n,)`` into ``labels``.
    """

    audio: NDArray[np.int16]
    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    words: NDArray[np.int64]
    classes: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)


_SHAPES: dict[str, tuple[tuple[int, ...], Any]] = {
    "audio": ((128_000,), np.int16),
    "grey": ((FRAMES, 48, 48), np.uint8),
    "colour": ((BIND_FRAMES, 3, 64, 64), np.uint8),
    "words": ((32,), np.int64),
}


def bind_picks() -> list[int]:
    """Frame numbers that the 2-per-second picker takes from 25 frames/s."""
    return [int(np.ceil((0.25 + 0.5 * n) * 25)) - 1 for n in range(BIND_FRAMES)]


def render_item(split: Split, index: int) -> tuple[dict[str, NDArray[Any]], str]:
    """One scene as arrays and its label."""
    from protocols.impacts.picture import render_frames
    from protocols.impacts.scene import sample_scene
    from protocols.impacts.sound import render_audio

    scene = sample_scene(split, index)
    frames = torch.from_numpy(render_frames(scene, size=RENDER_SIZE)).permute(0, 3, 1, 2)
    small = resize(frames, VideoRequest(25.0, 48, "center")).float()
    grey = (small * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1).round().to(torch.uint8)
    colour = resize(frames[bind_picks()], VideoRequest(2.0, 64, "center"))
    sound = torch.from_numpy(render_audio(scene, SOUND_RATE)).mean(dim=0)
    audio = resample(sound[None], SOUND_RATE, nano.SAMPLE_RATE)[0, :128_000]
    arrays: dict[str, NDArray[Any]] = {
        "audio": (audio.clamp(-1, 1) * 32767).round().to(torch.int16).numpy(),
        "grey": grey.numpy(),
        "colour": colour.numpy(),
        "words": nano.hashed_words(scene.caption).numpy(),
    }
    return arrays, scene.label


def _chunk(job: tuple[Split, int, int]) -> list[tuple[dict[str, NDArray[Any]], str]]:
    torch.set_num_threads(1)
    split, start, stop = job
    return [render_item(split, i) for i in range(start, stop)]


def corpus(
    folder: Path, split: Split, count: int, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Corpus:
    """Open the corpus in ``folder``, rendering it first when it is not complete; a killed rendering resumes.

    ``progress`` hears how many scenes of how many are there. UsageError when another process renders there or the
    corpus is smaller than ``count``, MissingRequirement when the disk has no room for it.
    """
    done = folder / "labels.json"
    if not done.is_file():
        with lock(folder / ".lock") as mine:
            if not mine:
                raise UsageError(f"{folder}: another process renders there; wait for it or choose another --corpus")
            if not done.is_file():
                _render(folder, split, count, workers, progress)
    labels: list[str] = build(list[str], load_json(done, LARGEST_TABLE), str(done))
    if len(labels) < count:
        raise UsageError(
            f"{folder} holds {len(labels)} scenes, {count} are asked for; remove it or choose another folder"
        )
    names = tuple(sorted(set(all_labels())))
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r")[:count] for key in _SHAPES}
    classes = np.array([names.index(label) for label in labels[:count]], dtype=np.int64)
    return Corpus(**arrays, classes=classes, labels=names)


def all_labels() -> list[str]:
    """Class labels of the set, in a fixed order."""
    from protocols.impacts.scene import sample_scene

    return [sample_scene("val", i).label for i in range(256)]


def _render(folder: Path, split: Split, count: int, workers: int, progress: Callable[[int, int], None] | None) -> None:
    part = folder / "part.json"
    about = {"split": split, "count": count}
    complete = all((folder / f"{key}.npy").is_file() for key in _SHAPES)
    labels = _labels_so_far(part, about) if complete else []  # an array that is gone would be filled with zeros
    maps = {
        key: _array(folder / f"{key}.npy", (count, *shape), dtype, bool(labels))
        for key, (shape, dtype) in _SHAPES.items()
    }

    def keep() -> None:
        for array in maps.values():
            array.flush()  # type: ignore[attr-defined]
        write_atomically(part, json.dumps({**about, "labels": labels}).encode())

    jobs = [(split, i, min(i + _CHUNK, count)) for i in range(len(labels), count, _CHUNK)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for i, ((_, start, _), rows) in enumerate(zip(jobs, pool.imap(_chunk, jobs), strict=True), 1):
            for offset, (arrays, label) in enumerate(rows):
                for key, array in arrays.items():
                    maps[key][start + offset] = array
                labels.append(label)
            if i % _KEEP == 0 or i == len(jobs):
                keep()
            if progress is not None:
                progress(len(labels), count)
    write_atomically(folder / "labels.json", json.dumps(labels).encode())
    part.unlink()


def _labels_so_far(part: Path, about: dict[str, Any]) -> list[str]:
    """Labels of the scenes that an earlier rendering of the same corpus finished."""
    if not part.is_file():
        return []
    try:
        known = build(dict, load_json(part, LARGEST_TABLE), str(part))
        return build(list[str], known["labels"], str(part)) if {key: known[key] for key in about} == about else []
    except (UsageError, KeyError, TypeError):
        return []  # damaged: as good as none, the scenes are rendered again


def _array(path: Path, shape: tuple[int, ...], dtype: DTypeLike, go_on: bool) -> NDArray[Any]:
    """A writable mapped array. Its room on the disk is taken at once: a write to a mapped file cannot fail politely."""
    if go_on:
        return np.lib.format.open_memmap(path, mode="r+")
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # systems without it keep a sparse file
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        size = f"{math.prod(shape) * np.dtype(dtype).itemsize / 1e9:.1f} GB"
        raise MissingRequirement(f"{path}: no room for {size} ({error.strerror}). Free some disk space") from error
    return array
