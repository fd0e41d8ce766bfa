"""Influence values: against numerical derivatives, deletions one by one, and the spread of fresh draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from av_bench.contracts import MetricError
from av_bench.metrics import frechet_distance, frechet_from_statistics, frechet_infinity, inception_score
from av_bench.metrics.frechet_influence import frechet_effects, frechet_infinity_effects
from av_bench.metrics.inception_influence import FULL, inception_effects
from tests.metrics.tester import check_refuses_bad_arrays, check_value


def sides(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.5
    return rng.normal(size=(n, d)) * scale, (1.3 * rng.normal(size=(m, d)) + 0.2) * scale


def weighted(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and factor ``(d, n)`` of the covariance of rows whose weights sum to 1."""
    mean = weights @ rows
    return mean, ((rows - mean) * np.sqrt(weights * len(rows) / (len(rows) - 1))[:, None]).T


def distance_of_weights(x: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    (mean1, factor1), (mean2, factor2) = weighted(x, w), weighted(y, v)
    cross = np.linalg.svd(factor1.T @ factor2, compute_uv=False).sum()
    return float(((mean1 - mean2) ** 2).sum() + (factor1**2).sum() + (factor2**2).sum() - 2 * cross)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 6), (12, 14, 20), (40, 9, 15), (9, 40, 15)])
def test_effects_are_derivatives_in_the_weights_of_the_rows(n: int, m: int, d: int) -> None:
    x, y = sides(n, m, d)
    found = frechet_effects(x, y)
    check_value(found.value, frechet_distance(x, y), rel=1e-10)
    even = [np.full(n, 1 / n), np.full(m, 1 / m)]
    step = 1e-4
    for side, effects in ((0, found.reference), (1, found.generated)):
        for row in range(len(effects)):
            values = []
            for sign in (step, -step):
                weights = [w.copy() for w in even]
                weights[side] *= 1 - sign
                weights[side][row] += sign
                values.append(distance_of_weights(x, y, *weights))
            slope = (values[0] - values[1]) / (2 * step)
            assert effects[row] == pytest.approx(slope / len(effects), rel=2e-4, abs=2e-6)


def test_the_weights_used_above_give_the_distance_itself() -> None:
    x, y = sides(40, 30, 6)
    (mean1, factor1), (mean2, factor2) = weighted(x, np.full(40, 1 / 40)), weighted(y, np.full(30, 1 / 30))
    expected = frechet_from_statistics(mean1, factor1 @ factor1.T, mean2, factor2 @ factor2.T)
    check_value(distance_of_weights(x, y, np.full(40, 1 / 40), np.full(30, 1 / 30)), expected)


def test_a_closed_form_in_one_dimension() -> None:
    # FD = (m1 - m2)^2 + (s1 - s2)^2: in one dimension everything can be written down.
    x, y = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [4.0]])
    found = frechet_effects(x, y)
    s1, s2 = x.std(ddof=1), y.std(ddof=1)
    for rows, other_mean, own, other, effects in (
        (x, y.mean(), s1, s2, found.reference),
        (y, x.mean(), s2, s1, found.generated),
    ):
        n, centred = len(rows), rows[:, 0] - rows.mean()
        by_mean = 2 * (rows.mean() - other_mean) * centred
        by_variance = (1 - other / own) * (centred**2 * n / (n - 1) - own**2)
        check_value(effects, (by_mean + by_variance) / n)


def test_dead_features_change_nothing_but_the_squares() -> None:
    x, y = sides(40, 30, 6)
    constant = np.ones((40, 1)), np.ones((30, 1))
    wide = frechet_effects(np.hstack([x, constant[0]]), np.hstack([y, constant[1]]))
    check_value(wide.reference, frechet_effects(x, y).reference, rel=1e-7, tol=1e-10)
    check_value(wide.generated, frechet_effects(x, y).generated, rel=1e-7, tol=1e-10)


def test_identical_sides_have_no_first_order_effects() -> None:
    x, _ = sides(50, 2, 8)
    found = frechet_effects(x, x.copy())
    assert max(np.abs(found.reference).max(), np.abs(found.generated).max()) < 1e-9


@pytest.mark.parametrize(("n", "d", "least", "most"), [(200, 16, 0.85, 1.3), (64, 64, 0.85, 1.35), (48, 128, 0.8, 1.5)])
def test_paired_spread_matches_fresh_draws(n: int, d: int, least: float, most: float) -> None:
    """The sd of the difference of two seeds of one generator, also where the covariances are singular."""
    rng = np.random.default_rng(3)
    scale = np.arange(1, d + 1) ** -0.5
    differences, variances = [], []
    for _ in range(120):
        real = rng.normal(size=(n, d))
        seeds = [(0.6 * real + 0.3 + 0.6 * rng.normal(size=(n, d))) * scale for _ in range(2)]
        a, b = (frechet_effects(real * scale, s) for s in seeds)
        differences.append(a.value - b.value)
        each = a.reference + a.generated - b.reference - b.generated
        variances.append(float(np.square(each).sum()) * n / (n - 1))
    assert least < np.sqrt(np.mean(variances)) / np.std(differences) < most


def test_pseudo_values_correct_for_lost_clips() -> None:
    """Run B lost 6 of 100 clips: the mean over common clips comes closer to FD on them, well within the noise."""
    rng = np.random.default_rng(9)
    kept = np.arange(100) >= 6
    naive, corrected, errors = [], [], []
    for _ in range(30):
        real = rng.normal(size=(100, 12))
        a, b = (0.6 * real + 0.3 + 0.6 * rng.normal(size=(100, 12)) for _ in range(2))
        on_all = frechet_effects(real, a)
        pseudo = on_all.value + 100 * (on_all.reference + on_all.generated)
        truth = frechet_distance(real[kept], a[kept])
        naive.append(on_all.value - truth)
        corrected.append(pseudo[kept].mean() - truth)
        other = frechet_effects(real, b)
        errors.append(np.sqrt(np.square(on_all.generated - other.generated).sum()))
    assert np.sqrt(np.mean(np.square(corrected))) < 0.6 * np.sqrt(np.mean(np.square(naive)))
    assert np.abs(corrected).max() < 0.5 * np.mean(errors)


def test_infinity_effects_are_those_of_its_subsets() -> None:
    rng = np.random.default_rng(4)
    values, variances = [], []
    for _ in range(60):
        x = rng.normal(size=(150, 8))
        y = 1.2 * rng.normal(size=(150, 8)) + 0.3
        found = frechet_infinity_effects(x, y)
        assert found.fit == frechet_infinity(x, y)
        values.append(found.fit.value)
        variances.append(float(np.square(found.reference).sum() + np.square(found.generated).sum()))
    assert 0.75 < np.sqrt(np.mean(variances)) / np.std(values) < 1.35


def test_infinity_weights_by_hand() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 0.5
    found = frechet_infinity_effects(x, y, points=5)
    inverse = 1 / np.array(found.fit.sizes)
    centred = inverse - inverse.mean()
    weights = 1 / len(inverse) - inverse.mean() * centred / (centred**2).sum()  # intercept of a least-squares line
    check_value(float(weights @ np.array(found.fit.distances)), found.fit.value, rel=1e-9)
    # The last subset is all rows, so the reference's effects hold that distance's own share.
    assert found.fit.sizes[-1] == 60
    assert abs(found.reference.sum()) < 1e-9
    assert abs(found.generated.sum()) < 1e-9


def test_inception_effects_are_deletions_one_by_one() -> None:
    splits, n = 4, 50
    logits = 2 * np.random.default_rng(6).normal(size=(n, 7))
    found = inception_effects(logits, splits)
    value, std = inception_score(logits, splits)
    check_value(found.value, value)
    check_value(found.std, std)
    assert not found.by_split
    order = np.random.RandomState(2020).permutation(n)
    for i in range(splits):
        rows = order[i * n // splits : (i + 1) * n // splits]
        assert set(found.split[rows]) == {i}
        without = np.array(
            [inception_score(np.delete(logits[rows], j, 0), 1, shuffle=False)[0] for j in range(len(rows))]
        )
        expected = (without.mean() - without) / splits
        check_value(found.effects[rows], expected * np.sqrt(1 - 1 / len(rows)), rel=1e-9)


def test_few_rows_per_split_use_the_spread_between_splits() -> None:
    splits = 10
    logits = 2 * np.random.default_rng(7).normal(size=(FULL * splits - 1, 7))
    found = inception_effects(logits, splits)
    assert found.by_split
    sums = np.bincount(found.split, weights=found.effects)
    variance = splits / (splits - 1) * np.square(sums).sum()
    check_value(variance, found.std**2 * splits / (splits - 1) / splits)  # sample variance of the splits / splits
    assert not inception_effects(2 * np.random.default_rng(7).normal(size=(FULL * splits, 7)), splits).by_split


@pytest.mark.parametrize(("n", "classes"), [(41, 24), (64, 24), (80, 24), (160, 24)])
def test_inception_spread_matches_fresh_draws(n: int, classes: int) -> None:
    """Where halves gave 0.3 to 0.6 of it."""
    rng = np.random.default_rng(8)
    values, variances = [], []
    for _ in range(250):
        found = inception_effects(3 * rng.normal(size=(n, classes)) + 2 * rng.normal(size=(n, classes)))
        unit = found.split if found.by_split else np.arange(n)
        sums = np.bincount(unit, weights=found.effects)
        values.append(found.value)
        variances.append(float(np.square(sums).sum()) * len(sums) / (len(sums) - 1))
    assert 0.85 < np.sqrt(np.mean(variances)) / np.std(values) < 1.25


def test_refusals() -> None:
    x, y = sides(20, 18, 4)
    check_refuses_bad_arrays(frechet_effects, x, y)
    with pytest.raises(MetricError, match="feature size"):
        frechet_effects(x, y[:, :3])
    check_refuses_bad_arrays(inception_effects, np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(MetricError, match="4 rows for 4 splits"):
        inception_effects(np.eye(4), splits=4)


def test_the_map_is_the_one_of_the_textbook() -> None:
    """``T12`` through three matrix square roots, as it is defined."""
    x, y = sides(60, 50, 5)
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root1 = linalg.sqrtm(c1).real
    inverse = np.linalg.inv(root1)
    carry = inverse @ linalg.sqrtm(root1 @ c2 @ root1).real @ inverse
    centred = x - x.mean(axis=0)
    quadratic = np.einsum("ij,jk,ik->i", centred, np.eye(5) - carry, centred) / (len(x) - 1)
    shift = 2 * centred @ (x.mean(axis=0) - y.mean(axis=0)) / len(x)
    check_value(frechet_effects(x, y).reference, shift + quadratic - quadratic.mean(), rel=1e-7, tol=1e-10)
