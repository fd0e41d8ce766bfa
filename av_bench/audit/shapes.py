"""What all pictures of the audit share: thumbnails of one size at one rate, resized and transformed by matrices."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FPS = 8.0  # thumbnails a second
SIZE = 128  # pixels a side of a thumbnail

Floats = NDArray[np.float32]


@cache
def cosines(length: int, first: int, count: int) -> Floats:
    """Rows ``first .. first + count - 1`` of an orthonormal cosine transform, ``(count, length)``."""
    k = np.arange(first, first + count)[:, None]
    basis = np.cos(np.pi * k * (2 * np.arange(length)[None] + 1) / (2 * length)) * np.sqrt(2 / length)
    basis[k[:, 0] == 0] /= np.sqrt(2)
    rounded: Floats = basis.astype(np.float32)
    return rounded


@cache
def _weights(old: int, new: int) -> Floats:
    """Rows of weights ``(new, old)``: a triangle around each new pixel, as wide as the coarser of the two grids."""
    scale = old / new
    at = (np.arange(new) + 0.5) * scale - 0.5
    reach = max(1.0, scale)
    weights = np.maximum(0, 1 - np.abs(np.arange(old)[None] - at[:, None]) / reach)
    rounded: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return rounded


def resized(frames: NDArray[Any], size: int | tuple[int, int]) -> Floats:
    """Frames ``(n, h, w)`` at ``size`` (both sides, or height and width), antialiased bilinear."""
    height, width = (size, size) if isinstance(size, int) else size
    data = frames.astype(np.float32, copy=False)
    if data.shape[1:] == (height, width):
        return data
    return np.asarray(_weights(data.shape[1], height) @ data @ _weights(data.shape[2], width).T, np.float32)


def at_times(frames: Floats, times: NDArray[np.float64]) -> Floats:
    """Rows ``(n, ...)`` at fractional row numbers, linear between neighbours, the ends held."""
    t = np.clip(times, 0, len(frames) - 1)
    low = np.floor(t).astype(int)
    high = np.minimum(low + 1, len(frames) - 1)
    share = (t - low).reshape(-1, *(1,) * (frames.ndim - 1)).astype(np.float32)
    blended = frames[low] * (1 - share) + frames[high] * share
    return np.asarray(blended, np.float32)
