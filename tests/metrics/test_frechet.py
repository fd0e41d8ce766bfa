"""Fréchet distance against hand-derived values, its invariances, scipy's square root, and its refusals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics import frechet, frechet_distance, frechet_from_statistics, frechet_infinity
from av_bench.metrics.gaussian import centre
from tests.metrics.tester import check_order_free, check_refuses_bad_arrays, check_value, closed_form, pipeline_arrays

SHAPES = [(90, 70, 8), (9, 40, 12), (40, 9, 12), (6, 5, 12), (12, 12, 12), (13, 13, 12)]


def sides(n: int, m: int, d: int, seed: int = 0, decay: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) * np.arange(1, d + 1) ** -decay
    return rng.normal(size=(n, d)) @ mix.T, 1.2 * rng.normal(size=(m, d)) @ mix.T + 0.3


def square_root_formula(x: np.ndarray, y: np.ndarray) -> float:
    """The published formula with scipy's matrix square root."""
    shift = x.mean(axis=0) - y.mean(axis=0)
    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(shift @ shift + np.trace(cov1 + cov2) - 2 * np.trace(linalg.sqrtm(cov1 @ cov2)).real)


@pytest.mark.parametrize("identity", ["fd_1d", "fd_diag", "fd_rotated", "fd_scale_identity", "fd_singular"])
def test_shared_closed_forms(identity: str) -> None:
    case = closed_form(identity)
    value = frechet_from_statistics(*(case["input"][key] for key in ("mu1", "cov1", "mu2", "cov2")))
    check_value(value, case["expected"], rel=0, tol=min(case["tol"], 1e-9))


def test_shared_closed_form_of_features() -> None:
    case = closed_form("fd_ddof")
    check_value(frechet_distance(case["input"]["gt"], case["input"]["pred"]), case["expected"])


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (([3.0], [[4.0]], [0.0], [[1.0]]), 9 + (2 - 1) ** 2),
        (([0.0, 1.0], np.diag([9.0, 0.0]), [2.0, 1.0], np.diag([4.0, 25.0])), 4 + 1 + 25),
        (([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0], [[1.0, -1.0], [-1.0, 1.0]]), 4.0),  # C1 C2 = 0
        (([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0], [[4.0, 4.0], [4.0, 4.0]]), 2.0),  # rank one, scaled by 4
        (([0.0, 0.0], np.zeros((2, 2)), [1.0, 0.0], np.eye(2)), 3.0),
    ],
)
def test_closed_forms(statistics: tuple[Any, ...], expected: float) -> None:
    check_value(frechet_from_statistics(*statistics), expected, tol=1e-12)


def test_closed_form_of_features() -> None:
    # 1-D: variances 2 and 8 (n - 1), means 1 and 4: 9 + (sqrt 8 - sqrt 2)^2 = 9 + 2 = 11.
    check_value(frechet_distance([[0.0], [2.0]], [[2.0], [6.0]]), 11.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_identical_sets_are_at_zero(shape: tuple[int, int, int]) -> None:
    x, _ = sides(*shape)
    assert frechet_distance(x, x) <= 1e-12 * np.trace(np.cov(x, rowvar=False))


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetric_and_order_free(shape: tuple[int, int, int]) -> None:
    x, y = sides(*shape)
    check_value(frechet_distance(y, x), frechet_distance(x, y))
    check_order_free(frechet_distance, x, y)


@pytest.mark.parametrize("shape", SHAPES)
def test_translation_adds_its_square(shape: tuple[int, int, int]) -> None:
    x, y = sides(*shape)
    y += x.mean(axis=0) - y.mean(axis=0)
    step = np.arange(shape[2]) / 3.0
    check_value(frechet_distance(x, y + step), frechet_distance(x, y) + step @ step)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), n=st.integers(3, 30), m=st.integers(3, 30), d=st.integers(1, 15))
def test_rotation_changes_nothing(seed: int, n: int, m: int, d: int) -> None:
    x, y = sides(n, m, d, seed)
    rotation = linalg.qr(np.random.default_rng(seed + 1).normal(size=(d, d)))[0]
    check_value(frechet_distance(x @ rotation, y @ rotation), frechet_distance(x, y), rel=1e-8)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_routes_agree_on_full_rank(decay: float) -> None:
    x, y = sides(300, 250, 40, decay=decay)
    (mean1, rows1), (mean2, rows2) = centre(x), centre(y)
    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    by_rows = frechet._nuclear_norm(rows1.T / np.sqrt(299), rows2.T / np.sqrt(249))
    by_eigenvectors = frechet._nuclear_norm(frechet._factor(cov1, None), frechet._factor(cov2, None))
    by_cholesky = frechet._trace_sqrt_product(cov1, cov2)
    check_value([by_rows, by_eigenvectors], [by_cholesky] * 2, rel=1e-8)
    check_value(frechet_from_statistics(mean1, cov1, mean2, cov2), frechet_distance(x, y), rel=1e-8)


@pytest.mark.parametrize("shape", [s for s in SHAPES if min(s[:2]) <= s[2]])
def test_singular_covariances_agree_with_rows(shape: tuple[int, int, int]) -> None:
    x, y = sides(*shape)
    by_statistics = frechet_from_statistics(
        x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False)
    )
    check_value(by_statistics, frechet_distance(x, y), rel=1e-8)


@pytest.mark.parametrize("shape", [(200, 300, 6), (200, 300, 48), (500, 500, 100)])
def test_equals_the_square_root_formula(shape: tuple[int, int, int]) -> None:
    x, y = sides(*shape)
    check_value(frechet_distance(x, y), square_root_formula(x, y), rel=1e-9)


def test_a_number_where_the_square_root_turns_complex() -> None:
    """Few rows of large values: the published tool sees imaginary parts above 1e-3 and answers -1."""
    x, y = (
        scale * rows
        for scale, rows in zip((1e5, 1.2e5), np.random.default_rng(0).normal(size=(2, 60, 128)), strict=True)
    )
    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    assert np.abs(np.diagonal(linalg.sqrtm(cov1 @ cov2)).imag).max() > 1e-3
    root = np.sqrt(linalg.eigvals(cov1 @ cov2).real.clip(0)).sum()  # negative ones are rounding
    shift = x.mean(axis=0) - y.mean(axis=0)
    check_value(frechet_distance(x, y), shift @ shift + np.trace(cov1 + cov2) - 2 * root, rel=1e-5)


def test_covariance_that_is_singular_but_for_rounding() -> None:
    # C1 = 2 v v^T along v = (1, 1) / sqrt 2, plus one rounding step that lets a Cholesky factorisation through:
    # tr sqrt(C1 C2) = sqrt(2 v^T C2 v) = sqrt 5, so the distance is 2 + 5 - 2 sqrt 5.
    almost = [[1.0, 1.0], [1.0, np.nextafter(1.0, 2.0)]]
    value = frechet_from_statistics(np.zeros(2), almost, np.zeros(2), np.diag([4.0, 1.0]))
    check_value(value, 7 - 2 * np.sqrt(5), rel=1e-12)


def test_dead_and_constant_units() -> None:
    x, y = (np.maximum(side, 0.0) for side in sides(80, 90, 10))
    dead_x, dead_y = np.insert(x, 3, 0.0, axis=1), np.insert(y, 3, 0.1, axis=1)
    check_value(frechet_distance(dead_x, dead_y), frechet_distance(x, y) + 0.01)


def test_large_offset_and_float32_input() -> None:
    x, y = sides(60, 50, 5)
    check_value(frechet_distance(x + 1e6, y + 1e6), frechet_distance(x, y), rel=1e-7)
    single = x.astype(np.float32), y.astype(np.float32)
    check_value(frechet_distance(*single), frechet_distance(*(s.astype(np.float64) for s in single)), rel=0, tol=0)


@pytest.mark.parametrize(("feature", "rel"), [("panns_2048", 1e-4), ("passt_features", 1e-4), ("vggish", 1e-4)])
def test_real_features_against_square_root(feature: str, rel: float) -> None:
    # 3 clips, n < d: the square root itself is the noisy side, by up to 7e-5.
    x, y = (pipeline_arrays(f"features_{side}.npz")[feature].astype(np.float64) for side in ("gt", "pred"))
    x, y = (side.reshape(-1, side.shape[-1])[:, :256] for side in (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        check_value(frechet_distance(x, y), square_root_formula(x, y), rel=rel)


def test_infinity_removes_the_bias() -> None:
    # True distance: 32 * (1.2 - 1)^2 + 32 * 0.1^2 = 1.6, apart from the small bias of the 8,000 reference rows.
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(8000, 32))
    fits = [frechet_infinity(reference, 1.2 * rng.normal(size=(600, 32)) + 0.1, seed=i) for i in range(8)]
    values = np.array([fit.value for fit in fits])
    plain = np.array([fit.distances[-1] for fit in fits])
    assert abs(values.mean() - 1.6) < 0.15 < abs(plain.mean() - 1.6)
    assert fits[0].sizes[0] == 64
    assert fits[0].sizes[-1] == 600
    assert fits[0].slope > 0
    assert fits[0].r_squared > 0.8


def test_infinity_of_constant_rows_is_the_distance() -> None:
    x, _ = sides(50, 2, 3)
    fit = frechet_infinity(x, np.ones((40, 3)))
    check_value(fit.value, frechet_distance(x, np.ones((40, 3))))
    assert fit.r_squared == 1.0


def test_infinity_is_seeded() -> None:
    x, y = sides(100, 100, 5)
    assert frechet_infinity(x, y, seed=1) == frechet_infinity(x, y, seed=1)
    assert frechet_infinity(x, y, seed=1).value != frechet_infinity(x, y, seed=2).value
    assert frechet_infinity(x, y, seed=1).distances[-1] == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_refuses_bad_arrays() -> None:
    check_refuses_bad_arrays(frechet_distance, *sides(9, 8, 3))


@pytest.mark.parametrize(
    ("reference", "generated", "match"),
    [
        (np.ones((1, 3)), np.ones((5, 3)), "reference has 1 rows, needs at least 2: a covariance"),
        (np.ones((5, 3)), np.ones((1, 3)), "generated has 1 rows, needs at least 2"),
        (np.ones((5, 3)), np.ones((5, 4)), "feature size 3, generated has 4"),
        (np.ones((5, 0)), np.ones((5, 0)), r"shape \(5, 0\)"),
        ([[1.0], [1.0, 2.0]], np.ones((5, 4)), "not one array"),
        (np.ones((5, 2)) * 1e200, np.eye(5, 2) * -1e200, "overflows"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_refusals(reference: Any, generated: Any, match: str) -> None:
    with pytest.raises(MetricError, match=match):
        frechet_distance(reference, generated)


@pytest.mark.parametrize(
    ("cov1", "cov2", "match"),
    [
        ([[1.0, 0.5], [0.0, 1.0]], np.eye(2), "cov1 is not symmetric"),
        (np.eye(2), [[1.0, 2.0], [2.0, 1.0]], "not positive semi-definite"),
        (np.eye(2), np.diag([1.0, -1.0]), "cov2 has a variance below zero"),
        (np.eye(2), [[1.0, 0.5], [0.5, 0.0]], "covariance with a constant feature"),
        (np.eye(2), np.eye(3), "do not fit d = 2"),
        (np.eye(2), [[1.0, np.nan], [np.nan, 1.0]], "NaN or infinite"),
    ],
)
def test_refuses_what_is_no_covariance(cov1: Any, cov2: Any, match: str) -> None:
    with pytest.raises(MetricError, match=match):
        frechet_from_statistics(np.zeros(2), cov1, np.zeros(2), cov2)


def test_negative_beyond_rounding_is_an_error() -> None:
    with pytest.raises(MetricError, match="below zero by more than rounding"):
        frechet.assemble(np.zeros(2), 1.0, 1.0, 1.0 + 1e-6)
    assert frechet.assemble(np.zeros(2), 1.0, 1.0, 1.0 + 1e-9) == 0.0


def test_infinity_refusals() -> None:
    x, y = sides(100, 19, 5)
    with pytest.raises(MetricError, match=r"generated has 19 rows, needs at least 20: .* not linear"):
        frechet_infinity(x, y)
    with pytest.raises(UsageError, match="points is 2"):
        frechet_infinity(x, x, points=2)
