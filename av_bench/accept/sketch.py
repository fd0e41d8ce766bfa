"""A short summary of an array that can be compared with a tolerance, whatever its size.

Processors round differently, so a hash of an output tells apart what is equal in practice. Sixteen sums of all values
with random signs keep distances (Achlioptas 2003, "Database-friendly random projections"): the root mean square of the
differences of two sketches is that of the arrays, to about 18 percent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUMS = 16
DIGITS = 4  # significant ones, of the largest value, that count in the digest
_SEED = 20241215


def summary(array: ArrayLike) -> dict[str, Any]:
    """Shape, mean, sd, sketch, and a digest of the values rounded to four significant digits of the largest."""
    values = np.asarray(array, dtype=np.float64)
    largest = float(np.abs(values).max()) if values.size else 0.0
    rounded = np.round(values / largest * 10**DIGITS).astype(np.int64) if largest else np.zeros(values.shape, np.int64)
    return {
        "shape": list(values.shape),
        "mean": float(f"{values.mean():.6g}"),
        "sd": float(f"{values.std():.6g}"),
        "sketch": [float(f"{x:.8g}") for x in sketch(values)],
        "digest": hashlib.sha256(rounded.tobytes()).hexdigest()[:16],
    }


def sketch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(16,)``: sums of all values with random signs, over the square root of their number.

    The signs are raw bits of PCG64, so they are the same in every version of numpy.
    """
    flat = values.ravel()
    words = np.random.PCG64(_SEED).random_raw((len(flat) * SUMS + 63) // 64).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=len(flat) * SUMS).reshape(SUMS, -1)
    sums = 2.0 * (bits @ flat) - flat.sum()
    found: NDArray[np.float64] = sums / np.sqrt(max(len(flat), 1))
    return found


def deviation(ours: Mapping[str, Any], known: Mapping[str, Any]) -> float:
    """Distance of two summaries as a share of the known one's root mean square; infinite for other shapes."""
    if list(ours["shape"]) != list(known["shape"]):
        return float("inf")
    difference = np.asarray(ours["sketch"], np.float64) - np.asarray(known["sketch"], np.float64)
    size = float(np.hypot(known["mean"], known["sd"]))
    return float(np.sqrt(np.mean(difference**2)) / size) if size else float("inf")
