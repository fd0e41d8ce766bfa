"""Tests that a plugin should have: what its metric says on inputs with a known answer, and that a sample repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from av_bench_example.extractor import RATE, SpectralCentroid
from av_bench_example.metric import CentroidGap
from av_bench_example.model import Tone

from av_bench.contracts import Clip, ClipSet, MetricInputs


def test_the_centroid_of_a_tone_is_its_pitch() -> None:
    wave = torch.sin(2 * np.pi * 2000 * torch.arange(2 * RATE) / RATE)
    (row,) = SpectralCentroid.build(None).run([wave])
    assert row["embedding"][0] == pytest.approx(2.0, abs=0.05)


def test_the_gap_is_the_mean_absolute_difference() -> None:
    metric = CentroidGap("gap")
    clips = (Clip("a"), Clip("b"))
    reference, generated = [np.array([1.0, 0.0]), np.array([2.0, 0.0])], [np.array([1.5, 0.0]), np.array([1.0, 0.0])]
    score = metric.compute(MetricInputs(clips, {metric.reference: reference, metric.generated: generated}))
    assert score.value == pytest.approx(0.75)


def test_a_sample_depends_on_seed_and_clip_alone() -> None:
    model = Tone()
    model.setup(ClipSet("set", "1", (Clip("a"), Clip("b"))), 1.0, 0)
    alone = next(iter(model.generate([Clip("b")], seed=3)))
    among = list(model.generate([Clip("a"), Clip("b")], seed=3))[1]
    assert alone.audio is not None
    assert among.audio is not None
    assert torch.equal(alone.audio, among.audio)
