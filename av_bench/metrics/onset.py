"""Onset metrics of one clip: is there an onset when the label says that something is hit?

Conventions
-----------
* Detections and labels are seconds from the start of the clip; audio is mono ``(t,)``; higher is better.
* Accuracy, average precision and F1 belong to one clip; a set reports their plain mean over the clips where they are
  defined. A value that is not defined is None and must be left out, never counted as 0.
* ``flavour="paper"`` reproduces the script behind the published Greatest Hits table, quirks included; numbers of the
  two flavours do not compare.
* ``flavour="strict"`` scores every label within +-0.05 s, one label per detection.

The paper flavour, step by step
-------------------------------
First 8 s at 22,050 Hz; peaks of librosa's onset strength with ``delta=0.3``; the confidence of a peak is the largest
value, within 0.05 s, of the signed waveform scaled to 0..1; weaker peaks closer than 0.05 s to a stronger one go
(some survive: the original edits the list it walks). Labels are taken in file order up to the first at or after 8 s.
Each takes the loudest free detection nearer than 0.3 s; when no detection is free, the later labels are never scored,
so average precision and F1 do not see those misses. Detections left over are false alarms. Average precision is 1 for
a silent clip with labels. Where neither detection nor label exists the original stops with an IndexError; here all
three values are None, in both flavours.

Source: Owens et al. (CVPR 2016) for the data, Du et al. (CVPR 2023, CondFoleyGen) for the metrics, MMAudio
(arXiv 2412.15322), Table 2, for the published settings; Raffel et al. (ISMIR 2014, mir_eval) for strict matching.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_bench.contracts import Flavour, MetricError, UsageError
from av_bench.metrics import onset_detectors
from av_bench.metrics.checks import FloatArray, as_floats, require_at_least
from av_bench.metrics.onset_detectors import PAPER_RATE, PAPER_SECONDS

PAPER_WINDOW = 0.3 * PAPER_RATE  # samples; the detector's threshold used a second time, as seconds
STRICT_WINDOW = 0.05  # seconds, the tolerance of mir_eval and MIREX


class Detections(NamedTuple):
    """Onsets detected in one clip, each array ``(k,)``: seconds, confidence, loudness (waveform at the onset, 0..1)."""

    times: FloatArray
    confidence: FloatArray
    loudness: FloatArray


class OnsetScores(NamedTuple):
    """Scores of one clip, 0 to 1; None where undefined."""

    accuracy: float | None
    average_precision: float | None
    f1: float | None


def validate(detections: FloatArray, confidence: FloatArray, loudness: FloatArray, onsets: FloatArray) -> None:
    """Raise MetricError unless every detection has a confidence and a loudness, and no time is negative."""
    for name, values in (("confidence", confidence), ("loudness", loudness)):
        if values.shape != detections.shape:
            raise MetricError(
                f"match_onsets: {len(detections)} detections but {len(values)} values of {name}; pass one for each"
            )
    for name, times in (("detections", detections), ("onsets", onsets)):
        if times.size and times.min() < 0:
            raise MetricError(f"match_onsets: {name} holds {times.min():g} s; times count from the start of the clip")


def detect_onsets(audio: ArrayLike, sample_rate: int, flavour: Flavour) -> tuple[FloatArray, FloatArray]:
    """Onsets detected in mono ``audio`` ``(t,)``: times in seconds ``(k,)``, ascending, and their confidence ``(k,)``.

    Paper: confidence from 0 to 1 on a scale of the clip's own waveform, first 8 s only. Strict: the rise in dB over
    the bands, which compares between clips; silence and stationary noise give no detections.
    """
    heard = detect_with_loudness(audio, sample_rate, flavour)
    return heard.times, heard.confidence


def detect_with_loudness(audio: ArrayLike, sample_rate: int, flavour: Flavour) -> Detections:
    """As :func:`detect_onsets`, with the loudness by which the paper flavour chooses among detections."""
    _require_flavour(flavour)
    require_at_least(sample_rate, 1, "detect_onsets", "sample_rate")
    signal = as_floats(audio, "detect_onsets", "audio", "(samples,), mono", 1).astype(np.float32)
    if signal.size == 0:
        raise MetricError("detect_onsets: audio is empty; leave the clip out")
    if flavour == "paper":
        return Detections(*onset_detectors.detect_paper(signal, sample_rate))
    times, rise = onset_detectors.detect_strict(signal, sample_rate)
    return Detections(times, rise, rise)


def match_onsets(
    detections: ArrayLike,
    confidence: ArrayLike,
    onsets: ArrayLike,
    flavour: Flavour,
    *,
    loudness: ArrayLike | None = None,
) -> OnsetScores:
    """Scores of detections ``(k,)`` seconds with confidence ``(k,)`` against labels ``(j,)`` seconds.

    Paper: where several detections are in reach of a label the loudest is taken; without ``loudness`` ``(k,)`` (the
    waveform at the onset sample, see :func:`detect_with_loudness`) the most confident is. Detections and labels are
    rounded to samples at 22,050 Hz, and a distance of exactly 0.3 s is a miss.

    Strict: a largest one-to-one matching within 0.05 s that uses the most confident detections;
    accuracy = hits / labels, F1 = 2 TP / (2 TP + FP + FN), average precision ranks by confidence and divides by all
    labels (0 when nothing is detected). Without labels accuracy and average precision are None and F1 is 0.

    Both: without labels and detections all three are None.

    Examples
    --------
    >>> match_onsets([1.0, 2.5], [0.9, 0.8], [1.02, 2.0], "strict")
    OnsetScores(accuracy=0.5, average_precision=0.5, f1=0.5)
    """
    _require_flavour(flavour)
    times, scores, levels = (
        as_floats(values, "match_onsets", name, "(k,)", 1)
        for values, name in (
            (detections, "detections"),
            (confidence, "confidence"),
            (confidence if loudness is None else loudness, "loudness"),
        )
    )
    labels = as_floats(onsets, "match_onsets", "onsets", "(j,)", 1)
    validate(times, scores, levels, labels)
    if flavour == "paper":
        return _match_paper(times, scores, levels, labels)
    return _match_strict(times, scores, labels)


def onset_scores(audio: ArrayLike, sample_rate: int, onsets: ArrayLike, flavour: Flavour) -> OnsetScores:
    """Detect in mono ``audio`` ``(t,)`` and match with the labels ``onsets`` ``(j,)`` seconds, in file order."""
    heard = detect_with_loudness(audio, sample_rate, flavour)
    return match_onsets(heard.times, heard.confidence, onsets, flavour, loudness=heard.loudness)


def _require_flavour(flavour: str) -> None:
    if flavour not in ("paper", "strict"):
        raise UsageError(f"onset: unknown flavour {flavour!r}; choose 'paper' or 'strict'")


# --------------------------------------------------------------------------- paper


def _match_paper(times: FloatArray, confidence: FloatArray, loudness: FloatArray, labels: FloatArray) -> OnsetScores:
    beyond = np.flatnonzero(labels >= PAPER_SECONDS)
    scored = np.rint(labels[: beyond[0] if beyond.size else None] * PAPER_RATE)
    if not len(times) and not len(scored):
        return OnsetScores(None, None, None)
    truth, score, hits = pair_paper(np.rint(times * PAPER_RATE), confidence, loudness, scored)
    accuracy = hits / len(scored) if len(scored) else 0.0
    if not truth.any():
        return OnsetScores(accuracy, 0.0, 0.0)
    from sklearn.metrics import average_precision_score, f1_score

    precision = float(average_precision_score(truth, score))
    return OnsetScores(accuracy, precision, float(f1_score(truth, score > 0, zero_division=0.0)))


def pair_paper(
    detections: FloatArray, confidence: FloatArray, loudness: FloatArray, labels: FloatArray
) -> tuple[NDArray[np.int64], FloatArray, int]:
    """The published pairing, times in samples: truth (1 label, 0 false alarm), score (0 for a miss), number of hits.

    Scores are rounded to float32, the precision of the original's curve.
    """
    free = list(range(len(detections)))
    hits = 0
    truth: list[int] = []
    score: list[float] = []
    for label in labels:
        reach = [place for place, i in enumerate(free) if abs(detections[i] - label) < PAPER_WINDOW]
        truth.append(1)
        if not reach:
            score.append(0.0)
            continue
        # The original looks loudness up in the full list by the place in the list of free detections.
        taken = reach[int(np.argmax([loudness[place] for place in reach]))]
        score.append(float(confidence[free.pop(taken)]))
        hits += 1
        if not free:
            break
    truth += [0] * len(free)
    score += [float(confidence[i]) for i in free]
    return np.array(truth, dtype=np.int64), np.array(score, dtype=np.float32).astype(np.float64), hits


# --------------------------------------------------------------------------- strict


def _match_strict(times: FloatArray, confidence: FloatArray, labels: FloatArray) -> OnsetScores:
    if not len(labels):
        return OnsetScores(None, None, 0.0 if len(times) else None)
    if not len(times):
        return OnsetScores(0.0, 0.0, 0.0)
    matched = _matched_detections(times, confidence, labels)
    hits = int(matched.sum())
    f1 = 2.0 * hits / (len(times) + len(labels))
    return OnsetScores(hits / len(labels), _average_precision(matched, confidence, len(labels)), f1)


def _matched_detections(times: FloatArray, confidence: FloatArray, labels: FloatArray) -> NDArray[np.bool_]:
    """Which detections a largest one-to-one matching uses; of the largest ones the most confident."""
    from scipy.optimize import linear_sum_assignment

    near = np.abs(times[:, None] - labels[None, :]) <= STRICT_WINDOW + 1e-9  # 1e-9: decimal times are not exact
    rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable") + 1.0
    # Detections that can be matched together form a matroid, so the heaviest matching is also a largest one.
    weight = np.where(near, rank[:, None], 0.0)
    rows, columns = linear_sum_assignment(weight, maximize=True)
    matched = np.zeros(len(times), dtype=np.bool_)
    matched[rows] = near[rows, columns]
    return matched


def _average_precision(matched: NDArray[np.bool_], confidence: FloatArray, labels: int) -> float:
    """Sum over distinct confidences of precision times gained recall; recall counts every label."""
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(matched[order])
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))  # equal confidence enters together
    precision = hits[last] / (last + 1)
    gained = np.diff(hits[last], prepend=0)
    return float((precision * gained).sum() / labels)
