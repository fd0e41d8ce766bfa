"""Verification of a picture candidate: thumbnails of both files side by side at the candidate's offset.

What the candidate says was changed is undone, the crop and a small rotation between the two are fitted on a few frames
(``registration``). Then three correlations over the stretch must hold together: of the frames, of their detail, and of
how 8 x 8 blocks change over time. The first two alone would match two clips of one still scene, the last alone two
swings of one kind.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.alignment import Alignment
from av_bench.audit.index import longest_run
from av_bench.audit.registration import THUMB, Mask, register
from av_bench.audit.shapes import FPS, SIZE, Floats, at_times, resized
from av_bench.audit.turns import Change, undone_frames
from av_bench.audit.views import Box, Grey

_MIN_FRAME = 0.6  # spatial correlation of a frame that counts as equal
_MIN_MEAN, _MIN_PART = 0.65, 0.5  # of (frames, their detail, motion)
_STILL_LIFE = 0.1  # how far above the agreement of what moves the confidence may lie
_DETAIL = 32  # pixels a side for detail
_BLOCKS = 8
_PROBES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the stretch: where the crop is fitted
_LEAST_SEEN = 0.6  # of the picture that is not covered
_SPEEDS = (1.0, *(round(1 + sign * step / 100, 2) for step in range(1, 7) for sign in (-1, 1)))
_LATE = tuple(step / FPS for step in range(-4, 5))  # s
_MOVES_ALIKE = 0.3  # motion that agrees so far is worth a search for the speed
_AROUND_S = 6.0  # s on either side of the middle by which the speed is fitted


@dataclass(frozen=True, slots=True)
class Side:
    """Thumbnails ``(frames, SIZE, SIZE)`` of a file, the part of them to look at, and the aspect of a whole frame.

    ``covered`` is a part that shows something else, as an overlaid window does.
    """

    frames: Grey
    box: Box
    aspect: float = 1.0
    covered: Box | None = None

    def part(self) -> Floats:
        """The part that is looked at, ``(frames, THUMB, THUMB)``."""
        return resized(self.box.cut(self.frames), THUMB)

    def seen(self) -> Mask:
        """Which pixels of ``part`` are not covered."""
        shown = np.ones((1, SIZE, SIZE), np.float32)
        if self.covered is not None:
            self.covered.cut(shown)[:] = 0
        mask: Mask = resized(self.box.cut(shown), THUMB)[0] > 0.9
        return mask


def align_picture(
    test: Side,
    train: Side,
    change: Change,
    offset: float,
    stretch: tuple[float, float],
    min_seconds: float,
    *,
    rotated: bool = False,
) -> Alignment | None:
    """Verify a candidate between two files; ``rotated``: small rotations are tried.

    ``offset`` is training time minus (slowed) test time, ``stretch`` (start, length) what the codes found, in s of the
    slowed test file. None when less than ``min_seconds`` of the test file agrees.
    """
    ours, theirs = undone_frames(test.part(), change), train.part()
    seen = undone_frames(test.seen()[None].astype(np.float32), Change(turn=change.turn))[0] > 0.5
    start, length = stretch
    probe = (start + length * np.array(_PROBES)) * FPS
    aspect = train.aspect * train.box.width / train.box.height
    fit = register(at_times(ours, probe), at_times(theirs, probe + offset * FPS), aspect if rotated else 0.0)
    if fit is None:
        return None
    a, b, mask = fit.apply(ours, theirs, seen)
    if mask.mean() < _LEAST_SEEN:
        return None
    middle = start + length / 2
    turn, late = _in_time(a, b, mask, middle, offset)
    a, moved = _slower(a, turn), middle * turn
    change, offset = replace(change, speed=change.speed * turn), middle + offset + late - moved
    inside = np.arange(max(0.0, moved - length / 2), moved + length / 2, 1 / FPS) * FPS
    fine = np.arange(-3, 4) / 3 / FPS
    offset += max(fine, key=lambda d: _motion(at_times(a, inside), at_times(b, inside + (offset + d) * FPS), mask))
    first = np.ceil(max(0.0, -offset * FPS))
    last = min(len(a) - 1.0, len(b) - 1 - offset * FPS)
    times = np.arange(first, last + 1e-6)
    if len(times) < 2:
        return None
    found = at_times(a, times), at_times(b, times + offset * FPS)
    return _stretch(*found, mask, times, change, offset, min_seconds)


def _slower(frames: Floats, speed: float) -> Floats:
    """Frames that were played ``speed`` times too fast, at their own pace."""
    return frames if speed == 1 else at_times(frames, np.arange(int((len(frames) - 1) * speed) + 1) / speed)


def _in_time(a: Floats, b: Floats, mask: Mask, middle: float, offset: float) -> tuple[float, float]:
    """How much faster the test still plays than was undone, and how much later (s) in the training file its ``middle``
    is than ``offset`` says, by the motion around it; (1, 0) when that leaves hardly less unexplained."""
    small = _blocks(a), _blocks(b)
    blocks = _blocks(mask[None].astype(np.float32))[0] > 0.9
    times = np.arange(max(0.0, middle - _AROUND_S), min(len(a) / FPS, middle + _AROUND_S), 1 / FPS)

    def agrees(turn: float, late: float) -> float:
        there = middle + offset + late + turn * (times - middle)
        inside = (there >= 0) & (there <= (len(b) - 1) / FPS)
        if inside.sum() < 3 * FPS:
            return -1.0
        return _together(at_times(small[0], times[inside] * FPS), at_times(small[1], there[inside] * FPS), blocks)

    as_found = max(agrees(1.0, late) for late in (-1 / FPS, 0.0, 1 / FPS))
    if as_found < _MOVES_ALIKE:
        return 1.0, 0.0
    found = max(itertools.product(_SPEEDS, _LATE), key=lambda pair: agrees(*pair))
    return found if 1 - agrees(*found) < 0.8 * (1 - as_found) else (1.0, 0.0)


def _stretch(
    a: Floats,
    b: Floats,
    mask: Mask,
    times: NDArray[np.float64],
    change: Change,
    offset: float,
    min_seconds: float,
) -> Alignment | None:
    """The longest stretch in which every frame agrees, if all of it holds together."""
    frames = _correlation(a[:, mask], b[:, mask])
    run, count = longest_run(_bridged(frames >= _MIN_FRAME, 2))
    if count / FPS / change.speed < min_seconds:
        return None
    part = slice(run, run + count)
    fine = resized(mask[None].astype(np.float32), _DETAIL)[0] > 0.9
    detail = _correlation(_detail(a[part])[:, fine], _detail(b[part])[:, fine])
    parts = float(frames[part].mean()), float(detail.mean()), _motion(a[part], b[part], mask)
    confidence = min(float(np.mean(parts)), parts[2] + _STILL_LIFE)  # a still scene looks like itself at any time
    if confidence < _MIN_MEAN or min(parts) < _MIN_PART:
        return None
    start, length = float(times[run]) / FPS / change.speed, count / FPS / change.speed
    return Alignment(float(offset), start, length, min(1.0, confidence), change)


def _bridged(mask: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """The mask with gaps of at most ``gap`` between two True closed."""
    out = mask.copy()
    hits = np.flatnonzero(mask)
    for a, b in itertools.pairwise(hits):
        if 1 < b - a <= gap + 1:
            out[a:b] = True
    return out


def _detail(frames: Floats) -> Floats:
    """What is finer than an eighth of the picture: shared lighting and horizon do not count as likeness."""
    small = resized(frames, _DETAIL)
    coarse = resized(small, _BLOCKS)
    k = _DETAIL // _BLOCKS
    fine: Floats = small - coarse.repeat(k, axis=1).repeat(k, axis=2)
    return fine


def _correlation(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Row-wise correlation; 0 where a row is constant."""
    x, y = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    rows: NDArray[np.float64] = np.where(scale > 1e-3, (x * y).sum(axis=1) / np.maximum(scale, 1e-3), 0.0)
    return rows


def _motion(a: Floats, b: Floats, mask: Mask) -> float:
    """Correlation of the change over time of 8 x 8 block means, over all blocks together."""
    return _together(_blocks(a), _blocks(b), _blocks(mask[None].astype(np.float32))[0] > 0.9)


def _blocks(frames: Floats) -> Floats:
    """Means of 8 x 8 blocks, ``(frames, 8, 8)``."""
    size = THUMB // _BLOCKS
    out: Floats = frames.reshape(len(frames), _BLOCKS, size, _BLOCKS, size).mean(axis=(2, 4))
    return out


def _together(a: Floats, b: Floats, blocks: Mask) -> float:
    """Correlation of what changes in the chosen blocks ``(frames, 8, 8)``."""
    first, second = ((x[:, blocks] - x[:, blocks].mean(axis=0)).reshape(1, -1) for x in (a, b))
    return float(_correlation(first, second)[0])
