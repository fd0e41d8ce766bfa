"""Statistics in pieces equal statistics in one pass, digits included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_bench.contracts import MetricError
from av_bench.metrics import GaussianStatistics, frechet_distance, frechet_from_statistics
from av_bench.metrics.gaussian import BLOCK, moments
from tests.metrics.tester import check_refuses_bad_arrays, check_value


def rows(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=6), offset=st.sampled_from([0.0, 1e3, 1e6]))
def test_shards_merge_to_one_pass(cuts: list[int], offset: float) -> None:
    data = rows(200)
    shards = np.split(data + offset, sorted(cuts))
    merged = GaussianStatistics(6)
    for shard in shards[::-1]:
        merged.merge(GaussianStatistics.from_rows(shard))
    assert merged.n == 200
    check_value(merged.mean, data.mean(axis=0) + offset, rel=1e-10, tol=1e-10)
    scale = np.abs(np.cov(data, rowvar=False)).max()
    check_value(merged.covariance, np.cov(data, rowvar=False), rel=0, tol=max(1e-10, 1e-15 * offset) * scale)


def test_updates_equal_one_pass() -> None:
    data = rows(100)
    statistics = GaussianStatistics(6)
    for batch in (data[:1], data[1:1], data[1:50], data[50:]):
        statistics.update(batch)
    check_value(statistics.covariance, np.cov(data, rowvar=False), rel=1e-10)


def test_distance_from_shards() -> None:
    x, y = rows(90), rows(80, seed=1) + 0.5
    left = GaussianStatistics.from_rows(x[:30]).merge(GaussianStatistics.from_rows(x[30:]))
    right = GaussianStatistics.from_rows(y)
    value = frechet_from_statistics(left.mean, left.covariance, right.mean, right.covariance)
    check_value(value, frechet_distance(x, y), rel=1e-10)


def test_state_survives_saving(tmp_path: object) -> None:
    first = GaussianStatistics.from_rows(rows(40))
    path = f"{tmp_path}/state.npz"
    np.savez(path, **first.to_arrays())
    with np.load(path, allow_pickle=False) as stored:
        second = GaussianStatistics.from_arrays(dict(stored))
    second.update(rows(10, seed=3))
    first.update(rows(10, seed=3))
    assert second.n == 50
    np.testing.assert_array_equal(second.covariance, first.covariance)


def test_properties_do_not_expose_the_state() -> None:
    statistics = GaussianStatistics.from_rows(rows(10))
    statistics.mean[:] = 99.0
    statistics.covariance[:] = 99.0
    check_value(statistics.mean, rows(10).mean(axis=0))


def test_refusals() -> None:
    check_refuses_bad_arrays(lambda a: GaussianStatistics.from_rows(a).covariance, rows(5))
    statistics = GaussianStatistics(6)
    with pytest.raises(MetricError, match="mean of 0 rows"):
        statistics.mean  # noqa: B018
    statistics.update(rows(1))
    with pytest.raises(MetricError, match="covariance of 1 rows"):
        statistics.covariance  # noqa: B018
    with pytest.raises(MetricError, match="rows have 5 values, the statistics hold 6"):
        statistics.merge(GaussianStatistics(5))
    with pytest.raises(MetricError, match=r"lacks \['scatter'\]"):
        GaussianStatistics.from_arrays({"n": np.array(1), "mean": np.zeros(2)})
    with pytest.raises(MetricError, match="do not fit"):
        GaussianStatistics.from_arrays({"n": np.array(1), "mean": np.zeros(2), "scatter": np.zeros((3, 3))})


def test_moments_in_blocks_are_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    for dtype, offset, rel in ((np.float64, 1e6, 1e-9), (np.float32, 100.0, 1e-12)):
        rows = (rng.normal(size=(2 * BLOCK + 5, 7)) * np.arange(1, 8) + offset).astype(dtype)
        mean, covariance = moments(rows)
        exact = rows.astype(np.longdouble)
        centred = exact - exact.mean(axis=0)
        assert mean == pytest.approx(exact.mean(axis=0).astype(float), rel=1e-14)
        expected = (centred.T @ centred / (len(rows) - 1)).astype(float)
        assert np.abs(covariance - expected).max() < rel * np.abs(expected).max()
        assert covariance.dtype == mean.dtype == np.float64
