"""Intervals of metric values: how far would the number move with other clips from the same source?

Conventions
-----------
* The unit of resampling is the cluster (the source recording): rows of one cluster move together. VGGish has eight
  rows per clip, and several clips can come from one recording.
* 95 % unless stated otherwise; every draw is seeded; fewer than two clusters is a MetricError.
* The intervals speak of the choice of clips. They do not cover retraining, resampling a generator, or bias.

Methods
-------
* Means of per-clip values (KL, IB, CLAP, DeSync, onsets): percentile cluster bootstrap (Efron & Tibshirani 1993,
  chapter 13; Field & Welsh 2007 for clusters). Two generators on the same clips compare by the paired difference.
* From 2,000 recordings on, the normal interval with the clusters' standard error: the same to a few percent of its
  width, without the draws.
* Fréchet distance and inception score are not means. A bootstrap repeats rows, which acts like fewer rows, and the
  Fréchet distance falls with rows: the whole percentile interval lies above the estimate. Their columns use influence
  values (``frechet_influence``, ``inception_influence``, ``set_scores``). ``frechet_interval`` here is the older way,
  kept as an independent check: the estimate +- 1.96 sd, with sd from random halves of the clusters drawn without
  repeats (half-sampling, McCarthy 1969), each half scored together with its complement. Let f1 and f2 be the two
  scores. The odd part (f1 - f2) / 2 moves as the estimate does to first order, plus noise that quadratic terms add when
  the halves are small; the even part (f1 + f2) / 2 moves by the quadratic terms alone. For a sum of a linear and a
  quadratic form of Gaussian noise ``var(estimate) = var(odd) - var(even)``, and it is never below ``var(even)``.
* Halves do not work for the inception score: a split of half as many rows is bounded by half as much, and the spread
  comes out at 0.3 to 0.6 of the true one (64 clips in 10 splits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics.checks import FloatArray, as_floats, require_at_least
from av_bench.metrics.frechet import frechet_distance
from av_bench.metrics.inception_influence import inception_effects

Labels = Sequence[Any] | NDArray[Any]


class Bounds(NamedTuple):
    """A percentile interval."""

    low: float
    high: float


class Interval(NamedTuple):
    """Bounds, the standard deviation behind them, and how it was found."""

    low: float
    high: float
    sd: float
    method: str


class PairedDifference(NamedTuple):
    """Mean of a - b with its bounds."""

    difference: float
    low: float
    high: float


def validate(clusters: Labels, rows: int, metric: str, name: str) -> NDArray[Any]:
    """Labels as an array ``(rows,)``; MetricError when one is missing or all are the same."""
    labels = np.asarray(clusters)
    if labels.shape != (rows,):
        raise MetricError(f"{metric}: {name} has shape {labels.shape} for {rows} rows; pass one label per row")
    if len(np.unique(labels)) < 2:
        raise MetricError(f"{metric}: {name} names fewer than 2 clusters, which shows no spread; add source recordings")
    return labels


def cluster_bootstrap_mean(
    values: ArrayLike, clusters: Labels, seed: int = 2020, replicates: int = 1000, level: float = 0.95
) -> Bounds:
    """Percentile interval ``(low, high)`` of the mean of ``values`` ``(n,)`` over resampled clusters ``(n,)``.

    Each replicate draws as many clusters as there are, with repeats, and takes the mean of all their values.
    """
    metric = "cluster_bootstrap_mean"
    array = as_floats(values, metric, "values", "(n,)", 1)
    labels = validate(clusters, len(array), metric, "clusters")
    _require_draws(replicates, level, metric)
    _, member = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(member, weights=array), np.bincount(member).astype(np.float64)
    k = len(sums)
    rng = np.random.default_rng(seed)
    means: list[FloatArray] = []
    block = max(1, 2_000_000 // k)  # bounds memory at 16 MB
    for start in range(0, replicates, block):
        times = rng.multinomial(k, np.full(k, 1.0 / k), size=min(block, replicates - start)).astype(np.float64)
        means.append((times @ sums) / (times @ counts))
    low, high = np.quantile(np.concatenate(means), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Bounds(float(low), float(high))


def cluster_normal_mean(values: ArrayLike, clusters: Labels, level: float = 0.95) -> Bounds:
    """Normal interval of the mean of ``values`` ``(n,)`` with the standard error of clusters ``(n,)``.

    What the bootstrap converges to with many clusters, without its draws.
    """
    metric = "cluster_normal_mean"
    array = as_floats(values, metric, "values", "(n,)", 1)
    labels = validate(clusters, len(array), metric, "clusters")
    _require_draws(2, level, metric)
    names, member = np.unique(labels, return_inverse=True)
    k, mean = len(names), float(array.mean())
    parts = np.bincount(member, weights=array - mean) / len(array)
    reach = NormalDist().inv_cdf((1.0 + level) / 2.0) * float(np.sqrt(k / (k - 1) * np.square(parts).sum()))
    return Bounds(mean - reach, mean + reach)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Labels, seed: int = 2020, replicates: int = 1000, level: float = 0.95
) -> PairedDifference:
    """Mean of ``a - b`` over the same clips ``(n,)`` and its cluster bootstrap interval."""
    metric = "paired_difference"
    first, second = as_floats(a, metric, "a", "(n,)", 1), as_floats(b, metric, "b", "(n,)", 1)
    if first.shape != second.shape:
        raise MetricError(f"{metric}: a has {len(first)} values, b {len(second)}; both must score the same clips")
    validate(clusters, len(first), metric, "clusters")
    low, high = cluster_bootstrap_mean(first - second, clusters, seed, replicates, level)
    return PairedDifference(float((first - second).mean()), low, high)


def frechet_interval(
    reference: ArrayLike,
    generated: ArrayLike,
    clusters_reference: Labels,
    clusters_generated: Labels,
    seed: int = 2020,
    replicates: int = 50,
    level: float = 0.95,
) -> Interval:
    """``frechet_distance(reference, generated)`` +- 1.96 sd, sd from complementary halves of the clusters.

    A cluster label on both sides means the same recording; its rows enter or leave both sides together. The lower
    bound stops at 0. With 50 replicates sd itself is known to about 10 % where the sides differ clearly. A replicate
    costs two :func:`frechet_distance` of half the rows (``benchmarks/frechet.py`` times one); for d = 2048 take 10.
    """
    metric = "frechet_interval"
    x = as_floats(reference, metric, "reference", "(rows, dimensions)", 2)
    y = as_floats(generated, metric, "generated", "(rows, dimensions)", 2)
    labels_x = validate(clusters_reference, len(x), metric, "clusters_reference")
    labels_y = validate(clusters_generated, len(y), metric, "clusters_generated")
    _require_draws(replicates, level, metric)
    point = frechet_distance(x, y)
    names, member = np.unique(np.concatenate([labels_x, labels_y]), return_inverse=True)
    member_x, member_y = member[: len(x)], member[len(x) :]
    every = np.arange(len(names))
    side = np.isin(every, member_x) + 2 * np.isin(every, member_y)

    def of_part(part: NDArray[np.bool_]) -> float:
        part_x, part_y = x[part[member_x]], y[part[member_y]]
        if min(len(part_x), len(part_y)) < 2:
            raise MetricError(f"{metric}: half of the clusters holds fewer than 2 rows of a side; add clips")
        return frechet_distance(part_x, part_y)

    sd = _sd_from_halves(of_part, side, replicates, np.random.default_rng(seed))
    return _around(point, sd, level, 0.0, f"{replicates} pairs of complementary halves of {len(names)} clusters")


def inception_interval(
    logits: ArrayLike, clusters: Labels, splits: int = 10, score_seed: int = 2020, level: float = 0.95
) -> Interval:
    """``inception_score(logits, splits, score_seed)`` +- t sd, sd from deletions within the splits, or between splits.

    See :mod:`av_bench.metrics.inception_influence`; with few rows per split the split is the unit and ``clusters`` do
    not count. The lower bound stops at 1. This is not the standard deviation over splits, which says how much parts of
    the set differ.
    """
    metric = "inception_interval"
    rows = as_floats(logits, metric, "logits", "(clips, classes)", 2)
    labels = validate(clusters, len(rows), metric, "clusters")
    _require_draws(2, level, metric)
    found = inception_effects(rows, splits, score_seed)
    names, member = np.unique(found.split if found.by_split else labels, return_inverse=True)
    k = len(names)
    sums = np.bincount(member, weights=found.effects)
    sd = float(np.sqrt(k / (k - 1) * np.square(sums - sums.mean()).sum()))
    reach = float(stats.t.isf((1.0 - level) / 2.0, k - 1)) * sd
    method = f"spread between {k} splits" if found.by_split else f"deletions within splits, {k} clusters"
    return Interval(max(found.value - reach, 1.0), found.value + reach, sd, method)


def _sd_from_halves(
    of_part: Callable[[NDArray[np.bool_]], float],
    strata: NDArray[np.int64],
    replicates: int,
    rng: np.random.Generator,
) -> float:
    """Standard deviation of a statistic of clusters; ``of_part`` scores the clusters that a mask ``(k,)`` lets in."""
    pairs = np.empty((replicates, 2))
    for i in range(replicates):
        half = _random_half(strata, rng)
        pairs[i] = of_part(half), of_part(~half)
    odd = float(np.square(pairs[:, 0] - pairs[:, 1]).mean()) / 4.0  # its mean is 0: either half may be the first
    even = float(pairs.mean(axis=1).var(ddof=1))
    return float(np.sqrt(max(odd - even, even)))


def _random_half(strata: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which clusters are in: half of every stratum, without repeats; of an odd stratum one more or less, at random."""
    chosen = np.zeros(len(strata), dtype=np.bool_)
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        chosen[members[: (len(members) + int(rng.integers(2))) // 2]] = True
    return chosen


def _around(point: float, sd: float, level: float, least: float, method: str) -> Interval:
    reach = NormalDist().inv_cdf((1.0 + level) / 2.0) * sd
    return Interval(max(point - reach, least), point + reach, sd, method)


def _require_draws(replicates: int, level: float, metric: str) -> None:
    require_at_least(replicates, 2, metric, "replicates")
    if not 0.0 < level < 1.0:
        raise UsageError(f"{metric}: level is {level}; pass a share between 0 and 1, such as 0.95")
