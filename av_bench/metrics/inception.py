"""Inception score of the generated side, from the logits of an audio tagger.

Conventions
-----------
* No reference. Rows must be sorted by clip id: the score depends on the order, because rows are shuffled with a fixed
  seed and cut into splits. Another order gives another number of the same precision.
* Dimensionless, from 1 to the number of classes; higher is better.
* Published settings: 10 splits, seed 2020 of numpy's ``RandomState``, mean and population standard deviation.

Source: Salimans et al. (NeurIPS 2016), section 4; MMAudio (arXiv 2412.15322), section 4.1 (PANNs logits, softmax).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr, softmax

from av_bench.contracts import MetricError
from av_bench.metrics.checks import FloatArray, as_floats, require_at_least, require_finite_result, require_rows

METRIC = "inception_score"


def validate(logits: FloatArray, splits: int) -> None:
    """Raise MetricError when the rows cannot fill the splits."""
    require_at_least(splits, 1, METRIC, "splits")
    require_rows(logits, 2, METRIC, "logits", "one row is its own mean, so the score is 1 whatever it holds")
    if len(logits) <= splits:
        raise MetricError(
            f"{METRIC}: {len(logits)} rows for {splits} splits; with at most one row per split the score is 1 "
            f"whatever the logits hold; score at least {splits + 1} clips, or lower splits"
        )


def inception_score(
    logits: ArrayLike, splits: int = 10, seed: int = 2020, *, shuffle: bool = True
) -> tuple[float, float]:
    """Mean and population standard deviation over splits of ``exp(mean KL(p(y|x) || p(y)))``.

    Parameters
    ----------
    logits : ``(n, classes)``
        Rows sorted by clip id; more rows than splits.
    splits : int
        Contiguous parts of the shuffled rows; part i holds rows ``i * n // splits`` to ``(i + 1) * n // splits``.
    seed : int
        Seed of ``numpy.random.RandomState``, whose permutation is part of the published number.
    shuffle : bool
        False keeps the order given.

    Raises
    ------
    MetricError
        Not more rows than splits, wrong shape, values that are not finite.

    Examples
    --------
    >>> mean, std = inception_score([[1000.0, 0.0], [0.0, 1000.0]], splits=1)
    >>> round(mean, 9), std
    (2.0, 0.0)
    """
    array = as_floats(logits, METRIC, "logits", "(clips, classes)", 2)
    validate(array, splits)
    n = len(array)
    order = np.random.RandomState(seed).permutation(n) if shuffle else np.arange(n)
    probabilities = softmax(array, axis=1)[order]
    scores = []
    for i in range(splits):
        part = probabilities[i * n // splits : (i + 1) * n // splits]
        scores.append(float(np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean())))
    require_finite_result(scores, METRIC)
    return float(np.mean(scores)), float(np.std(scores))
