"""Intervals: closed forms where they exist, coverage and spread against fresh draws where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics import (
    cluster_bootstrap_mean,
    frechet_distance,
    frechet_interval,
    inception_interval,
    inception_score,
    intervals,
    paired_difference,
)
from tests.metrics.tester import check_value

NAMES = [f"clip{i:03}" for i in range(40)]


def clustered(rng: np.random.Generator, clusters: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Values around 5 that share half of their variance within a cluster, and the cluster of each."""
    values = 5 + rng.normal(size=(clusters, 1)) + rng.normal(size=(clusters, size))
    return values.ravel(), np.repeat(np.arange(clusters), size)


def covered(draws: int, by_row: bool) -> float:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(draws):
        values, labels = clustered(rng, 50, 6)
        if by_row:
            labels = np.arange(len(values))
        low, high = cluster_bootstrap_mean(values, labels, seed=seed, replicates=300)
        hits += low <= 5.0 <= high
    return hits / draws


def test_bootstrap_covers_and_needs_clusters() -> None:
    assert 0.89 <= covered(200, by_row=False) <= 0.99
    assert covered(200, by_row=True) < 0.8  # rows of one cluster are not independent


def test_bootstrap_width_is_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = cluster_bootstrap_mean(values, np.arange(400), seed=0, replicates=4000)
    check_value((high - low) / (2 * 1.96 * values.std() / 20), 1.0, rel=0.06)
    narrow = cluster_bootstrap_mean(values, np.arange(400), seed=0, replicates=4000, level=0.5)
    assert low < narrow.low < values.mean() < narrow.high < high


def test_many_clusters_need_no_bootstrap() -> None:
    values, labels = clustered(np.random.default_rng(11), 2000, 2)
    drawn = cluster_bootstrap_mean(values, labels, seed=0)
    normal = intervals.cluster_normal_mean(values, labels)
    width = drawn.high - drawn.low
    check_value((normal.low, normal.high), (drawn.low, drawn.high), rel=0, tol=0.08 * width)
    check_value((normal.low + normal.high) / 2, values.mean())
    sums = np.bincount(labels, weights=values - values.mean()) / len(values)
    check_value(normal.high - values.mean(), 1.9599639845 * np.sqrt(2000 / 1999 * (sums**2).sum()), rel=1e-8)
    with pytest.raises(MetricError, match="fewer than 2 clusters"):
        intervals.cluster_normal_mean([1.0, 2.0], ["a", "a"])


def test_bootstrap_weighs_values_not_clusters() -> None:
    # Cluster 0 holds 30 zeros, cluster 1 one value 31: draws are (0, 0), (0, 1) twice, (1, 1): means 0, 1, 31.
    values, labels = np.array([0.0] * 30 + [31.0]), [0] * 30 + [1]
    assert cluster_bootstrap_mean(values, labels, seed=0) == (0.0, 31.0)
    low, high = cluster_bootstrap_mean(values, labels, seed=0, level=0.2)
    check_value((low, high), (1.0, 1.0))


def test_bootstrap_is_seeded_and_order_free() -> None:
    values, labels = clustered(np.random.default_rng(2), 20, 3)
    first = cluster_bootstrap_mean(values, labels, seed=4)
    assert first == cluster_bootstrap_mean(values, labels, seed=4)
    assert first != cluster_bootstrap_mean(values, labels, seed=5)
    order = np.random.default_rng(3).permutation(60)
    check_value(cluster_bootstrap_mean(values[order], labels[order], seed=4), first)
    check_value(cluster_bootstrap_mean(values, [f"{i:02}" for i in labels], seed=4), first)


def test_paired_difference_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(5)
    a, labels = clustered(rng, 60, 2)
    b = a - 0.1 + 0.1 * rng.normal(size=len(a))
    difference, low, high = paired_difference(a, b, labels, seed=0)
    check_value(difference, (a - b).mean())
    assert 0.0 < low < difference < high
    assert cluster_bootstrap_mean(b, labels, seed=0).high > cluster_bootstrap_mean(a, labels, seed=0).low
    check_value(paired_difference(b, a, labels, seed=0), (-difference, -high, -low), rel=1e-9, tol=1e-9)


def draw_features(rng: np.random.Generator, clips: int, patches: int, shared: bool) -> tuple[np.ndarray, np.ndarray]:
    scale = np.arange(1, 33) ** -0.5
    base = rng.normal(size=(clips, 1, 32))
    other = base if shared else rng.normal(size=(clips, 1, 32))
    x = 0.7 * base + 0.7 * rng.normal(size=(clips, patches, 32))
    y = 0.7 * other + 0.8 * rng.normal(size=(clips, patches, 32)) + 0.1
    return (x * scale).reshape(-1, 32), (y * scale).reshape(-1, 32)


@pytest.mark.parametrize(
    ("clips", "patches", "shared"), [(128, 1, False), (128, 8, False), (128, 8, True), (24, 1, True)]
)
def test_frechet_spread_matches_fresh_draws(clips: int, patches: int, shared: bool) -> None:
    rng = np.random.default_rng(6)
    truth = np.std([frechet_distance(*draw_features(rng, clips, patches, shared)) for _ in range(150)])
    labels = np.repeat(np.arange(clips), patches)
    other = labels if shared else labels + clips
    found = []
    for seed in range(12):
        x, y = draw_features(rng, clips, patches, shared)
        interval = frechet_interval(x, y, labels, other, seed=seed, replicates=20)
        assert interval.low <= frechet_distance(x, y) <= interval.high
        found.append(interval.sd)
    assert 0.75 < np.mean(found) / truth < 1.3


def test_frechet_spread_of_sides_that_are_alike() -> None:
    # Where halves alone mislead: their own noise, squared, is most of the distance.
    rng = np.random.default_rng(10)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(64, 96)), rng.normal(size=(64, 96)) + 0.1

    truth = np.std([frechet_distance(*draw()) for _ in range(150)])
    halves, found = [], []
    for seed in range(12):
        x, y = draw()
        found.append(frechet_interval(x, y, np.arange(64), np.arange(64) + 64, seed=seed, replicates=20).sd)
        orders = [(rng.permutation(64)[:32], rng.permutation(64)[:32]) for _ in range(20)]
        halves.append(np.std([frechet_distance(x[a], y[b]) for a, b in orders]))
    assert abs(np.mean(found) / truth - 1) < 0.2 < abs(np.mean(halves) / truth - 1)


def test_frechet_rows_as_clusters_would_be_too_narrow() -> None:
    x, y = draw_features(np.random.default_rng(7), 64, 8, shared=False)
    clips = np.repeat(np.arange(64), 8)
    by_clip = frechet_interval(x, y, clips, clips + 64).sd
    by_row = frechet_interval(x, y, np.arange(512), np.arange(512) + 512).sd
    assert by_row < 0.85 * by_clip


def test_frechet_interval_is_symmetric_around_the_estimate_and_seeded() -> None:
    x, y = draw_features(np.random.default_rng(8), 60, 1, shared=False)
    labels = np.arange(60)
    first = frechet_interval(x, y + 1, labels, labels, seed=1)
    check_value((first.low + first.high) / 2, frechet_distance(x, y + 1))
    check_value((first.high - first.low) / 2, 1.959964 * first.sd, rel=1e-6)
    assert first == frechet_interval(x, y + 1, labels, labels, seed=1)
    assert first.sd != frechet_interval(x, y + 1, labels, labels, seed=2).sd
    assert "60 clusters" in first.method


def test_interval_stops_at_the_least_possible_value() -> None:
    assert intervals._around(0.5, 1.0, 0.95, 0.0, "") == (0.0, pytest.approx(0.5 + 1.959964), 1.0, "")


@pytest.mark.parametrize(("rows", "method"), [(200, "200 clusters"), (64, "between 10 splits")])
def test_inception_spread_matches_fresh_draws(rows: int, method: str) -> None:
    rng = np.random.default_rng(9)

    def draw() -> np.ndarray:
        return 2 * rng.normal(size=(rows, 10))

    truth = np.std([inception_score(draw())[0] for _ in range(200)])
    variances = []
    for _ in range(40):
        logits = draw()
        interval = inception_interval(logits, np.arange(rows))
        check_value((interval.low + interval.high) / 2, inception_score(logits)[0])
        assert method in interval.method
        variances.append(interval.sd**2)
    assert 0.8 < np.sqrt(np.mean(variances)) / truth < 1.3


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: cluster_bootstrap_mean([1.0, 2.0], ["a", "a"]), "fewer than 2 clusters"),
        (lambda: cluster_bootstrap_mean([], []), "fewer than 2 clusters"),
        (lambda: cluster_bootstrap_mean([1.0, np.nan], ["a", "b"]), "NaN"),
        (lambda: cluster_bootstrap_mean([1.0, 2.0], ["a"]), r"shape \(1,\) for 2 rows"),
        (lambda: paired_difference([1.0], [1.0, 2.0], ["a"]), "a has 1 values, b 2"),
        (lambda: frechet_interval(np.eye(2), np.eye(2), ["a", "a"], ["a", "b"]), "clusters_reference names fewer"),
        (lambda: frechet_interval(np.eye(2), np.eye(2), ["a", "b"], ["b", "b"]), "clusters_generated names fewer"),
        (lambda: frechet_interval(np.eye(3), np.eye(3), NAMES[:3], NAMES[:3]), "fewer than 2 rows of a side"),
        (lambda: inception_interval(np.eye(20), ["a"] * 20), "fewer than 2 clusters"),
        (lambda: inception_interval(np.eye(10), NAMES[:10]), "10 rows for 10 splits"),
    ],
)
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(MetricError, match=match):
        call()


@pytest.mark.parametrize(
    ("options", "match"), [({"replicates": 1}, "replicates is 1"), ({"level": 95.0}, "level is 95")]
)
def test_refuses_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        cluster_bootstrap_mean([1.0, 2.0], ["a", "b"], **options)
