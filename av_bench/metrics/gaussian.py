"""Mean and covariance of features that arrive in pieces: batches, shards, machines.

Conventions: rows are features, ``(n, d)``; all arithmetic is float64; the covariance is unbiased (n - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_bench.contracts import MetricError
from av_bench.metrics.checks import FloatArray, as_floats, require_at_least

BLOCK = 1024  # rows that are multiplied at once


def centre(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean ``(d,)`` and centred rows; the second pass removes the rounding of the first mean."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    rest = centred.mean(axis=0)
    centred -= rest
    return mean + rest, centred


def moments(rows: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Mean ``(d,)`` and unbiased covariance ``(d, d)`` of rows of any float type, read in blocks.

    As ``centre`` and a product would give them, up to rounding, without a float64 copy of all rows.
    """
    mean: FloatArray = rows.mean(axis=0, dtype=np.float64)
    rest, scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK] - mean
        rest += block.sum(axis=0)
        scatter += block.T @ block
    rest /= len(rows)  # the rounding of the mean
    scatter -= len(rows) * np.outer(rest, rest)
    return mean + rest, scatter / (len(rows) - 1)


class GaussianStatistics:
    """Mean and covariance of rows seen in pieces: ``update`` with rows, ``merge`` with other pieces.

    State: ``n`` rows, their ``mean`` ``(d,)`` and ``scatter`` ``(d, d)``, the sum of outer products of the centred
    rows, float64. Pieces combine by the pairwise formula of Chan, Golub & LeVeque (1979), which never forms raw
    second moments, so a large common offset costs no digits. Order and split change the last bits only.
    """

    def __init__(self, dimension: int) -> None:
        require_at_least(dimension, 1, "GaussianStatistics", "dimension")
        self.n = 0
        self._mean: FloatArray = np.zeros(dimension)
        self.scatter: FloatArray = np.zeros((dimension, dimension))

    @classmethod
    def from_rows(cls, rows: ArrayLike) -> GaussianStatistics:
        """Statistics of one block ``(n, d)``."""
        array = as_floats(rows, "GaussianStatistics", "rows", "(n, d)", 2)
        statistics = cls(array.shape[1])
        statistics.update(array)
        return statistics

    def update(self, rows: ArrayLike) -> None:
        """Add rows ``(k, d)``; k may be 0."""
        array = as_floats(rows, "GaussianStatistics", "rows", "(n, d)", 2)
        self._require_dimension(array.shape[1])
        if len(array):
            mean, centred = centre(array)
            self._add(len(array), mean, centred.T @ centred)

    def merge(self, other: GaussianStatistics) -> GaussianStatistics:
        """Add the rows behind ``other`` to this object, and return this object."""
        self._require_dimension(len(other._mean))
        self._add(other.n, other._mean, other.scatter)
        return self

    @property
    def mean(self) -> FloatArray:
        """``(d,)``; needs one row."""
        self._require_rows(1, "mean")
        return self._mean.copy()

    @property
    def covariance(self) -> FloatArray:
        """``(d, d)``, unbiased; needs two rows."""
        self._require_rows(2, "covariance")
        return self.scatter / (self.n - 1)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The state as plain arrays: ``n`` (int64, no axes), ``mean`` ``(d,)``, ``scatter`` ``(d, d)``."""
        return {"n": np.array(self.n, dtype=np.int64), "mean": self._mean.copy(), "scatter": self.scatter.copy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> GaussianStatistics:
        """The inverse of :meth:`to_arrays`."""
        missing = {"n", "mean", "scatter"} - set(arrays)
        if missing:
            raise MetricError(f"GaussianStatistics: saved state lacks {sorted(missing)}; save it with to_arrays")
        mean = as_floats(arrays["mean"], "GaussianStatistics", "mean", "(d,)", 1)
        scatter = as_floats(arrays["scatter"], "GaussianStatistics", "scatter", "(d, d)", 2)
        n = int(arrays["n"])
        if n < 0 or scatter.shape != (len(mean), len(mean)):
            raise MetricError(
                f"GaussianStatistics: saved n = {n}, mean {mean.shape}, scatter {scatter.shape} do not fit"
            )
        statistics = cls(len(mean))
        statistics.n, statistics._mean, statistics.scatter = n, mean.copy(), scatter.copy()
        return statistics

    def _add(self, n: int, mean: FloatArray, scatter: FloatArray) -> None:
        total = self.n + n
        if total:
            shift = mean - self._mean
            self.scatter = self.scatter + scatter + np.outer(shift, shift) * (self.n * n / total)
            self._mean = self._mean + shift * (n / total)
            self.n = total

    def _require_dimension(self, dimension: int) -> None:
        if dimension != len(self._mean):
            raise MetricError(
                f"GaussianStatistics: rows have {dimension} values, the statistics hold {len(self._mean)}; "
                "features of different extractors do not mix"
            )

    def _require_rows(self, minimum: int, what: str) -> None:
        if self.n < minimum:
            raise MetricError(f"GaussianStatistics: {what} of {self.n} rows; add at least {minimum} rows first")
