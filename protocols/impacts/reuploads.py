"""Copies of clips as the web makes them: encoded again, cut, cropped, marked, under an id that says nothing.

They are planted for tests of an overlap audit: the table says which copy comes from which clip, and where in it.
"""

from __future__ import annotations

import json
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from av_bench.contracts import UsageError
from protocols.impacts import FPS, SAMPLE_RATE, SECONDS, SIZE
from protocols.impacts.encode import Options, read_mp4, write_mp4
from protocols.impacts.picture import render_frames
from protocols.impacts.scene import SPLIT_CLIPS, Split, sample_scene
from protocols.impacts.sound import render_audio
from protocols.impacts.streams import stream

Frames = NDArray[np.uint8]
Audio = NDArray[np.float32]


class Copy:
    """A clip on its way to a re-upload: frames, audio, frame rate, encoder options, and the source time of its start."""

    def __init__(self, frames: Frames, audio: Audio) -> None:
        self.frames, self.audio = frames, audio
        self.fps = FPS
        self.offset = 0.0
        self.options: Options = {"crf": 28, "audio_bitrate": 128_000}


Perturb = Callable[[Copy, np.random.Generator, Copy], None]


def plant_reuploads(split: Split, out_dir: Path | str, count: int, seed: int) -> Path:
    """Writes ``count`` perturbed copies of clips of a split; returns the path of ``reuploads.jsonl``.

    Each line: id (11 characters), file, source (clip id), perturbation, offset (s): what the copy shows at time t, the
    source shows at t + offset. Copies that are there are kept. Every copy went through two encodings.
    """
    if split not in SPLIT_CLIPS:
        raise UsageError(f"impacts has no split {split!r}; choose one of {', '.join(SPLIT_CLIPS)}")
    if not 1 <= count <= SPLIT_CLIPS[split]:
        raise UsageError(f"impacts {split} can give 1..{SPLIT_CLIPS[split]} re-uploads, not {count}")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rng = stream(seed, f"reuploads.{split}")
    indices = rng.choice(min(SPLIT_CLIPS[split], 4 * count), count, replace=False)
    names = sorted(PERTURBATIONS)
    rows = []
    for number, index in enumerate(indices):
        copy_rng = stream(seed, f"reuploads.{split}.{number}")
        new_id = "".join(copy_rng.choice(list(string.ascii_letters + string.digits + "-_"), 11))
        rows.append(_plant(split, int(index), new_id, names[number % len(names)], copy_rng, out))
    path = out / "reuploads.jsonl"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)
    return path


def _plant(split: Split, index: int, new_id: str, name: str, rng: np.random.Generator, out: Path) -> dict[str, Any]:
    """One copy; the perturbation's numbers are drawn before the (slow) picture work, the file is kept if there."""
    source = sample_scene(split, index).id
    copy = _first_upload(split, index)
    other = _first_upload(split, (index + 1) % SPLIT_CLIPS[split]) if name == "shift" else copy
    PERTURBATIONS[name](copy, rng, other)
    path = out / f"{new_id}.mp4"
    if not path.exists():
        write_mp4(path, copy.frames, copy.audio, SAMPLE_RATE, copy.fps, **copy.options)
    return {"id": new_id, "file": path.name, "source": source, "perturbation": name, "offset": round(copy.offset, 4)}


def _first_upload(split: Split, index: int) -> Copy:
    """The clip after its first encoding and decoding."""
    scene = sample_scene(split, index)
    with tempfile.TemporaryDirectory() as folder:
        path = write_mp4(Path(folder) / "clip.mp4", render_frames(scene), render_audio(scene), SAMPLE_RATE, FPS)
        frames, audio, _, _ = read_mp4(path)
    return Copy(frames, audio[:, : round(SECONDS * SAMPLE_RATE)])


# --------------------------------------------------------------------------- perturbations


def _bitrate(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """Few bits for picture and sound."""
    copy.options = {"crf": int(rng.integers(33, 39)), "audio_bitrate": int(rng.choice([48_000, 64_000]))}


def _scale(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """Another picture size."""
    copy.frames = _resized(copy.frames, int(rng.choice([144, 176, 320, 360])))


def _crop(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """Margins cut off, the rest at the old size."""
    size = copy.frames.shape[1]
    keep = int(size * rng.uniform(0.8, 0.92))
    top, left = rng.integers(0, size - keep + 1, 2)
    copy.frames = _resized(copy.frames[:, top : top + keep, left : left + keep], size)


def _logo(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """An opaque badge in a corner for the whole clip."""
    size = copy.frames.shape[1]
    badge = rng.integers(0, 256, (3, 6, 3)).astype(np.uint8).repeat(size // 32, axis=0).repeat(size // 32, axis=1)
    height, width = badge.shape[:2]
    top = int(rng.choice([4, size - height - 4]))
    left = int(rng.choice([4, size - width - 4]))
    copy.frames[:, top : top + height, left : left + width] = badge


def _loudness(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """Louder or quieter by 3-12 dB, clipped where it must."""
    gain = 10 ** (rng.choice([-1, 1]) * rng.uniform(3, 12) / 20)
    copy.audio = np.clip(copy.audio * np.float32(gain), -1, 1)


def _fps30(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """30 frames/s by repeating frames."""
    copy.fps = 30.0
    count = round(copy.frames.shape[0] * 30 / FPS)
    copy.frames = copy.frames[np.floor(np.arange(count) * FPS / 30 + 1e-9).astype(int)]


def _shift(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """Starts 1-3 s earlier or later than the source; another clip fills the gap."""
    frames = int(rng.choice([-1, 1]) * rng.integers(25, 76))
    samples = round(frames * SAMPLE_RATE / FPS)
    copy.offset = frames / FPS
    if frames > 0:
        copy.frames = np.concatenate([copy.frames[frames:], other.frames[:frames]])
        copy.audio = np.concatenate([copy.audio[:, samples:], other.audio[:, :samples]], axis=1)
    else:
        copy.frames = np.concatenate([other.frames[frames:], copy.frames[:frames]])
        copy.audio = np.concatenate([other.audio[:, samples:], copy.audio[:, :samples]], axis=1)


def _partial(copy: Copy, rng: np.random.Generator, other: Copy) -> None:
    """A part of 5-7 s only."""
    length = int(rng.integers(125, 176))
    start = int(rng.integers(0, copy.frames.shape[0] - length + 1))
    samples = [round(k * SAMPLE_RATE / FPS) for k in (start, start + length)]
    copy.offset = start / FPS
    copy.frames = copy.frames[start : start + length]
    copy.audio = copy.audio[:, samples[0] : samples[1]]


def _resized(frames: Frames, size: int) -> Frames:
    factor = size / frames.shape[1]
    out = np.empty((frames.shape[0], size, size, 3), np.uint8)
    for k, frame in enumerate(frames):
        out[k] = np.clip(zoom(frame, (factor, factor, 1), order=1, mode="nearest", grid_mode=True)[:size, :size], 0, 255)
    return out


PERTURBATIONS: dict[str, Perturb] = {
    "bitrate": _bitrate, "scale": _scale, "crop": _crop, "logo": _logo,
    "loudness": _loudness, "fps30": _fps30, "shift": _shift, "partial": _partial,
}  # fmt: skip
