"""Scores of metrics of the whole set (FD, IS, KAD): the value, its interval, and a pseudo-value per clip.

A clip's pseudo-value is the metric plus n times what the clip does to it (Tukey 1958), so that the mean of the
pseudo-values is the metric, and two runs on the same clips compare clip by clip as they do for any other metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from av_bench.contracts import Clip, Score
from av_bench.metrics.checks import FloatArray

FEWEST_UNITS = 4  # an interval of fewer says nothing


def set_score(
    value: float,
    clips: Sequence[Clip],
    effects: FloatArray,
    *,
    units: Sequence[str] | None = None,
    least: float = -math.inf,
    details: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score of a metric with the effect ``(n,)`` of every clip; ``units`` are the clips' recordings unless given.

    The interval is value +- t sd with the variance of the units' summed effects; it stops at ``least``. Fewer than four
    units give no interval.
    """
    labels = [clip.cluster for clip in clips] if units is None else list(units)
    pseudo = {clip.id: float(value + len(clips) * effect) for clip, effect in zip(clips, effects, strict=True)}
    interval, found = interval_of_effects(value, effects, labels, least)
    return Score(
        value,
        len(clips),
        interval,
        details={**(details or {}), **found},
        notes=notes,
        pseudo_values=pseudo,
        units=dict(zip(pseudo, labels, strict=True)),
    )


def interval_of_effects(
    value: float, effects: FloatArray, units: Sequence[str], least: float = -math.inf
) -> tuple[tuple[float, float] | None, dict[str, float]]:
    """Interval, and for the record ``sd`` and ``half_width`` (a bound may stop before it); nothing of few units."""
    names, member = np.unique(np.asarray(units), return_inverse=True)
    k = len(names)
    if k < FEWEST_UNITS:
        return None, {}
    sums = np.zeros(k)
    np.add.at(sums, member, effects)
    sd = math.sqrt(k / (k - 1) * float(np.square(sums - sums.mean()).sum()))
    half = float(stats.t.isf(0.025, k - 1)) * sd
    return (max(value - half, least), value + half), {"sd": sd, "half_width": half}


def by_clip(effects: FloatArray, rows: Sequence[int]) -> FloatArray:
    """Effects of rows summed over the clips ``(n,)`` that have ``rows`` of them each."""
    member = np.repeat(np.arange(len(rows)), rows)
    sums = np.zeros(len(rows))
    np.add.at(sums, member, effects)
    return sums
