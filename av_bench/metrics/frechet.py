"""Fréchet distance between two sets of features, each summarised by a Gaussian.

Conventions
-----------
* Reference first, generated second. Features are rows: ``(n, d)``, one row per clip (VGGish: one row per patch).
* Covariances are unbiased (divided by n - 1); all arithmetic is float64.
* The unit is the square of the feature's unit; lower is better; 0 means equal means and covariances.

Metrics
-------
* :func:`frechet_distance` - Dowson & Landau (1982), eq. 16; Heusel et al. (NeurIPS 2017), eq. 6:
  ``|m1 - m2|^2 + tr C1 + tr C2 - 2 tr sqrt(C1 C2)``.
* :func:`frechet_from_statistics` - the same from means and covariances.
* :func:`frechet_infinity` - Chong & Forsyth (CVPR 2020), for audio Gui et al. (ICASSP 2024): the intercept of the
  distance over 1/n.

The trace needs no matrix square root. With factors ``C = F F^T`` it is the nuclear norm (sum of singular values) of
``F1^T F2``. Where a side has at most d rows, its centred rows are the factor and the norm is taken directly; on full
rank the factors are Cholesky's and the singular values are square roots of the eigenvalues of a symmetric matrix.
The distance falls as n grows (its bias is about proportional to 1/n), so values at different n do not compare.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics.checks import (
    FloatArray,
    as_floats,
    as_numbers,
    require_at_least,
    require_finite_result,
    require_rows,
    require_same,
)
from av_bench.metrics.gaussian import centre, moments

# Relative to tr C1 + tr C2: a result below zero by less is rounding and becomes 0. An eigenvalue that is zero but for
# rounding costs up to sqrt(float64 epsilon) = 1.5e-8; identical sets measured -2e-13 at worst.
ROUNDING = 1e-7
EPSILON = float(np.finfo(np.float64).eps)
# Relative to the largest eigenvalue: a covariance with a more negative eigenvalue is not a covariance.
NOT_PSD = 1e-8
# frechet_infinity: rows per feature dimension from which the distance is close to linear in 1/n.
SMALLEST_SUBSET = 2
_SHAPE = "(rows, dimensions)"


def validate(reference: NDArray[Any], generated: NDArray[Any], metric: str = "frechet_distance") -> None:
    """Raise MetricError unless both are ``(rows >= 2, d)`` with the same d."""
    for name, side in (("reference", reference), ("generated", generated)):
        require_rows(side, 2, metric, name, "a covariance needs two rows")
    require_same(reference, generated, metric, axis=1)


def frechet_distance(reference: ArrayLike, generated: ArrayLike) -> float:
    """Fréchet distance of two feature sets.

    Parameters
    ----------
    reference, generated : ``(n, d)`` and ``(m, d)``
        Features of the real and of the generated side; n and m may differ.

    Returns
    -------
    float
        At least 0. Negative values within 1e-7 of ``tr C1 + tr C2`` are rounding and returned as 0.

    Raises
    ------
    MetricError
        Wrong shapes, fewer than two rows, values that are not finite.

    Examples
    --------
    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]), 9)
    9.0
    """
    sides = {"reference": reference, "generated": generated}
    x, y = (as_numbers(v, "frechet_distance", name, _SHAPE, 2) for name, v in sides.items())
    validate(x, y)
    if min(len(x), len(y)) > x.shape[1]:
        return _distance(*moments(x), *moments(y))
    (mean1, rows1), (mean2, rows2) = (centre(side.astype(np.float64, copy=False)) for side in (x, y))
    trace1, trace2 = (float(np.square(rows).sum()) / (len(rows) - 1) for rows in (rows1, rows2))
    return assemble(mean1 - mean2, trace1, trace2, _nuclear_norm(factor_of_rows(rows1), factor_of_rows(rows2)))


def frechet_from_statistics(mean1: ArrayLike, cov1: ArrayLike, mean2: ArrayLike, cov2: ArrayLike) -> float:
    """Fréchet distance of two Gaussians given by means ``(d,)`` and covariances ``(d, d)``; reference first.

    Singular covariances are fine. Raises MetricError for wrong shapes, values that are not finite, and matrices that
    are not symmetric positive semi-definite.

    Examples
    --------
    >>> round(frechet_from_statistics([1.0], [[4.0]], [-2.0], [[9.0]]), 9)
    10.0
    """
    metric = "frechet_from_statistics"
    means = [as_floats(mean, metric, f"mean{i}", "(d,)", 1) for i, mean in ((1, mean1), (2, mean2))]
    covariances = [as_floats(cov, metric, f"cov{i}", "(d, d)", 2) for i, cov in ((1, cov1), (2, cov2))]
    d = len(means[0])
    for i, (mean, cov) in enumerate(zip(means, covariances, strict=True), start=1):
        if d == 0 or mean.shape != (d,) or cov.shape != (d, d):
            raise MetricError(
                f"{metric}: mean{i} {mean.shape} and cov{i} {cov.shape} do not fit d = {d} of mean1; "
                "both sides must come from the same extractor output"
            )
        noise = NOT_PSD * float(np.abs(cov).max())
        if np.abs(cov - cov.T).max() > noise:
            raise MetricError(f"{metric}: cov{i} is not symmetric, so not a covariance; recompute it from features")
        if np.diagonal(cov).min() < -noise or np.abs(cov[np.diagonal(cov) <= 0]).max(initial=0.0) > noise:
            raise MetricError(
                f"{metric}: cov{i} has a variance below zero, or a covariance with a constant feature; "
                "recompute it from features"
            )
    return _distance(means[0], covariances[0], means[1], covariances[1])


class FrechetInfinity(NamedTuple):
    """Intercept and fit of the distance over 1/n. ``value`` may be negative: it is extrapolated, not a distance."""

    value: float
    slope: float
    r_squared: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_infinity(reference: ArrayLike, generated: ArrayLike, seed: int = 2020, points: int = 15) -> FrechetInfinity:
    """Fréchet distance extrapolated to infinitely many generated rows.

    Random subsets of ``generated`` (without replacement, seeded) of ``points`` sizes, evenly spaced from
    max(2 d, n / 10) to n, are compared with the whole reference; a least-squares line of distance over 1/n gives the
    value at 1/n = 0. The reference keeps its size and its own share of the bias, the same for every model compared with
    it. Needs at least 4 d generated rows and more than d reference rows.

    Source: Chong & Forsyth (CVPR 2020), section 3; Gui et al. (ICASSP 2024) for audio.
    """
    metric = "frechet_infinity"
    require_at_least(points, 3, metric, "points")
    x, y = _features(reference, "reference", metric), _features(generated, "generated", metric)
    validate(x, y, metric)
    n, d = y.shape
    require_rows(x, d + 1, metric, "reference", "its covariance is singular")
    require_rows(y, 2 * SMALLEST_SUBSET * d, metric, "generated", "with fewer the distance is not linear in 1/n")
    sizes = np.unique(np.linspace(max(SMALLEST_SUBSET * d, n // 10), n, points).round().astype(int))
    if len(sizes) < 3:
        raise UsageError(f"{metric}: {n} rows of size {d} give {len(sizes)} different subset sizes; add clips")
    rng = np.random.default_rng(seed)
    mean1, rows1 = centre(x)
    cov1 = unbiased_covariance(rows1)
    distances = []
    for size in sizes:
        mean2, rows2 = centre(y[np.sort(rng.choice(n, size, replace=False))])
        distances.append(_distance(mean1, cov1, mean2, unbiased_covariance(rows2)))
    slope, value = (float(c) for c in np.polyfit(1.0 / sizes, distances, 1))
    flat = np.ptp(distances) == 0.0  # the line then fits exactly, and a correlation does not exist
    r_squared = 1.0 if flat else float(np.corrcoef(1.0 / sizes, distances)[0, 1] ** 2)
    return FrechetInfinity(value, slope, r_squared, tuple(int(s) for s in sizes), tuple(distances))


def _features(values: ArrayLike, name: str, metric: str = "frechet_distance") -> FloatArray:
    return as_floats(values, metric, name, _SHAPE, 2)


def unbiased_covariance(centred: FloatArray) -> FloatArray:
    """``(d, d)`` covariance of centred rows ``(n, d)``, divided by n - 1."""
    covariance: FloatArray = centred.T @ centred / (len(centred) - 1)
    return covariance


def _distance(mean1: FloatArray, cov1: FloatArray, mean2: FloatArray, cov2: FloatArray) -> float:
    return assemble(mean1 - mean2, float(np.trace(cov1)), float(np.trace(cov2)), _trace_sqrt_product(cov1, cov2))


def assemble(shift: FloatArray, trace1: float, trace2: float, cross: float) -> float:
    """The distance from ``mean1 - mean2``, both traces and ``tr sqrt(C1 C2)``; rounding below zero becomes 0."""
    value = float(shift @ shift) + trace1 + trace2 - 2.0 * cross
    require_finite_result(value, "frechet distance")
    if value < -ROUNDING * (trace1 + trace2):
        raise MetricError(
            f"frechet distance: {value:.6g} is below zero by more than rounding explains "
            f"(tr C1 = {trace1:.6g}, tr C2 = {trace2:.6g}); check that both covariances come from float64 features"
        )
    return max(value, 0.0)


def _trace_sqrt_product(cov1: FloatArray, cov2: FloatArray) -> float:
    """``tr sqrt(C1 C2)`` of two symmetric positive semi-definite matrices ``(d, d)``."""
    # A feature that is constant on one side (a dead unit) adds nothing; without it the Cholesky route stays open.
    live = varying(cov1) & varying(cov2)
    if not live.any():
        return 0.0
    if not live.all():
        cov1, cov2 = cov1[np.ix_(live, live)], cov2[np.ix_(live, live)]
    lower1, lower2 = cholesky_factor(cov1), cholesky_factor(cov2)
    if lower1 is None or lower2 is None:
        return _nuclear_norm(_factor(cov1, lower1), _factor(cov2, lower2))
    # L1^T C2 L1 has the eigenvalues of C1 C2 and is symmetric; LAPACK forms one triangle of it in half the work of
    # two general products.
    congruent, _ = linalg.lapack.dsygst(cov2, lower1, itype=2, lower=1)
    eigenvalues = linalg.eigvalsh(congruent, lower=True, overwrite_a=True, check_finite=False)
    return float(np.sqrt(np.maximum(eigenvalues, 0.0)).sum())


def varying(covariance: FloatArray) -> NDArray[np.bool_]:
    """Which features have a variance above what rounding makes of a constant, ``(d,)``."""
    variances = np.diagonal(covariance)
    varies: NDArray[np.bool_] = variances > EPSILON**2 * variances.max()
    return varies


def cholesky_factor(covariance: FloatArray) -> FloatArray | None:
    """Lower factor ``(d, d)``, or None when the matrix is not positive definite beyond rounding."""
    try:
        lower: FloatArray = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    pivots = np.diagonal(lower)
    singular = pivots.min() ** 2 <= len(pivots) * EPSILON * pivots.max() ** 2
    return None if singular else lower


def _factor(covariance: FloatArray, lower: FloatArray | None) -> FloatArray:
    """``F`` of shape ``(d, rank)`` with ``F F^T = covariance``: Cholesky's, else from the eigenvectors."""
    if lower is not None:
        return lower
    values, vectors = linalg.eigh(covariance, check_finite=False)
    if values[0] < -NOT_PSD * values[-1]:
        raise MetricError(
            f"frechet distance: a covariance has the eigenvalue {values[0]:.3g} (largest {values[-1]:.3g}), "
            "so it is not positive semi-definite; recompute it from features in float64"
        )
    keep = values > len(values) * EPSILON * values[-1]
    factor: FloatArray = vectors[:, keep] * np.sqrt(values[keep])
    return factor


def factor_of_rows(centred: FloatArray) -> FloatArray:
    """``F`` with ``F F^T`` = covariance of the rows: the rows themselves, or a square factor when they are many."""
    if len(centred) <= centred.shape[1]:
        factor: FloatArray = centred.T / np.sqrt(len(centred) - 1)
        return factor
    covariance = unbiased_covariance(centred)
    return _factor(covariance, cholesky_factor(covariance))


def _nuclear_norm(factor1: FloatArray, factor2: FloatArray) -> float:
    """Sum of the singular values of ``F1^T F2``."""
    return float(linalg.svdvals(factor1.T @ factor2, check_finite=False).sum())
