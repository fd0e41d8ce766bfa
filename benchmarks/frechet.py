"""Time the Fréchet distance against the published formula (scipy's matrix square root), in one run on one machine.

Usage: ``python benchmarks/frechet.py [--threads 1] [--sizes 2000 15000] [--slow]
[--interval]``

With ``--interval``: what an interval adds to the estimate, both in processor time, taken in turns.

Prints one row per number of rows: seconds of each way, the ratio to the square root, and the relative difference of
the values. ``--slow`` adds n = 1000, fewer rows than dimensions, where the square root takes minutes and is itself
the inexact side. With one thread seconds are processor time, which other load on the machine disturbs least; with
more they are wall time. Ratios of one run compare; seconds of different machines do not.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from av_bench.metrics import frechet_distance, frechet_from_statistics
from av_bench.metrics.frechet_influence import frechet_effects

Array = NDArray[np.float64]
Clock = Callable[[], float]


def features(n: int, d: int, seed: int) -> tuple[Array, Array]:
    """Two sides ``(n, d)`` whose spectrum falls like 1/k, as that of embeddings roughly does."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    mix = basis * np.arange(1, d + 1) ** -0.5
    return rng.normal(size=(n, d)) @ mix.T, 1.1 * rng.normal(size=(n, d)) @ mix.T + 0.01


def published(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """The formula with a matrix square root, real part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", linalg.LinAlgWarning)
        root = linalg.sqrtm(cov1 @ cov2)
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2) - 2 * np.trace(root).real)


def timed(clock: Clock, function: Callable[..., float], *arrays: Array) -> tuple[float, float]:
    """Value and seconds of one call."""
    start = clock()
    value = function(*arrays)
    return value, clock() - start


def row(n: int, d: int, clock: Clock) -> str:
    """One line of the table."""
    x, y = features(n, d, seed=0)
    start = clock()
    statistics = (x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False))
    preparing = clock() - start
    theirs, root_seconds = timed(clock, published, *statistics)
    ours, statistics_seconds = timed(clock, frechet_from_statistics, *statistics)
    from_rows, rows_seconds = timed(clock, frechet_distance, x, y)
    peer_seconds = preparing + root_seconds
    ratio1, ratio2 = root_seconds / statistics_seconds, peer_seconds / rows_seconds
    return (
        f"| {n} | {preparing:.2f} | {root_seconds:.2f} | {statistics_seconds:.2f} | {ratio1:.1f} "
        f"| {ours / theirs - 1:+.1e} | {peer_seconds:.2f} | {rows_seconds:.2f} | {ratio2:.1f} "
        f"| {from_rows / theirs - 1:+.1e} |"
    )


def interval_row(n: int, d: int, clock: Clock) -> str:
    """Estimate alone, estimate with the effects of all rows, and the extra as a share of the estimate."""
    x, y = features(n, d, seed=0)
    alone, both = [], []
    for _ in range(3):
        alone.append(timed(clock, frechet_distance, x, y)[1])
        both.append(timed(clock, lambda a, b: frechet_effects(a, b).value, x, y)[1])
    extra = (min(both) - min(alone)) / min(alone)
    return f"| {n} | {d} | {min(alone):.2f} | {min(both):.2f} | {extra:.2f} |"


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of the linear algebra library")
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 15000], help="rows of each side")
    parser.add_argument("--slow", action="store_true", help="add n = 1000, fewer rows than dimensions")
    parser.add_argument("--interval", action="store_true", help="what an interval adds to the estimate")
    options = parser.parse_args()
    sizes = sorted({*options.sizes, *([1000] if options.slow else [])})
    clock = time.process_time if options.threads == 1 else time.perf_counter
    if options.interval:
        print("| n | d | estimate | with interval | extra / estimate |\n|---|---|---|---|---|")
        with threadpool_limits(options.threads):
            for n in sizes:
                print(interval_row(n, options.dimension, clock), flush=True)
        return
    print(f"d = {options.dimension}, threads = {options.threads}, seconds; 'root' is scipy.linalg.sqrtm")
    print(
        "| n | mean, cov | root | from statistics | ratio | difference | cov + root | from rows | ratio | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with threadpool_limits(options.threads):
        for n in sizes:
            print(row(n, options.dimension, clock), flush=True)


if __name__ == "__main__":
    main()
