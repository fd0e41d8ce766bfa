"""The clean subset against the full set: the difference, and an interval that knows that both share clips."""

from __future__ import annotations

import numpy as np
import pytest

from av_bench.contracts import Clip, Score
from av_bench.pipeline.clean_subset import differences

N = 400


def score(values: dict[str, float]) -> Score:
    return Score(float(np.mean(list(values.values()))), len(values), per_clip=values)


def clips(n: int = N) -> list[Clip]:
    return [Clip(f"c{i:04d}") for i in range(n)]


def test_a_subset_that_leaves_nothing_out_differs_by_nothing() -> None:
    values = {c.id: float(v) for c, v in zip(clips(), np.random.default_rng(0).normal(size=N), strict=True)}
    found = differences({"KL": score(values)}, {"KL": score(values)}, clips())["KL"]
    assert found["difference"] == 0
    assert found["interval"] == pytest.approx([0, 0], abs=1e-12)  # the two means move together


def test_the_interval_covers_the_spread_over_redrawn_sets() -> None:
    """95 % interval against the spread of the difference over sets drawn anew, 40 clips in 400 being left out."""
    rng = np.random.default_rng(1)
    outside = {f"c{i:04d}" for i in range(40)}
    spread, halves = [], []
    for _ in range(60):
        values = {c.id: float(v) for c, v in zip(clips(), rng.normal(size=N), strict=True)}
        clean = {i: v for i, v in values.items() if i not in outside}
        found = differences({"KL": score(values)}, {"KL": score(clean)}, clips())["KL"]
        spread.append(found["difference"])
        halves.append((found["interval"][1] - found["interval"][0]) / 2)
    assert np.mean(halves) == pytest.approx(1.96 * np.std(spread), rel=0.3)
    alone = 1.96 / np.sqrt(N - 40)  # what the subset's mean alone would say: three times too wide
    assert np.mean(halves) < alone / 2
