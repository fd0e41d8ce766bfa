"""Onset metrics: the published script step by step, and the strict detector on impacts whose times are known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics import detect_onsets, detect_with_loudness, match_onsets, onset_scores
from av_bench.metrics.onset import pair_paper
from av_bench.metrics.onset_detectors import thin_paper, window_maxima
from tests.metrics.tester import ONSET_CASES, check_value, need

RATE = 22050
TOY = [
    "perfect3",
    "no_pred",
    "no_gt",
    "neither",
    "one_pred_ten_gt",
    "one_pred_late",
    "window_edge_in",
    "window_edge_out",
]


def toy(name: str) -> dict[str, Any]:
    return json.loads(need(ONSET_CASES).read_text())["toy_cases"][name]


def toy_curve(case: dict[str, Any]) -> np.ndarray:
    curve = np.full(8 * RATE, case["base"], dtype=np.float32)
    for onset, amp in zip(case["onsets_samples"], case["amp"], strict=True):
        near = slice(onset - 200, onset + 201)
        curve[near] = np.maximum(curve[near], np.float32(0.9 * amp))
        curve[onset] = amp
    return curve


def impacts(seed: int, floor_db: float = -50.0, range_db: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """8 s of damped modes at random times, levels over ``range_db``, above stationary noise at ``floor_db``."""
    rng = np.random.default_rng(seed)
    times: list[float] = []
    while len(times) < 10:
        time = rng.uniform(0.1, 7.8)
        if all(abs(time - other) > 0.15 for other in times):
            times.append(time)
    wave = np.zeros(8 * RATE)
    for time in times:
        start = int(np.ceil(time * RATE))
        stop = min(start + 2 * RATE, len(wave))
        since = np.arange(start, stop) / RATE - time
        modes = np.exp(rng.uniform(np.log(150), np.log(8000), size=6))
        decay = rng.uniform(0.03, 0.3, size=6) * np.sqrt(modes.min() / modes)
        hit = (
            rng.uniform(0.3, 1, 6)[:, None]
            * np.exp(-since / decay[:, None])
            * np.sin(2 * np.pi * modes[:, None] * since)
        ).sum(axis=0)
        wave[start:stop] += hit / np.abs(hit).max() * 10 ** (rng.uniform(-range_db, 0) / 20)
    wave /= np.abs(wave).max()
    return wave + 10 ** (floor_db / 20) * rng.normal(size=len(wave)), np.sort(times)


# --------------------------------------------------------------------------- paper: matching


@pytest.mark.parametrize("from_curve", [False, True], ids=["amps", "curve"])
@pytest.mark.parametrize("name", TOY)
def test_shared_toy_cases(name: str, from_curve: bool) -> None:
    case = toy(name)
    expected = case["result"]
    onsets, confidence = np.array(case["onsets_samples"], dtype=np.int64), np.array(case["amp"])
    if from_curve:
        onsets, confidence = thin_paper(onsets, window_maxima(toy_curve(case), onsets))
    assert onsets.tolist() == expected["nms"]
    labels = np.array(case["gt_times"], dtype=float)
    scores = match_onsets(onsets / RATE, confidence, labels, "paper")
    if name == "neither":
        assert scores == (None, None, None)
        return
    check_value(scores[:2], (expected["acc"], expected["ap"]), rel=1e-7)
    check_value(scores.f1, expected["f1"], rel=0, tol=5e-5)
    truth, score, _ = pair_paper(onsets.astype(float), confidence, confidence, np.rint(labels * RATE))
    assert truth.tolist() == expected["y_gt"]
    check_value(score, expected["y_pred"], rel=0, tol=1e-7)


@pytest.mark.parametrize(
    ("detections", "confidence", "labels", "expected"),
    [
        ([1.0, 3.0], [0.9, 0.8], [1.0, 3.0], (1.0, 1.0, 1.0)),
        ([1.0, 3.0], [0.8, 0.9], [1.0], (1.0, 0.5, 2 / 3)),  # the false alarm is the more confident
        ([], [], [1.0, 2.0], (0.0, 1.0, 0.0)),  # silence has perfect average precision
        ([1.0], [0.5], [], (0.0, 0.0, 0.0)),
        ([1.0], [0.5], [8.0, 1.0], (0.0, 0.0, 0.0)),  # reading labels stops at the first one from 8 s on
        ([1.0], [0.5], [1.0, 9.0, 2.0], (1.0, 1.0, 1.0)),
        ([], [], [9.0], (None, None, None)),
        ([1.0], [0.5], [1.0, 2.0, 3.0], (1 / 3, 1.0, 1.0)),  # early stop: the misses after the last hit do not count
        ([3.0], [0.5], [1.0, 2.0, 3.0], (1 / 3, 1.0, 0.5)),  # the same hit, last: they count in F1
        ([1.0], [0.5], [1.3], (0.0, 0.5, 0.0)),  # exactly 0.3 s is a miss
        ([1.0], [0.5], [1.2999], (1.0, 1.0, 1.0)),
        ([2.5], [0.5], [2.2], (0.0, 0.5, 0.0)),
        ([1.0, 1.2], [0.4, 0.8], [1.1], (1.0, 1.0, 2 / 3)),  # the louder is taken
    ],
)
def test_paper_closed_forms(detections: Any, confidence: Any, labels: Any, expected: tuple[Any, ...]) -> None:
    scores = match_onsets(detections, confidence, labels, "paper")
    if expected[0] is None:
        assert scores == expected
    else:
        check_value(scores, expected, tol=1e-9)


def test_paper_index_defect() -> None:
    # The first label takes the detection at 1.0. For the second, the free detections 3.0 (0.7) and 3.2 (0.8) are looked
    # up at places 0 and 1 of the full list: 0.9 and 0.7, so the quieter 3.0 is taken and 0.8 becomes a false alarm.
    # Ranking 0.9 hit, 0.8 false, 0.7 hit: (1 + 2/3) / 2.
    scores = match_onsets([1.0, 3.0, 3.2], [0.9, 0.7, 0.8], [1.0, 3.1], "paper")
    check_value(scores, (1.0, 5 / 6, 0.8), tol=1e-9)


def test_paper_chooses_by_loudness_and_scores_by_confidence() -> None:
    chosen = match_onsets([1.0, 1.2, 5.0], [0.9, 0.5, 0.6], [1.1], "paper", loudness=[0.1, 0.2, 0.0])
    check_value(chosen, (1.0, 1 / 3, 0.5), tol=1e-7)


def test_paper_labels_count_in_file_order() -> None:
    # Going 1.2 first, it takes the only detection in reach of both and the scoring ends.
    check_value(match_onsets([1.1], [0.5], [1.2, 1.0], "paper"), (0.5, 1.0, 1.0))


# --------------------------------------------------------------------------- paper: detection


def test_thinning_skips_the_element_after_a_removed_one() -> None:
    # Four onsets 512 apart, loudest first: 0 removes 512, 1024 is skipped, 1536 is too far; then 1024 removes 1536.
    kept, confidence = thin_paper(np.array([0, 512, 1024, 1536]), np.array([0.9, 0.8, 0.7, 0.6]))
    assert kept.tolist() == [0, 1024]
    check_value(confidence, [0.9, 0.7])


def test_thinning_reach() -> None:
    assert thin_paper(np.array([0, 1102]), np.array([0.5, 0.9]))[0].tolist() == [1102]
    assert thin_paper(np.array([0, 1103]), np.array([0.5, 0.9]))[0].tolist() == [0, 1103]


def test_confidence_window_is_half_open() -> None:
    curve = np.zeros(6000)
    curve[[2000 - 1102, 4000 + 1102]] = 1.0
    check_value(window_maxima(curve, np.array([2000, 4000])), [1.0, 0.0])


def test_paper_detection_of_clicks() -> None:
    wave = np.zeros(9 * RATE)
    for second in (1, 3, 5):
        wave[second * RATE : second * RATE + 200] = np.hanning(200) * second / 5
    wave[int(8.5 * RATE)] = 1.0  # beyond the 8 s that are heard
    times, confidence = detect_onsets(wave, RATE, "paper")
    assert np.abs(times - [1, 3, 5]).max() < 0.05
    assert (np.rint(times * RATE) % 512 == 0).all()
    check_value(confidence, np.array([0.2, 0.6, 1.0]), rel=2e-3)
    check_value(onset_scores(wave, RATE, [1.0, 3.0, 5.0], "paper"), (1.0, 1.0, 1.0))


def test_both_steps_use_the_loudness_of_the_waveform() -> None:
    wave, labels = impacts(7)
    heard = detect_with_loudness(wave, RATE, "paper")
    both = match_onsets(heard.times, heard.confidence, labels, "paper", loudness=heard.loudness)
    check_value(onset_scores(wave, RATE, labels, "paper"), both)
    assert (heard.loudness <= heard.confidence).all()
    assert (heard.loudness < heard.confidence).any()


# --------------------------------------------------------------------------- strict: matching


@pytest.mark.parametrize(
    ("detections", "confidence", "labels", "expected"),
    [
        ([1.0, 3.0], [9.0, 8.0], [1.0, 3.0], (1.0, 1.0, 1.0)),
        ([], [], [1.0, 2.0], (0.0, 0.0, 0.0)),
        ([1.0], [0.5], [], (None, None, 0.0)),
        ([], [], [], (None, None, None)),
        ([1.0], [0.5], [1.0, 2.0, 3.0, 9.0], (0.25, 0.25, 0.4)),  # every label counts, beyond 8 s too
        ([1.05, 3.0], [1.0, 0.5], [1.0, 3.0501], (0.5, 0.5, 0.5)),  # 0.05 s is inside, more is not
        ([1.0, 1.04], [0.2, 0.9], [1.02], (1.0, 1.0, 2 / 3)),  # the more confident of two
        ([1.04, 1.08], [0.9, 0.2], [1.0, 1.05], (1.0, 1.0, 1.0)),  # the largest matching, not the nearest pairs
        ([1.0, 2.0, 3.0], [0.9, 0.8, 0.7], [1.0, 3.0], (1.0, 5 / 6, 0.8)),
        ([1.0, 2.0], [0.5, 0.5], [1.0], (1.0, 0.5, 2 / 3)),  # equal confidence enters together
    ],
)
def test_strict_closed_forms(detections: Any, confidence: Any, labels: Any, expected: tuple[Any, ...]) -> None:
    scores = match_onsets(detections, confidence, labels, "strict")
    assert [value is None for value in scores] == [value is None for value in expected]
    for value, wanted in zip(scores, expected, strict=True):
        if wanted is not None:
            check_value(value, wanted)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), k=st.integers(1, 12), j=st.integers(1, 12))
def test_strict_against_brute_force(seed: int, k: int, j: int) -> None:
    rng = np.random.default_rng(seed)
    detections, labels = np.sort(rng.uniform(0, 0.5, k)), np.sort(rng.uniform(0, 0.5, j))
    # With one window for all, taking the earliest pair in reach again and again gives a largest matching.
    hits = d = label = 0
    while d < k and label < j:
        gap = detections[d] - labels[label]
        if abs(gap) <= 0.05:
            hits, d, label = hits + 1, d + 1, label + 1
        elif gap < 0:
            d += 1
        else:
            label += 1
    scores = match_onsets(detections, rng.uniform(size=k), labels, "strict")
    check_value((scores.accuracy, scores.f1), (hits / j, 2 * hits / (k + j)))


def test_strict_does_not_depend_on_order() -> None:
    rng = np.random.default_rng(2)
    labels = rng.uniform(0, 8, 7)
    times = np.concatenate([labels[:4] + 0.01, rng.uniform(0, 8, 5)])
    confidence, order, other = rng.uniform(0.1, 1, 9), rng.permutation(9), rng.permutation(7)
    expected = match_onsets(times, confidence, labels, "strict")
    assert 0.0 < expected.accuracy < 1.0  # type: ignore[operator]
    check_value(match_onsets(times[order], confidence[order], labels[other], "strict"), expected)


# --------------------------------------------------------------------------- strict: detection


def test_strict_finds_impacts() -> None:
    scores = []
    for seed in range(12):
        wave, labels = impacts(seed)
        scores.append(onset_scores(wave, RATE, labels, "strict"))
    assert np.mean([score.f1 for score in scores]) > 0.97
    assert np.mean([score.average_precision for score in scores]) > 0.97


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("time", [0.1, 1.0, 2.3456])
def test_strict_times_a_click(rate: int, time: float) -> None:
    wave = 1e-4 * np.random.default_rng(0).normal(size=4 * rate)
    wave[round(time * rate)] = 0.5
    times, _ = detect_onsets(wave, rate, "strict")
    assert len(times) == 1
    assert abs(times[0] - time) < 0.005


@pytest.mark.parametrize("gain", [1e-3, 0.1, 30.0])
def test_strict_does_not_depend_on_gain(gain: float) -> None:
    wave, _ = impacts(3)
    expected, rise = detect_onsets(wave, RATE, "strict")
    times, scaled = detect_onsets(gain * wave, RATE, "strict")
    check_value(times, expected, rel=0, tol=1e-3)
    check_value(scaled, rise, rel=1e-4)


def noise(kind: str, seed: int) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=8 * RATE)
    time = np.arange(8 * RATE) / RATE
    if kind == "pink":
        return np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(1, len(white) // 2 + 2)))
    return {
        "white": white,
        "faint": 1e-5 * white,
        "silence": np.zeros(8 * RATE),
        "constant": np.full(8 * RATE, 0.3),
        "tone": np.sin(2 * np.pi * 440 * time) + 1e-3 * white,
        "chord": np.sin(2 * np.pi * 220 * time) + np.sin(2 * np.pi * 3000 * time),
    }[kind]


@pytest.mark.parametrize("kind", ["white", "pink", "faint", "silence", "constant", "tone", "chord"])
def test_strict_hears_nothing_in_what_does_not_change(kind: str) -> None:
    for seed in range(3):
        times, confidence = detect_onsets(noise(kind, seed), RATE, "strict")
        assert times.shape == confidence.shape == (0,)


def test_strict_short_audio() -> None:
    assert len(detect_onsets(np.ones(1), RATE, "strict")[0]) == 0
    assert len(detect_onsets(np.ones(700), RATE, "strict")[0]) == 0


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("flavour", ["paper", "strict"])
@pytest.mark.parametrize(
    ("audio", "match"),
    [
        (np.zeros(0), "audio is empty"),
        (np.zeros((2, 100)), r"shape \(2, 100\), expected \(samples,\), mono"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
    ],
)
def test_refuses_bad_audio(flavour: Any, audio: np.ndarray, match: str) -> None:
    with pytest.raises(MetricError, match=match):
        detect_onsets(audio, RATE, flavour)


def test_refuses_bad_lists() -> None:
    with pytest.raises(MetricError, match="2 detections but 1 values of confidence"):
        match_onsets([1.0, 2.0], [0.5], [1.0], "strict")
    with pytest.raises(MetricError, match="1 detections but 2 values of loudness"):
        match_onsets([1.0], [0.5], [1.0], "paper", loudness=[0.1, 0.2])
    with pytest.raises(MetricError, match="onsets holds -1 s"):
        match_onsets([1.0], [0.5], [-1.0], "paper")
    with pytest.raises(MetricError, match="onsets holds 1 values that are NaN"):
        match_onsets([1.0], [0.5], [np.nan], "strict")
    with pytest.raises(UsageError, match="unknown flavour 'lax'"):
        match_onsets([1.0], [0.5], [1.0], "lax")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown flavour"):
        detect_onsets(np.ones(10), RATE, "lax")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="sample_rate is 0"):
        detect_onsets(np.ones(10), 0, "strict")
