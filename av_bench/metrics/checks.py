"""Input checks shared by the metric functions: arrays in, float64 arrays out, or a MetricError that explains itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_bench.contracts import MetricError, UsageError

FloatArray = NDArray[np.float64]


def as_floats(values: ArrayLike, metric: str, name: str, shape: str, ndim: int) -> FloatArray:
    """``values`` as a finite float64 array with ``ndim`` axes; ``shape`` is the expected shape in words.

    A float64 array comes back as it is, not as a copy: callers must not write into it. Raises as ``as_numbers`` does.
    """
    return as_numbers(values, metric, name, shape, ndim).astype(np.float64, copy=False)


def as_numbers(values: ArrayLike, metric: str, name: str, shape: str, ndim: int) -> NDArray[Any]:
    """``values`` as a finite array with ``ndim`` axes and the dtype it has; an array comes back as it is.

    Raises
    ------
    MetricError
        When the values are not real numbers, have another number of axes, an empty trailing axis, or are not finite.
    """
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise MetricError(f"{metric}: {name} is not one array ({error}); rows must have equal length") from error
    if raw.dtype.kind not in "fiub":
        raise MetricError(f"{metric}: {name} holds {raw.dtype} values; pass real numbers")
    if raw.ndim != ndim or any(size == 0 for size in raw.shape[1:]):
        raise MetricError(f"{metric}: {name} has shape {raw.shape}, expected {shape}; reshape it or fix its source")
    bad = ~np.isfinite(raw)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise MetricError(
            f"{metric}: {name} holds {int(bad.sum())} values that are NaN or infinite, the first at index {first}; "
            "leave the clips they come from out, or recompute their features"
        )
    return raw


def require_rows(array: NDArray[Any], minimum: int, metric: str, name: str, why: str) -> None:
    """Raise MetricError when ``array`` has fewer than ``minimum`` rows."""
    if len(array) < minimum:
        raise MetricError(f"{metric}: {name} has {len(array)} rows, needs at least {minimum}: {why}; add clips")


def require_same(first: NDArray[Any], second: NDArray[Any], metric: str, *, axis: int | None = None) -> None:
    """Raise MetricError when reference and generated differ in shape (or in the size of one axis)."""
    one, two = (first.shape, second.shape) if axis is None else (first.shape[axis], second.shape[axis])
    if one != two:
        what = "shape" if axis is None else "feature size"
        raise MetricError(
            f"{metric}: reference has {what} {one}, generated has {two}; "
            "both sides must come from the same extractor output" + ("" if axis is not None else " and the same clips")
        )


def require_finite_result(value: ArrayLike, metric: str) -> None:
    """Raise MetricError when finite inputs were so large that the result overflowed."""
    if not np.isfinite(value).all():
        raise MetricError(f"{metric}: the result overflows float64; the inputs are too large to be features or logits")


def require_at_least(value: int, minimum: int, metric: str, name: str) -> None:
    """Raise UsageError when an integer argument is below ``minimum``."""
    if value < minimum:
        raise UsageError(f"{metric}: {name} is {value}; pass an integer of at least {minimum}")
