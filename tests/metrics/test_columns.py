"""Metrics of a protocol: what they say beside their value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from av_bench.contracts import Clip, Metric, MetricError, MetricInputs, Score, UsageError
from av_bench.metrics import GaussianStatistics, frechet_distance
from av_bench.metrics.columns import Cosine, DeSync, Frechet, InceptionScore, OnsetAccuracy, OnsetF1


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


# --------------------------------------------------------------------------- per-clip metrics


def of_arrays(metric: Metric, clips: tuple[Clip, ...], *arrays: Any, **more: Any) -> Score:
    """The metric on one array per need, a row per clip."""
    given = {need: [np.asarray(row) for row in array] for need, array in zip(metric.needs, arrays, strict=True)}
    return metric.compute(MetricInputs(clips, given, **more))


TWO = (Clip("a", onsets=(1.0,)), Clip("b", onsets=()))


def test_cosine_is_scaled_and_named_by_its_sides() -> None:
    metric = Cosine("IB", ("x", "embedding", "video"), ("y", "embedding", "generated"), scale=100.0)
    assert metric.clip_fields == ("video",)
    score = of_arrays(metric, TWO, [[1.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]])
    assert score.per_clip == pytest.approx({"a": 100.0, "b": 100 / 2**0.5})
    assert score.value == pytest.approx(50 + 50 / 2**0.5)
    with pytest.raises(UsageError, match=r"metric IB: \[extractor, output, side\] is expected"):
        Cosine("IB", ("x", "embedding", "picture"), ("y", "embedding", "generated"))


def test_a_clip_whose_score_is_undefined_is_left_out_and_said() -> None:
    """Silence where nothing is labelled: there is nothing to hit, so F1 is not a number, and certainly not 0."""
    metric = OnsetF1("F1")
    score = of_arrays(metric, TWO, [[(1.0, 1.0, 1.0)], np.zeros((0, 3))])
    assert (score.value, score.n, score.per_clip) == (1.0, 1, {"a": 1.0})
    assert score.notes == ("undefined for 1 of 2 clips",)
    assert score.interval is None  # one recording shows no spread
    with pytest.raises(MetricError, match="F1 is undefined for each of the 1 clips"):
        of_arrays(metric, TWO[1:], [np.zeros((0, 3))])


@pytest.mark.parametrize(("flavour", "value", "notes"), [("strict", 1.0, 1), ("paper", 1.0, 0)])
def test_labels_after_the_window_are_no_misses(flavour: Any, value: float, notes: int) -> None:
    metric, clips = OnsetAccuracy("Acc"), (Clip("a", onsets=(1.0, 8.0)),)
    score = of_arrays(metric, clips, [[(1.0, 1.0, 1.0)]], flavour=flavour, seconds=8.0)
    assert score.value == value
    assert len(score.notes) == notes
    early = of_arrays(metric, clips, [[(1.0, 1.0, 1.0)]], flavour="strict", seconds=9.0)
    assert (early.value, early.notes) == (0.5, ())


def test_desync_tells_its_histogram_and_the_expected_offset() -> None:
    logits = np.full((2, 2, 21), -50.0)
    logits[0, :, 10], logits[1, 0, 12], logits[1, 1, 8] = 50.0, 50.0, 50.0  # 0 s; +0.4 s and -0.4 s
    score = of_arrays(DeSync("DeSync", "x"), TWO, logits)
    assert score.per_clip == pytest.approx({"a": 0.0, "b": 0.4})
    assert score.details["signed_histogram"] == {"-0.4": 1, "0.0": 2, "0.4": 1}
    assert score.details["expected"] == pytest.approx(0.2)


# --------------------------------------------------------------------------- metrics of a set


def test_clips_of_one_recording_are_one_cluster_of_is() -> None:
    rng = np.random.default_rng(0)
    metric = InceptionScore("IS", "x", splits=2)
    logits = rng.normal(size=(16, 3))
    for recordings, given in ((1, False), (16, True)):
        clips = tuple(Clip(f"{i:02d}", group=str(i % recordings)) for i in range(16))
        score = of_arrays(metric, clips, logits)
        assert (score.interval is not None) == given
        assert score.details["splits"] == 2


def test_rows_of_one_clip_are_one_cluster_of_fd() -> None:
    """Patches of a clip come from one recording: three clips show too little spread, however many rows they have."""
    rng = np.random.default_rng(0)
    metric = Frechet("FD", "x")
    for n, given in ((3, False), (4, True)):
        clips = tuple(Clip(str(i)) for i in range(n))
        score = of_arrays(metric, clips, rng.normal(size=(n, 8, 2)), rng.normal(size=(n, 8, 2)))
        assert (score.interval is not None) == given
        assert (score.n, score.details["rows"], score.details["dimensions"]) == (n, 8 * n, 2)


def test_fd_against_statistics_is_fd_against_the_rows_and_says_what_it_lacks() -> None:
    rng = np.random.default_rng(0)
    metric = Frechet("FD", "x")
    reference, generated = rng.normal(size=(30, 2)), rng.normal(1.0, size=(20, 2))
    clips = tuple(Clip(f"{i:02d}") for i in range(20))
    given = {metric.reference: GaussianStatistics.from_rows(reference)}
    score = metric.compute(MetricInputs(clips, {metric.generated: list(generated)}, statistics=given))
    assert score.value == pytest.approx(frechet_distance(reference, generated), rel=1e-9)
    assert score.interval is None
    assert any("no interval" in note for note in score.notes)
    assert any("differ in rows (30 and 20)" in note for note in score.notes)
    assert score.details["reference_rows"] == 30
