"""Metrics of a protocol: what they say beside their value."""

from __future__ import annotations

import numpy as np
import pytest

from av_bench.contracts import Clip, MetricError, MetricInputs
from av_bench.metrics.columns import Frechet, InceptionScore


def inputs(metric: Frechet, rows: int, width: int) -> MetricInputs:
    rng = np.random.default_rng(0)
    clips = tuple(Clip(f"c{i:04d}") for i in range(rows))
    arrays = {need: list(rng.normal(size=(rows, width))) for need in metric.needs}
    return MetricInputs(clips, arrays)


def test_fd_says_when_it_is_biased() -> None:
    metric = Frechet("FD", "x")
    few, many = metric.compute(inputs(metric, 15, 8)), metric.compute(inputs(metric, 16, 8))
    assert any("biased upwards: 15 rows for 8 dimensions" in note for note in few.notes)
    assert not any("biased" in note for note in many.notes)


def test_fd_and_is_refuse_too_few_clips() -> None:
    metric = Frechet("FD", "x")
    with pytest.raises(MetricError, match="FD needs at least 2 clips, this set has 1 scored"):
        metric.validate(inputs(metric, 1, 2))
    score = InceptionScore("IS", "x", splits=10)
    with pytest.raises(MetricError, match="IS in 10 splits needs more than 10 clips"):
        score.validate(MetricInputs(tuple(Clip(str(i)) for i in range(10)), {}))
