"""How one picture lies in another: a crop, also to another aspect, and a small rotation, found on a few frames.

The edges are searched everywhere on a coarse grid, then around the best place on finer ones; to the pixel of a
thumbnail, because a copy that is laid one pixel off loses most of its fine detail. A rotation is looked for only when
that is asked for: each angle costs a search of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.shapes import Floats, resized

THUMB = 64  # pixels a side of the pictures that are compared
_GRIDS = (16, 32, 64)  # pixels a side, coarse to fine
_SIZES = (16, 14, 12, 11)  # of the coarse grid: crops down to 70 %
_HOPELESS = (0.5, 0.6)  # best fit on the coarse grid, and on the next: copies reach 0.77 on each
_ANGLES = (-8.0, -6.0, -4.0, -2.0, 2.0, 4.0, 6.0, 8.0)  # degrees; then one to either side of the best

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fit:
    """One side shows the part (top, left, height, width) of the other: ``swap`` False: the test a part of the training
    frames, True: the reverse. Pixels of a picture of ``grid`` x ``grid``. Before that the test frames are turned back
    by ``angle`` degrees (of a picture ``aspect`` times as wide as high). ``score``: mean correlation of the probes."""

    swap: bool
    top: int
    left: int
    height: int
    width: int
    grid: int = THUMB
    angle: float = 0.0
    aspect: float = 1.0
    score: float = 0.0

    def apply(self, test: Floats, train: Floats, seen: Mask | None = None) -> tuple[Floats, Floats, Mask]:
        """Both sides showing the same part, and where both show it. ``seen`` (THUMB, THUMB) is what of the test counts.

        Without it all does.
        """
        mask = np.ones((THUMB, THUMB), bool) if seen is None else seen
        if self.angle:
            test, inside = turned(test, self.angle, self.aspect)
            mask = inside & (turned(mask[None].astype(np.float32), self.angle, self.aspect)[0][0] > 0.9)
        if self.swap:
            return self._part(test), train, self._part(mask[None].astype(np.float32))[0] > 0.9
        return test, self._part(train), mask

    def _part(self, frames: Floats) -> Floats:
        top, left, height, width = (THUMB // self.grid * x for x in (self.top, self.left, self.height, self.width))
        if (height, width) == (THUMB, THUMB):
            return frames
        return resized(frames[:, top : top + height, left : left + width], THUMB)


def register(test: Floats, train: Floats, rotated: float = 0.0) -> Fit | None:
    """How one side lies in the other (a crop, also to another aspect), by correlation of a few frames and of what
    changes between them: everywhere on a coarse grid, then around the best on finer ones. None when nothing fits.

    ``rotated`` is the aspect (width / height) of the test picture when small rotations are to be tried, else 0.
    """
    if not rotated:
        return _upright(test, train)
    best = _best_angle(test, train, rotated, _ANGLES)
    return best and _best_angle(test, train, rotated, (best.angle, best.angle - 1, best.angle + 1))


def _best_angle(test: Floats, train: Floats, aspect: float, angles: Sequence[float]) -> Fit | None:
    fits = []
    for angle in angles:
        fit = _upright(turned(test, angle, aspect)[0], train)
        if fit is not None:
            fits.append(replace(fit, angle=angle, aspect=aspect))
    return max(fits, key=lambda fit: fit.score, default=None)


@cache
def _turning(size: int, angle: float, aspect: float) -> tuple[Places, Places, Floats, Floats, Mask]:
    """Where each pixel of a picture turned back by ``angle`` degrees comes from: row and column of the pixel before it,
    the shares of the one after, and whether it lies inside."""
    at = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(at, at * aspect, indexing="ij")
    turn = np.deg2rad(angle)
    down = np.sin(turn) * x + np.cos(turn) * y + (size - 1) / 2
    across = (np.cos(turn) * x - np.sin(turn) * y) / aspect + (size - 1) / 2
    inside = (down >= 0) & (down <= size - 1) & (across >= 0) & (across <= size - 1)
    row, column = (np.clip(np.floor(v), 0, size - 2).astype(np.int64) for v in (down, across))
    part = (np.clip(v - w, 0, 1).astype(np.float32) for v, w in ((down, row), (across, column)))
    return row, column, *part, inside


def turned(frames: Floats, angle: float, aspect: float) -> tuple[Floats, Mask]:
    """Frames ``(n, size, size)`` turned back by ``angle`` degrees (clockwise), and which pixels lie inside them."""
    row, column, down, across, inside = _turning(frames.shape[1], angle, round(aspect, 3))
    upper = frames[:, row, column] * (1 - across) + frames[:, row, column + 1] * across
    lower = frames[:, row + 1, column] * (1 - across) + frames[:, row + 1, column + 1] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32), inside


# --------------------------------------------------------------------------- crops


class _Grid:
    """A few frames ``(n, side, side)`` on one grid, with the sums that any place in them needs."""

    def __init__(self, frames: Floats, side: int) -> None:
        self.frames = resized(frames, side)
        self._sums = [_summed(self.frames), _summed(self.frames * self.frames)]

    def spread(self, height: int, width: int, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Sum of squares around the mean of every ``height`` x ``width`` place that begins in these rows, columns."""
        total, square = (
            s[:, rows, columns][:, height:, width:]
            - s[:, rows, columns][:, :-height, width:]
            - s[:, rows, columns][:, height:, :-width]
            + s[:, rows, columns][:, :-height, :-width]
            for s in self._sums
        )
        out: NDArray[np.float64] = np.maximum(square - total * total / (height * width), 0)
        return out


def _summed(frames: Floats) -> NDArray[np.float64]:
    """Sums over all rows and columns before each, ``(n, side + 1, side + 1)``."""
    n, height, width = frames.shape
    out = np.zeros((n, height + 1, width + 1))
    np.cumsum(np.cumsum(frames, axis=1, dtype=np.float64), axis=2, out=out[:, 1:, 1:])
    return out


def _upright(test: Floats, train: Floats) -> Fit | None:
    pair = [np.concatenate([x, x - x.mean(axis=0)]) for x in (test, train)]
    coarse, *finer = _GRIDS
    best, fit = -2.0, Fit(False, 0, 0, coarse, coarse, coarse)
    small = [_Grid(x, coarse) for x in pair]
    for height, width in itertools.product(_SIZES, repeat=2):
        for swap in (False, True):
            score, top, left = _best_place(small, swap, height, width)
            if score > best + 0.005:
                best, fit = score, Fit(swap, top, left, height, width, coarse)
    for grid, least in zip(finer, _HOPELESS, strict=True):
        if best < least:
            return None
        best, fit = _refined([_Grid(x, grid) for x in pair], fit, grid)
    return replace(fit, score=best)


def _refined(pair: Sequence[_Grid], fit: Fit, grid: int) -> tuple[float, Fit]:
    """The best fit on a finer grid whose edges lie within two pixels of the coarse one's."""
    scale = grid // fit.grid
    top, left, height, width = (scale * x for x in (fit.top, fit.left, fit.height, fit.width))
    swaps = (False, True) if (height, width) == (grid, grid) else (fit.swap,)
    best, found = -2.0, Fit(fit.swap, top, left, height, width, grid)
    for step in (2, 1):
        centre, tried = found, range(-step, step + 1, step)
        for i, j in itertools.product(tried, repeat=2):
            size = centre.height + i, centre.width + j
            if max(size) > grid:
                continue
            for swap in swaps:
                score, y, x = _best_place(pair, swap, *size, near=(centre.top, centre.left))
                if score > best + 0.001:
                    best, found = score, Fit(swap, y, x, *size, grid)
    return best, found


def _best_place(
    pair: Sequence[_Grid], swap: bool, height: int, width: int, near: tuple[int, int] | None = None
) -> tuple[float, int, int]:
    """Where one side, made ``height`` x ``width``, fits best in the other, by mean correlation over the frames: score,
    top, left. ``near``: within two pixels of this place."""
    whole, side = pair[not swap], pair[0].frames.shape[1]
    top, left = (0, 0) if near is None else (max(0, near[0] - 2), max(0, near[1] - 2))
    bottom, right = (side, side) if near is None else (min(side, near[0] + 2 + height), min(side, near[1] + 2 + width))
    if bottom - top < height or right - left < width:
        return -2.0, top, left
    part = resized(pair[swap].frames, (height, width))
    part = part - part.mean(axis=(1, 2), keepdims=True)
    flat = part.reshape(len(part), -1, 1)
    places = np.lib.stride_tricks.sliding_window_view(
        whole.frames[:, top:bottom, left:right], (height, width), axis=(1, 2)
    )
    shape = places.shape[1:3]
    product = (places.reshape(len(part), shape[0] * shape[1], -1) @ flat).reshape(len(part), *shape)
    spread = whole.spread(height, width, slice(top, bottom + 1), slice(left, right + 1))
    scale = np.sqrt(spread * (flat * flat).sum(axis=1)[:, :, None])
    scores = np.where(scale > 1e-2, product / np.maximum(scale, 1e-2), 0.0).mean(axis=0)
    y, x = np.unravel_index(int(np.argmax(scores)), shape)
    return float(scores[y, x]), top + int(y), left + int(x)
