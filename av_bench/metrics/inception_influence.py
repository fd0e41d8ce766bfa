"""What every clip does to the inception score, and the score's standard deviation.

The score is a mean over splits. Rows of half the set fill each split half as much, and the score of a split cannot
exceed its number of rows, so scores of halves are pressed together: at 64 clips in 10 splits their spread is 0.3 to 0.6
of the true one. So the splits stay as they are here:

* With at least :data:`FULL` rows per split every clip is left out of its own split once (jackknife; Efron & Stein 1981
  show that it is not too small on average, for one row less).
* With fewer rows leaving one out presses the score together as well. Splits share no clip, so the spread *between* the
  splits is used instead: unbiased whatever a split holds, with few degrees of freedom.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr, softmax, xlogy

from av_bench.metrics.checks import FloatArray, as_floats, require_finite_result
from av_bench.metrics.inception import METRIC, validate

FULL = 8  # rows per split from which the jackknife holds (docs/statistics.md)


class InceptionEffects(NamedTuple):
    """Score and population standard deviation over splits, the effect of each row, and the split of each row.

    ``effects`` ``(n,)`` sum to 0. ``by_split`` says that rows of one split move together: the effects are then the
    splits' own deviations, shared equally by their rows, and the split is the unit of resampling.
    """

    value: float
    std: float
    effects: FloatArray
    split: NDArray[np.int64]
    by_split: bool


def inception_effects(logits: ArrayLike, splits: int = 10, seed: int = 2020) -> InceptionEffects:
    """:func:`av_bench.metrics.inception_score` of ``(n, classes)`` and the effect of every row.

    Raises MetricError as the score does.
    """
    array = as_floats(logits, METRIC, "logits", "(clips, classes)", 2)
    validate(array, splits)
    n = len(array)
    order = np.random.RandomState(seed).permutation(n)
    probabilities = softmax(array, axis=1)
    split = np.empty(n, dtype=np.int64)
    effects, scores = np.zeros(n), np.empty(splits)
    for i in range(splits):
        rows = order[i * n // splits : (i + 1) * n // splits]
        split[rows] = i
        part = probabilities[rows]
        scores[i] = np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean())
        if len(rows) > 1:
            without = _without_each(part)
            effects[rows] = (without.mean() - without) * np.sqrt((len(rows) - 1) / len(rows)) / splits
    require_finite_result(scores, METRIC)
    by_split = n < FULL * splits and splits > 1
    if by_split:
        effects = (scores - scores.mean())[split] / (splits * np.bincount(split)[split])
    return InceptionEffects(float(scores.mean()), float(scores.std()), effects, split, by_split)


def _without_each(part: FloatArray) -> FloatArray:
    """Score of the rows ``(m, classes)`` of a split without each of them in turn, ``(m,)``."""
    entropy = -xlogy(part, part).sum(axis=1)
    rest = np.maximum(part.sum(axis=0) - part, 0.0) / (len(part) - 1)
    scores: FloatArray = np.exp(-xlogy(rest, rest).sum(axis=1) - (entropy.sum() - entropy) / (len(part) - 1))
    return scores
