"""The level that several metrics share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from av_bench.metrics import family
from av_bench.metrics.family import Member, level_of_each
from av_bench.metrics.paired import paired_effect

CLIPS = [f"c{i}" for i in range(60)]


def member(values: np.ndarray, units: list[str] | None = None, worse: float = 1.0, sides: int = 1) -> Member:
    return Member(values[None], np.zeros((1, len(values))), units or CLIPS, worse, sides)


def test_independent_metrics_share_in_equal_parts() -> None:
    rng = np.random.default_rng(0)
    members = [member(rng.normal(size=60)) for _ in range(5)]
    # 1 - (1 - a)^5 = 5 %: the level of each of five independent tests is 1.02 %.
    assert level_of_each(members, 0.05) == pytest.approx(1 - 0.95**0.2, rel=0.12)
    assert level_of_each(members, 0.05) == level_of_each(members, 0.05)


def test_metrics_that_move_together_take_one_share() -> None:
    values = np.random.default_rng(1).normal(size=60)
    assert level_of_each([member(values), member(3 * values + 1)], 0.05) == pytest.approx(0.05, rel=0.1)
    # The better one of a metric and its mirror is tested in both directions: two shares.
    assert level_of_each([member(values), member(values, worse=-1.0)], 0.05) == pytest.approx(0.025, rel=0.12)


def test_bounds_and_metrics_without_spread() -> None:
    rng = np.random.default_rng(2)
    still = member(np.ones(60))
    assert level_of_each([still, still], 0.05) == 0.025
    assert level_of_each([still, member(rng.normal(size=60))], 0.05) == 0.05
    assert level_of_each([], 0.05) == 0.05
    coarse = member(rng.normal(size=60), units=[f"split {i % 10}" for i in range(60)])
    assert 0.025 <= level_of_each([coarse, member(rng.normal(size=60))], 0.05) <= 0.05


def test_it_does_not_feel_a_true_difference() -> None:
    rng = np.random.default_rng(3)
    values = [rng.normal(size=60) for _ in range(3)]
    plain = level_of_each([member(v) for v in values], 0.05)
    assert level_of_each([member(v + 5) for v in values], 0.05) == pytest.approx(plain)


def test_the_family_keeps_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six metrics, pairs of them alike, 500 times nothing changed."""
    monkeypatch.setattr(family, "DRAWS", 1000)
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(500):
        shared = rng.standard_t(4, size=(3, 60))
        members = [member(s + 0.3 * rng.normal(size=60)) for s in shared for _ in range(2)]
        level = level_of_each(members, 0.05)
        alarms += any(paired_effect(m.new, m.base, m.units).p_value(1.0, 1) < level for m in members)
    low, high = stats.binomtest(alarms, 500).proportion_ci(0.999)
    assert low <= 0.05
    assert alarms / 500 > 0.02  # and does not fall far below it
    assert high >= 0.03
