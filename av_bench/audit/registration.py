"""How one picture lies in another: a crop, also to another aspect, found on a few frames.

The edges are searched everywhere on a coarse grid, then around the best place on finer ones; to the pixel of a
thumbnail, because a copy that is laid one pixel off loses most of its fine detail.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.fingerprints import THUMB, resized

_GRIDS = (16, 32, 64)  # pixels a side, coarse to fine
_SIZES = (16, 14, 12, 11)  # of the coarse grid: crops down to 70 %
_HOPELESS = (0.5, 0.6)  # best fit on the coarse grid, and on the next: copies reach 0.77 on each

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """One side shows the part (top, left, height, width) of the other: ``swap`` False: the test a part of the training
    frames, True: the reverse. Pixels of a picture of ``grid`` x ``grid``."""

    swap: bool
    top: int
    left: int
    height: int
    width: int
    grid: int = THUMB

    def apply(self, test: Floats, train: Floats) -> tuple[Floats, Floats]:
        """Both sides showing the same part."""
        return (self._part(test), train) if self.swap else (test, self._part(train))

    def _part(self, frames: Floats) -> Floats:
        top, left, height, width = (THUMB // self.grid * x for x in (self.top, self.left, self.height, self.width))
        if (height, width) == (THUMB, THUMB):
            return frames
        return resized(frames[:, top : top + height, left : left + width], THUMB)


def register(test: Floats, train: Floats) -> Fit | None:
    """How one side lies in the other (a crop, also to another aspect), by correlation of a few frames and of what
    changes between them: everywhere on a coarse grid, then around the best on finer ones. None when nothing fits."""
    pair = [np.concatenate([x, x - x.mean(axis=0)]) for x in (test, train)]
    coarse, *finer = _GRIDS
    best, fit = -2.0, Fit(False, 0, 0, coarse, coarse, coarse)
    small = [resized(x, coarse) for x in pair]
    for height, width in itertools.product(_SIZES, repeat=2):
        for swap in (False, True):
            score, top, left = _best_place(small, swap, height, width)
            if score > best + 0.005:
                best, fit = score, Fit(swap, top, left, height, width, coarse)
    for grid, least in zip(finer, _HOPELESS, strict=True):
        if best < least:
            return None
        best, fit = _refined([resized(x, grid) for x in pair], fit, grid)
    return fit


def _refined(pair: Sequence[Floats], fit: Fit, grid: int) -> tuple[float, Fit]:
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
    pair: Sequence[Floats], swap: bool, height: int, width: int, near: tuple[int, int] | None = None
) -> tuple[float, int, int]:
    """Where one side, made ``height`` x ``width``, fits best in the other: score, top, left. ``near``: within two
    pixels of this place."""
    whole, first = pair[not swap], (0, 0)
    if near is not None:
        first = (max(0, near[0] - 2), max(0, near[1] - 2))
        whole = whole[:, first[0] : near[0] + 2 + height, first[1] : near[1] + 2 + width]
        if min(whole.shape[1] - height, whole.shape[2] - width) < 0:
            return -2.0, *near
    scores = _slide(resized(pair[swap], (height, width)), whole)
    top, left = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return float(scores[top, left]), first[0] + int(top), first[1] + int(left)


def _slide(part: Floats, whole: Floats) -> NDArray[np.float64]:
    """Mean correlation over frames of ``part (n, h, w)`` with every place of that size in ``whole (n, H, W)``."""
    height, width = part.shape[1:]
    x = part - part.mean(axis=(1, 2), keepdims=True)
    places = np.lib.stride_tricks.sliding_window_view(whole, (height, width), axis=(1, 2))
    product = np.einsum("nijkl,nkl->nij", places, x, optimize=True)
    mean, square = _box(whole, height, width), _box(whole * whole, height, width)
    energy = np.maximum(square - mean * mean, 0) * height * width
    scale = np.sqrt(energy * (x * x).sum(axis=(1, 2))[:, None, None])
    score: NDArray[np.float64] = np.where(scale > 1e-2, product / np.maximum(scale, 1e-2), 0.0).mean(axis=0)
    return score


def _box(whole: Floats, height: int, width: int) -> NDArray[np.float64]:
    """Mean of every ``height`` x ``width`` place of ``(n, H, W)``."""
    total = np.pad(np.cumsum(np.cumsum(whole, axis=1, dtype=np.float64), axis=2), ((0, 0), (1, 0), (1, 0)))
    inside = total[:, height:, width:] - total[:, :-height, width:] - total[:, height:, :-width]
    mean: NDArray[np.float64] = (inside + total[:, :-height, :-width]) / (height * width)
    return mean
