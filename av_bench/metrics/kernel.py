"""Kernel audio distance (KAD): squared maximum mean discrepancy of two sets of features.

Conventions
-----------
* Reference first, generated second; rows are features ``(n, d)``; all arithmetic is float64.
* Gaussian kernel ``exp(-|a - b|^2 / (2 s^2))``; the bandwidth s is the median distance between two different
  reference rows (of an even number of distances the lower of the middle two, as in the published tool).
* Unbiased: a row is never compared with itself, so the value does not depend on n on average and may be below 0.
* Times 100, as published. Lower is better.

Sources: Gretton et al. (JMLR 2012), eq. 3; Chung et al., "KAD: No more FAD!" (2025).

Everything runs over blocks of rows: memory grows with the number of rows, never with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics.checks import FloatArray, as_floats, require_finite_result, require_rows, require_same

METRIC = "kernel_distance"
SCALE = 100.0
BLOCK_ENTRIES = 4_000_000  # 32 MB of float64 per block
BINS = 1 << 16


class KernelEffects(NamedTuple):
    """KAD, its bandwidth, and the first-order change that each row makes; the effects of a side sum to 0."""

    value: float
    bandwidth: float
    reference: FloatArray
    generated: FloatArray


def kernel_distance(reference: ArrayLike, generated: ArrayLike, bandwidth: float | None = None) -> float:
    """KAD of ``(n, d)`` and ``(m, d)``: 100 times the unbiased squared MMD.

    Raises MetricError for wrong shapes, fewer than two rows, values that are not finite, and a reference whose median
    distance is 0 (more than half of its pairs are equal); UsageError for a bandwidth that is not positive.

    Examples
    --------
    >>> round(kernel_distance([[0.0], [1.0]], [[0.0], [1.0]], bandwidth=1.0), 6)
    -39.346934
    """
    return kernel_effects(reference, generated, bandwidth).value


def kernel_effects(reference: ArrayLike, generated: ArrayLike, bandwidth: float | None = None) -> KernelEffects:
    """:func:`kernel_distance` and the effects ``(n,)``, ``(m,)`` of all rows, at the bandwidth held fixed."""
    x = as_floats(reference, METRIC, "reference", "(rows, dimensions)", 2)
    y = as_floats(generated, METRIC, "generated", "(rows, dimensions)", 2)
    for name, side in (("reference", x), ("generated", y)):
        require_rows(side, 2, METRIC, name, "a pair of different rows is needed")
    require_same(x, y, METRIC, axis=1)
    centre = x.mean(axis=0)
    x, y = x - centre, y - centre  # distances are the same, and squares of a common offset cost no digits
    width = median_distance(x) if bandwidth is None else float(bandwidth)
    if not (np.isfinite(width) and width > 0):
        raise UsageError(f"{METRIC}: bandwidth is {width!r}; pass a positive number")
    n, m = len(x), len(y)
    own_x, cross_x, cross_y = _row_sums(x, x, width)[0], *_row_sums(x, y, width)
    own_y = _row_sums(y, y, width)[0]
    within_x, within_y = (own_x - 1.0) / (n - 1), (own_y - 1.0) / (m - 1)  # without the row itself
    between_x, between_y = cross_x / m, cross_y / n
    value = within_x.mean() + within_y.mean() - 2.0 * between_x.mean()
    require_finite_result(value, METRIC)
    return KernelEffects(SCALE * float(value), width, _effects(within_x - between_x), _effects(within_y - between_y))


def median_distance(rows: FloatArray) -> float:
    """Median distance between two different rows of ``(n, d)``, exact, without holding all distances.

    One pass counts squared distances in 65,536 bins, a second one sorts those of the bin that holds the median.
    """
    pairs = len(rows) * (len(rows) - 1) // 2
    rank = (pairs - 1) // 2
    top = 4.0 * float(np.square(rows - rows.mean(axis=0)).sum(axis=1).max()) * (1 + 1e-9)
    if top == 0.0:
        raise MetricError(f"{METRIC}: all reference rows are equal, so they have no bandwidth; check their extractor")
    counts = np.zeros(BINS, dtype=np.int64)
    for squares in _upper(rows):
        counts += np.bincount(_bin(squares, top), minlength=BINS)
    behind = np.cumsum(counts)
    chosen = int(np.searchsorted(behind, rank, side="right"))
    inside = np.concatenate([s[_bin(s, top) == chosen] for s in _upper(rows)])
    position = rank - int(behind[chosen] - counts[chosen])
    median = float(np.sqrt(np.partition(inside, position)[position]))
    if median == 0.0:
        raise MetricError(
            f"{METRIC}: half of the reference rows are equal, so their median distance is 0; pass a bandwidth"
        )
    return median


def _effects(halves: FloatArray) -> FloatArray:
    effects: FloatArray = SCALE * 2.0 * (halves - halves.mean()) / len(halves)
    return effects


def _bin(squares: FloatArray, top: float) -> NDArray[np.int64]:
    return np.minimum(squares * (BINS / top), BINS - 1).astype(np.int64)


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of ``rows`` such that a block against ``columns`` holds at most :data:`BLOCK_ENTRIES` numbers."""
    step = max(1, BLOCK_ENTRIES // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """``(n, m)`` squared distances of rows; rounding below zero becomes 0."""
    squares: FloatArray = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2.0 * (a @ b.T)
    np.maximum(squares, 0.0, out=squares)
    return squares


def _upper(rows: FloatArray) -> Iterator[FloatArray]:
    """Squared distances of all pairs of different rows, each once, in pieces."""
    for part in blocks(len(rows), len(rows)):
        squares = squared_distances(rows[part], rows[part.start :])
        keep = np.triu(np.ones(squares.shape, dtype=np.bool_), 1)
        yield squares[keep]


def _row_sums(a: FloatArray, b: FloatArray, width: float) -> tuple[FloatArray, FloatArray]:
    """Sums of the kernel of all pairs, over ``b`` ``(n,)`` and over ``a`` ``(m,)``; of a row with itself it is 1."""
    over_b, over_a = np.zeros(len(a)), np.zeros(len(b))
    for part in blocks(len(a), len(b)):
        squares = squared_distances(a[part], b)
        if a is b:
            squares[np.arange(len(squares)), np.arange(part.start, part.stop)] = 0.0
        kernel = np.exp(squares / (-2.0 * width**2), out=squares)
        over_b[part] = kernel.sum(axis=1)
        over_a += kernel.sum(axis=0)
    return over_b, over_a
