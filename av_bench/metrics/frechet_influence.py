"""What every row does to the Fréchet distance: its influence values, from one decomposition.

The distance is a smooth function of both means and covariances. Its derivatives are ``2 (m1 - m2)`` in ``m1``,
``I - T12`` in ``C1`` and the mirror images of both, where ``T12 = C1^-1/2 (C1^1/2 C2 C1^1/2)^1/2 C1^-1/2`` is the
linear map that carries the first Gaussian to the second (Dowson & Landau 1982; Takatsu 2011 for the derivative). A row
``x`` of the first side, centred, therefore moves the distance by ``(2 x (m1 - m2) + x (I - T12) x - mean) / n``.

Where a covariance is singular (no more rows than dimensions) a row can only move it inside the span of the rows, and
there the same derivative exists: with ``F1^T F2 = U S V^T`` for factors ``C = F F^T`` the map is
``T12 = F2 V S^-1 V^T F2^T``.

Sums of the effects over a recording, squared, estimate the variance of the distance (the infinitesimal jackknife,
Jaeckel 1972; Efron 1982). Differences of the effects of two generators on the same clips estimate the variance of the
difference. ``docs/statistics.md`` compares both with fresh draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from av_bench.metrics.checks import FloatArray, as_floats, require_at_least
from av_bench.metrics.frechet import (
    EPSILON,
    FrechetInfinity,
    assemble,
    cholesky_factor,
    factor_of_rows,
    frechet_infinity,
    unbiased_covariance,
    validate,
    varying,
)
from av_bench.metrics.gaussian import centre

_BLOCK = 1024  # rows that are multiplied at once


class RowEffects(NamedTuple):
    """A value and the first-order change that each row makes to it; the effects of a side sum to 0."""

    value: float
    reference: FloatArray
    generated: FloatArray


class InfinityEffects(NamedTuple):
    """The extrapolated distance with its fit, and the effects of all rows on its intercept."""

    fit: FrechetInfinity
    reference: FloatArray
    generated: FloatArray


def frechet_effects(reference: ArrayLike, generated: ArrayLike) -> RowEffects:
    """Fréchet distance of ``(n, d)`` and ``(m, d)`` and the effects ``(n,)`` and ``(m,)`` of their rows.

    The value is that of :func:`av_bench.metrics.frechet_distance` up to rounding. Raises MetricError as that does.
    """
    metric = "frechet_effects"
    x = as_floats(reference, metric, "reference", "(rows, dimensions)", 2)
    y = as_floats(generated, metric, "generated", "(rows, dimensions)", 2)
    validate(x, y, metric)
    (mean1, rows1), (mean2, rows2) = centre(x), centre(y)
    squares1, squares2 = _squares(rows1), _squares(rows2)
    cross, carried1, carried2 = _carried(rows1, rows2)
    shift = mean1 - mean2
    value = assemble(shift, float(squares1.sum()) / (len(x) - 1), float(squares2.sum()) / (len(y) - 1), cross)
    return RowEffects(value, _effects(rows1, shift, squares1 - carried1), _effects(rows2, -shift, squares2 - carried2))


def frechet_infinity_effects(
    reference: ArrayLike, generated: ArrayLike, seed: int = 2020, points: int = 15
) -> InfinityEffects:
    """:func:`av_bench.metrics.frechet_infinity` with the effects of all rows on its intercept.

    The intercept is a weighted sum of the distances of the subsets, so its effects are the same sum of theirs; which
    subsets were drawn is part of the estimate, and its noise is in the effects.
    """
    metric = "frechet_infinity"
    require_at_least(points, 3, metric, "points")
    x = as_floats(reference, metric, "reference", "(rows, dimensions)", 2)
    y = as_floats(generated, metric, "generated", "(rows, dimensions)", 2)
    fit = frechet_infinity(x, y, seed, points)
    sizes = np.array(fit.sizes)
    weights = np.linalg.pinv(np.column_stack([np.ones(len(sizes)), 1.0 / sizes]))[0]
    rng = np.random.default_rng(seed)
    effects_x, effects_y = np.zeros(len(x)), np.zeros(len(y))
    for size, weight in zip(sizes, weights, strict=True):
        chosen = np.sort(rng.choice(len(y), size, replace=False))
        found = frechet_effects(x, y[chosen])
        effects_x += weight * found.reference
        effects_y[chosen] += weight * found.generated
    return InfinityEffects(fit, effects_x, effects_y)


def _squares(rows: FloatArray) -> FloatArray:
    squares: FloatArray = np.einsum("ij,ij->i", rows, rows)
    return squares


def _effects(rows: FloatArray, shift: FloatArray, quadratic: FloatArray) -> FloatArray:
    """Effects ``(n,)`` of centred rows: derivative in the mean and in the covariance, divided by n - 1."""
    n = len(rows)
    effects = 2.0 * (rows @ shift) / n + quadratic / (n - 1)
    centred: FloatArray = effects - effects.mean()
    return centred


def _carried(rows1: FloatArray, rows2: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """``tr sqrt(C1 C2)``, and ``x T12 x`` and ``y T21 y`` of all centred rows of both sides."""
    d = rows1.shape[1]
    if min(len(rows1), len(rows2)) > d:
        cov1, cov2 = unbiased_covariance(rows1), unbiased_covariance(rows2)
        live = varying(cov1) & varying(cov2)
        if not live.any():
            return 0.0, np.zeros(len(rows1)), np.zeros(len(rows2))
        if not live.all():
            rows1, rows2 = rows1[:, live], rows2[:, live]
            cov1, cov2 = cov1[np.ix_(live, live)], cov2[np.ix_(live, live)]
        lower = cholesky_factor(cov1)
        found = None if lower is None else _carried_by_cholesky(rows1, rows2, lower, cov2)
        if found is not None:
            return found
    return _carried_by_factors(rows1, rows2)


def _carried_by_cholesky(
    rows1: FloatArray, rows2: FloatArray, lower: FloatArray, cov2: FloatArray
) -> tuple[float, FloatArray, FloatArray] | None:
    """Both covariances have full rank: the eigenvectors of ``L1^T C2 L1`` hold both maps. None when ``C2`` has not."""
    congruent, _ = linalg.lapack.dsygst(cov2, lower, itype=2, lower=1)
    values, vectors = linalg.eigh(congruent, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    if values[0] <= len(values) * EPSILON * values[-1]:
        return None
    roots = np.sqrt(values)
    onto2 = linalg.solve_triangular(lower, vectors * np.sqrt(roots), trans="T", lower=True, check_finite=False)
    onto1 = lower @ (vectors / np.sqrt(roots))
    return float(roots.sum()), _mapped_squares(rows1, onto2), _mapped_squares(rows2, onto1)


def _mapped_squares(rows: FloatArray, onto: FloatArray) -> FloatArray:
    """Squared lengths ``(n,)`` of ``rows @ onto``, by a triangular factor of ``onto onto^T``: half the work."""
    try:
        lower = np.asfortranarray(linalg.cholesky(onto @ onto.T, lower=True, check_finite=False))
    except linalg.LinAlgError:
        return _squares(rows @ onto)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = np.array(rows[start : start + _BLOCK].T, order="F")
        mapped = linalg.blas.dtrmm(1.0, lower, block, side=0, lower=1, trans_a=1, overwrite_b=1)
        found[start : start + _BLOCK] = np.einsum("ij,ij->j", mapped, mapped)
    return found


def _carried_by_factors(rows1: FloatArray, rows2: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Any rank: the singular vectors of ``F1^T F2``. Rows that are their own factor need no further product."""
    factor1, factor2 = factor_of_rows(rows1), factor_of_rows(rows2)
    left, singular, right = linalg.svd(factor1.T @ factor2, full_matrices=False, check_finite=False)
    keep = singular > len(singular) * EPSILON * max(float(singular[0]), np.finfo(np.float64).tiny)
    left, right, kept = left[:, keep], right[keep].T, singular[keep]
    return (
        float(singular.sum()),
        _on_side(rows1, factor2, left, right, kept),
        _on_side(rows2, factor1, right, left, kept),
    )


def _on_side(
    rows: FloatArray, other: FloatArray, own: FloatArray, others: FloatArray, singular: FloatArray
) -> FloatArray:
    """``x T x`` of the rows of one side; ``own`` and ``others`` are the singular vectors of both sides."""
    if len(rows) <= rows.shape[1]:
        carried: FloatArray = (len(rows) - 1) * (np.square(own) @ singular)
        return carried
    return _squares(rows @ (other @ (others / np.sqrt(singular))))
