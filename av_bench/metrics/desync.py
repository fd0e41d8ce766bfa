"""DeSync: how far a sync network believes audio and video to be apart.

Conventions
-----------
* Inputs are the logits of a 21-class offset classifier (Synchformer), ``(clips, crops, 21)``. Class i is the
  offset ``-2 + 0.2 i`` seconds. Eight-second clips have two crops, the first and the last 4.8 s.
* Seconds; lower is better. The published number is the plain mean over crops and clips of ``|offset|`` of the most
  likely class, so it moves in steps of 0.2 s per crop and cannot exceed 2 s.
* A constant class 10 scores 0 and a uniformly random class 1.048 s, so a network that ignores its input can look
  good: read the histogram and the expected offset beside the mean.

Source: Iashin et al. (ICASSP 2024, Synchformer); MMAudio (arXiv 2412.15322), section 4.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from av_bench.contracts import MetricError
from av_bench.metrics.checks import FloatArray, as_floats, require_rows

METRIC = "desync"
CLASSES = 21


def offset_grid() -> FloatArray:
    """Offsets in seconds of the classes: ``(21,)`` from -2 to 2 in steps of 0.2."""
    return np.linspace(-2.0, 2.0, CLASSES)


def validate(logits: FloatArray) -> None:
    """Raise MetricError unless there is a clip and every crop has 21 logits."""
    require_rows(logits, 1, METRIC, "logits", "nothing to score")
    if logits.shape[2] != CLASSES:
        raise MetricError(
            f"{METRIC}: logits has {logits.shape[2]} classes, expected {CLASSES}; "
            "pass (clips, crops, 21) logits of the sync head"
        )


def desync(logits: ArrayLike) -> FloatArray:
    """Mean over crops of ``|offset|`` of the most likely class: ``(n,)`` seconds for logits ``(n, crops, 21)``.

    Equal logits resolve to the lowest class, as in the published tool.
    """
    values: FloatArray = np.abs(signed_offsets(logits)).mean(axis=1)
    return values


def signed_offsets(logits: ArrayLike) -> FloatArray:
    """Offset of the most likely class of every crop, with its sign: ``(n, crops)`` seconds."""
    offsets: FloatArray = offset_grid()[_checked(logits).argmax(axis=2)]
    return offsets


def expected_offset(logits: ArrayLike) -> FloatArray:
    """Mean over crops of the expectation of ``|offset|`` under the softmax: ``(n,)`` seconds.

    Unlike :func:`desync` it is smooth, and an undecided network cannot score 0.
    """
    expected = (softmax(_checked(logits), axis=2) * np.abs(offset_grid())).sum(axis=2)
    values: FloatArray = expected.mean(axis=1)
    return values


def offset_histogram(logits: ArrayLike) -> NDArray[np.int64]:
    """How many crops chose each class: ``(21,)`` counts, in the order of :func:`offset_grid`."""
    counts = np.bincount(_checked(logits).argmax(axis=2).ravel(), minlength=CLASSES)
    return counts.astype(np.int64)


def _checked(logits: ArrayLike) -> FloatArray:
    array = as_floats(logits, METRIC, "logits", "(clips, crops, 21)", 3)
    validate(array)
    return array
