"""KAD, density and coverage: by loops over pairs, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics import frechet_distance, kernel
from av_bench.metrics.kernel import kernel_distance, kernel_effects, median_distance
from av_bench.metrics.neighbours import density_coverage
from tests.metrics.tester import check_order_free, check_refuses_bad_arrays, check_value

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 5)) + 100.0, 0.7 * RNG.normal(size=(17, 5)) + 100.4


def by_pairs(x: np.ndarray, y: np.ndarray, width: float) -> float:
    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        terms = [
            np.exp(-((p - q) ** 2).sum() / (2 * width**2))
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (same and i == j)
        ]
        return float(np.mean(terms))

    return 100 * (mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))


@pytest.mark.parametrize("entries", [10**6, 40])
def test_value_and_bandwidth_by_pairs_in_any_blocks(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK_ENTRIES", entries)
    distances = np.sort(pdist(X))
    width = distances[(len(distances) - 1) // 2]
    check_value(median_distance(X), width, rel=1e-9)
    check_value(kernel_distance(X, Y), by_pairs(X, Y, width), rel=1e-8)
    check_value(kernel_distance(X, Y, bandwidth=0.9), by_pairs(X, Y, 0.9), rel=1e-8)


@pytest.mark.parametrize("bins", [1 << 16, 3])
def test_median_is_exact_however_coarse_the_bins(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BINS", bins)
    for n in (2, 3, 4, 30):
        rows = np.random.default_rng(n).normal(size=(n, 3))
        distances = np.sort(pdist(rows))
        check_value(median_distance(rows), distances[(len(distances) - 1) // 2], rel=1e-9)


def test_effects_are_derivatives_in_the_weights_of_the_rows() -> None:
    width, step = 2.0, 1e-5
    found = kernel_effects(X, Y, width)
    kernels = [np.exp(-(cdist(a, b) ** 2) / (2 * width**2)) for a, b in ((X, X), (Y, Y), (X, Y))]

    def value(w: np.ndarray, v: np.ndarray) -> float:
        def within(weights: np.ndarray, k: np.ndarray) -> float:
            pairs = np.outer(weights, weights) * (1 - np.eye(len(weights)))
            return float((pairs * k).sum() / pairs.sum())

        return 100 * (within(w, kernels[0]) + within(v, kernels[1]) - 2 * float(w @ kernels[2] @ v))

    even = [np.full(len(X), 1 / len(X)), np.full(len(Y), 1 / len(Y))]
    check_value(value(*even), found.value, rel=1e-9)
    for side, effects in ((0, found.reference), (1, found.generated)):
        for row in range(len(effects)):
            values = []
            for sign in (step, -step):
                weights = [w.copy() for w in even]
                weights[side] *= 1 - sign
                weights[side][row] += sign
                values.append(value(*weights))
            assert effects[row] == pytest.approx(
                (values[0] - values[1]) / (2 * step) / len(effects), rel=1e-4, abs=1e-7
            )


def test_spread_matches_fresh_draws() -> None:
    rng = np.random.default_rng(3)
    values, variances = [], []
    for _ in range(200):
        found = kernel_effects(rng.normal(size=(80, 8)), rng.normal(size=(80, 8)) + 0.5)
        values.append(found.value)
        variances.append(float(np.square(found.reference).sum() + np.square(found.generated).sum()))
    assert 0.85 < np.sqrt(np.mean(variances)) / np.std(values) < 1.2


def test_needs_fewer_clips_than_fd() -> None:
    """Equal distributions of 128 dimensions: FD falls with n, KAD stays at 0."""
    rng = np.random.default_rng(4)
    distances = {
        n: [
            (frechet_distance(x, y), kernel_distance(x, y))
            for x, y in ((rng.normal(size=(n, 128)), rng.normal(size=(n, 128))) for _ in range(12))
        ]
        for n in (32, 256)
    }
    fd = {n: np.mean([a for a, _ in found]) for n, found in distances.items()}
    kad = {n: np.mean([b for _, b in found]) for n, found in distances.items()}
    assert fd[32] > 3 * fd[256] > 30.0
    assert max(abs(v) for v in kad.values()) < 0.1


def test_density_and_coverage_by_pairs() -> None:
    neighbours = 3
    found = density_coverage(X, Y, neighbours)
    own = np.sort(cdist(X, X), axis=1)[:, neighbours]  # column 0 is the row itself
    inside = cdist(Y, X) <= own
    check_value(found.density, inside.sum(axis=1) / neighbours)
    check_value(found.coverage, inside.any(axis=0).astype(float))


def test_density_and_coverage_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = density_coverage(X, Y)
    monkeypatch.setattr(kernel, "BLOCK_ENTRIES", 30)
    parts = density_coverage(X, Y)
    check_value(parts.density, whole.density)
    check_value(parts.coverage, whole.coverage)


def test_they_tell_collapse_from_noise() -> None:
    rng = np.random.default_rng(5)
    real, good = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    collapsed = real[:10].repeat(30, axis=0) + 0.01 * rng.normal(size=(300, 4))
    noise = 4 * rng.normal(size=(300, 4))
    means = {
        name: [float(v.mean()) for v in density_coverage(real, y)]
        for name, y in (("good", good), ("collapsed", collapsed), ("noise", noise))
    }
    assert means["good"] == pytest.approx([1.0, 0.97], abs=0.1)
    assert means["collapsed"][0] > 0.7
    assert means["collapsed"][1] < 0.4
    assert means["noise"][0] < 0.3


def test_order_and_refusals() -> None:
    check_order_free(kernel_distance, X, Y, rel=1e-8)
    check_refuses_bad_arrays(kernel_distance, X, Y)
    check_refuses_bad_arrays(density_coverage, X, Y)
    with pytest.raises(MetricError, match="feature size"):
        kernel_distance(X, Y[:, :3])
    with pytest.raises(MetricError, match="all reference rows are equal"):
        kernel_distance(np.ones((5, 2)), Y[:, :2])
    with pytest.raises(MetricError, match="half of the reference rows are equal"):
        kernel_distance(np.array([[0.0]] * 9 + [[1.0]]), Y[:, :1])
    with pytest.raises(UsageError, match="bandwidth is -1"):
        kernel_distance(X, Y, bandwidth=-1)
    with pytest.raises(MetricError, match="needs at least 6"):
        density_coverage(X[:5], Y)
    with pytest.raises(UsageError, match="neighbours is 0"):
        density_coverage(X, Y, 0)
