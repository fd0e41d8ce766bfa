"""Copies of clips as the web makes them: encoded again, cut, cropped, marked, under an id that says nothing.

They are planted for tests of an overlap audit: the table says which copy comes from which clip, and where in it.
"""

from __future__ import annotations

import json
import string
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from av_bench.contracts import UsageError
from av_bench.runtime.files import write_text
from protocols.impacts import FPS, SAMPLE_RATE, SECONDS, SIZE
from protocols.impacts.encode import read_mp4, write_mp4
from protocols.impacts.picture import render_frames
from protocols.impacts.scene import SPLIT_CLIPS, Split, sample_scene
from protocols.impacts.sound import render_audio
from protocols.impacts.streams import stream

Frames = NDArray[np.uint8]
Audio = NDArray[np.float32]
COUNT = round(SECONDS * FPS)
ID_LETTERS = string.ascii_letters + string.digits + "-_"
PERTURBATIONS = ("bitrate", "scale", "crop", "logo", "loudness", "fps30", "shift", "partial")


@dataclass(frozen=True)
class ReuploadPlan:
    """What is done to one copy, in numbers; the defaults only encode it again.

    ``start`` (frames) is the source frame the copy begins with: negative when other content comes first. ``length``
    is the copy's frame count; ``crop`` is (top, left, side) in source pixels.
    """

    crf: int = 28
    audio_bitrate: int = 128_000
    size: int = SIZE
    crop: tuple[int, int, int] = (0, 0, SIZE)
    logo: tuple[int, int] | None = None
    gain_db: float = 0.0
    fps: float = FPS
    start: int = 0
    length: int = COUNT


def plant_reuploads(split: Split, out_dir: Path | str, count: int, seed: int) -> Path:
    """Writes ``count`` perturbed copies of clips of a split; returns the path of ``reuploads.jsonl``.

    Each line: id (11 characters), file, source (clip id), perturbation, offset (s): what the copy shows at time t, the
    source shows at t + offset. The perturbations take turns; copies that are there are kept. Every copy went through
    two encodings. The sources are drawn from the first ``4 * count`` clips of the split.
    """
    if split not in SPLIT_CLIPS:
        raise UsageError(f"impacts has no split {split!r}; choose one of {', '.join(SPLIT_CLIPS)}")
    if not 1 <= count <= SPLIT_CLIPS[split]:
        raise UsageError(f"impacts {split} can give 1..{SPLIT_CLIPS[split]} re-uploads, not {count}")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    indices = stream(seed, f"reuploads.{split}").choice(min(SPLIT_CLIPS[split], 4 * count), count, replace=False)
    rows: list[dict[str, object]] = []
    for number, index in enumerate(indices):
        rng = stream(seed, f"reuploads.{split}.{number}")
        new_id = "".join(rng.choice(list(ID_LETTERS), 11))
        name = PERTURBATIONS[number % len(PERTURBATIONS)]
        plan = draw_plan(name, rng)
        path = out / f"{new_id}.mp4"
        if not path.exists():
            _write_copy(path, split, int(index), plan)
        source = sample_scene(split, int(index)).id
        rows.append(
            {"id": new_id, "file": path.name, "source": source, "perturbation": name, "offset": plan.start / FPS}
        )
    table = out / "reuploads.jsonl"
    write_text(table, "".join(json.dumps(row) + "\n" for row in rows))
    return table


def draw_plan(name: str, rng: np.random.Generator) -> ReuploadPlan:
    """The numbers of one perturbation; see ``PERTURBATIONS``."""
    sign = int(rng.choice([-1, 1]))
    if name == "bitrate":
        return ReuploadPlan(crf=int(rng.integers(33, 39)), audio_bitrate=int(rng.choice([48_000, 64_000])))
    if name == "scale":
        return ReuploadPlan(size=int(rng.choice([144, 176, 320, 360])))
    if name == "crop":
        side = int(SIZE * rng.uniform(0.8, 0.92))
        top, left = rng.integers(0, SIZE - side + 1, 2)
        return ReuploadPlan(crop=(int(top), int(left), side))
    if name == "logo":
        return ReuploadPlan(logo=(int(rng.choice([4, SIZE - 28])), int(rng.choice([4, SIZE - 52]))))
    if name == "loudness":
        return ReuploadPlan(gain_db=sign * float(rng.uniform(3, 12)))
    if name == "fps30":
        return ReuploadPlan(fps=30.0)
    if name == "shift":  # 1-3 s earlier or later; another clip fills the gap
        return ReuploadPlan(start=sign * int(rng.integers(25, 76)))
    if name == "partial":
        length = int(rng.integers(125, 176))
        return ReuploadPlan(start=int(rng.integers(0, COUNT - length + 1)), length=length)
    raise UsageError(f"no perturbation {name!r}; choose one of {', '.join(PERTURBATIONS)}")


def _write_copy(path: Path, split: Split, index: int, plan: ReuploadPlan) -> None:
    frames, audio = _first_upload(split, index)
    if plan.start < 0 or plan.start + plan.length > COUNT:
        other_frames, other_audio = _first_upload(split, (index + 1) % SPLIT_CLIPS[split])
        if plan.start < 0:
            frames, audio = np.concatenate([other_frames, frames]), np.concatenate([other_audio, audio], axis=1)
        else:
            frames, audio = np.concatenate([frames, other_frames]), np.concatenate([audio, other_audio], axis=1)
    first = plan.start % COUNT  # counted from the filler where that comes first
    samples = [round(k * SAMPLE_RATE / FPS) for k in (first, first + plan.length)]
    frames, audio = _redrawn(frames[first : first + plan.length], plan), audio[:, samples[0] : samples[1]]
    audio = np.clip(audio * np.float32(10 ** (plan.gain_db / 20)), -1, 1)
    write_mp4(path, frames, audio, SAMPLE_RATE, plan.fps, crf=plan.crf, audio_bitrate=plan.audio_bitrate)


def _first_upload(split: Split, index: int) -> tuple[Frames, Audio]:
    """The clip after its first encoding and decoding."""
    scene = sample_scene(split, index)
    with tempfile.TemporaryDirectory() as folder:
        path = write_mp4(Path(folder) / "clip.mp4", render_frames(scene), render_audio(scene), SAMPLE_RATE, FPS)
        frames, audio, _, _ = read_mp4(path)
    return frames, audio[:, : round(SECONDS * SAMPLE_RATE)]


def _redrawn(frames: Frames, plan: ReuploadPlan) -> Frames:
    """Cropped, scaled, marked, and at the new frame rate (by repeating frames)."""
    top, left, side = plan.crop
    frames = frames[:, top : top + side, left : left + side]
    if side != plan.size:
        factor = plan.size / side
        scaled = [zoom(frame, (factor, factor, 1), order=1, mode="nearest", grid_mode=True) for frame in frames]
        frames = np.stack(scaled)
    if plan.logo is not None:
        y, x = plan.logo
        frames = frames.copy()
        frames[:, y : y + 24, x : x + 48] = (250, 250, 250)
        frames[:, y + 6 : y + 18, x + 6 : x + 42 : 12] = (200, 20, 20)
        frames[:, y + 6 : y + 18, x + 9 : x + 42 : 12] = (20, 20, 200)
    count = round(len(frames) * plan.fps / FPS)
    shown: Frames = frames[np.floor(np.arange(count) * FPS / plan.fps + 1e-9).astype(int)]
    return shown
