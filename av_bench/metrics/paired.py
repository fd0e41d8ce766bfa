"""Two generators, or two versions of one, on the same clips: the difference, its noise, and the verdict.

Every metric enters as one value per clip whose mean is the metric: the clip's own value, or for FD, IS and KAD its
pseudo-value (the metric plus n times what the clip does to it). A difference is then a mean of paired differences.

Conventions
-----------
* ``new - base``, in the metric's unit. Clips of one unit (a source recording; for IS of few clips a split) move
  together.
* Two kinds of noise. What differs from clip to clip, the clips' own randomness under other seeds included, shows in the
  differences of the units. What all clips of one seed share (a common starting noise, one more training) shows only
  between runs of several seeds: the variance of the runs' values beyond what independent clips explain.
* Bounds use Student's t with ``units - 1`` degrees of freedom, or with Satterthwaite's (1946) where seeds add noise.
  When both sides are one model the differences are symmetric around 0, for which the t test keeps its level at any
  distribution of practical interest (Efron 1969).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics.checks import FloatArray, as_floats
from av_bench.metrics.intervals import Labels, validate

METRIC = "paired_effect"


class PairedEffect(NamedTuple):
    """Difference with its variances: of clips, and of what all clips of a seed share (per difference)."""

    difference: float
    clip_variance: float
    seed_variance: float
    degrees: float
    units: int
    clips: int
    seeds: tuple[int, int]

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(self.clip_variance + self.seed_variance)

    def reach(self, alpha: float, sides: int) -> float:
        """How far the bounds lie from the difference when both, or either one, err with probability ``alpha``."""
        if not 0.0 < alpha < 1.0 or sides not in (1, 2):
            raise UsageError(f"{METRIC}: alpha is {alpha}, sides {sides}; alpha lies between 0 and 1, sides is 1 or 2")
        return float(stats.t.isf(alpha / sides, self.degrees)) * self.error

    def p_value(self, worse: float, sides: int) -> float:
        """Probability of a difference as far in the direction ``worse`` (+1 or -1), or in either one, by chance."""
        if self.error == 0.0:
            return 1.0 if self.difference == 0 or (sides == 1 and self.difference * worse < 0) else 0.0
        ratio = self.difference / self.error
        tail = stats.t.sf(abs(ratio) if sides == 2 else ratio * worse, self.degrees)
        return float(min(1.0, sides * tail))

    def clips_needed(self, alpha: float, sides: int, distance: float) -> int | None:
        """Clips at which the bounds would reach no further than ``distance``; None when more clips cannot help."""
        if distance <= 0.0:
            return None
        room = (distance / float(stats.norm.isf(alpha / sides))) ** 2 - self.seed_variance
        return None if room <= 0.0 else max(self.clips, math.ceil(self.clips * self.clip_variance / room))


def paired_effect(new: ArrayLike, base: ArrayLike, units: Labels) -> PairedEffect:
    """Compare values ``(seeds, clips)`` of two sides on the same clips; ``units`` names the unit of every clip.

    Raises MetricError for other shapes, values that are not finite, other clips, and fewer than two units.
    """
    ours, theirs, names, member = _checked(new, base, units)
    n, k = ours.shape[1], len(names)
    each = ours.mean(axis=0) - theirs.mean(axis=0)
    difference = float(each.mean())
    parts = np.bincount(member, weights=each - difference) / n
    clip_variance = k / (k - 1) * float(np.square(parts).sum())
    runs = 1.0 / len(ours) + 1.0 / len(theirs)
    shared, between, seed_degrees = _shared_by_seed([ours, theirs], member, k)
    seed_variance = runs * shared
    degrees = float(k - 1)
    if seed_variance > 0.0:
        uncertain = clip_variance**2 / (k - 1) + (runs * between) ** 2 / seed_degrees
        degrees = (clip_variance + seed_variance) ** 2 / uncertain
    return PairedEffect(difference, clip_variance, seed_variance, degrees, k, n, (len(ours), len(theirs)))


def unit_differences(new: ArrayLike, base: ArrayLike, units: Labels) -> tuple[list[str], FloatArray]:
    """Names of the units and what each adds to the difference, ``(k,)``: their sum is the difference."""
    ours, theirs, names, member = _checked(new, base, units)
    each = ours.mean(axis=0) - theirs.mean(axis=0)
    sums = np.zeros(len(names))
    np.add.at(sums, member, each / len(each))
    return [str(name) for name in names], sums


def _checked(
    new: ArrayLike, base: ArrayLike, units: Labels
) -> tuple[FloatArray, FloatArray, NDArray[Any], NDArray[np.int64]]:
    """Both sides, the units' names, and the unit of every clip."""
    ours = as_floats(new, METRIC, "new", "(seeds, clips)", 2)
    theirs = as_floats(base, METRIC, "base", "(seeds, clips)", 2)
    if ours.shape[1] != theirs.shape[1] or not len(ours) or not len(theirs):
        raise MetricError(f"{METRIC}: new is {ours.shape}, base {theirs.shape}; both must score the same clips")
    names, member = np.unique(validate(units, ours.shape[1], METRIC, "units"), return_inverse=True)
    return ours, theirs, names, member


def _shared_by_seed(sides: list[FloatArray], member: NDArray[np.int64], k: int) -> tuple[float, float, int]:
    """Variance between seeds that independent units do not explain, all of it, and its degrees of freedom."""
    between, within, degrees = 0.0, 0.0, 0
    for values in sides:
        runs, n = values.shape
        if runs < 2:
            continue
        parts = np.stack([np.bincount(member, weights=row, minlength=k) / n for row in values])
        between += (runs - 1) * float(values.mean(axis=1).var(ddof=1))
        within += (runs - 1) * float(parts.var(axis=0, ddof=1).sum())
        degrees += runs - 1
    if not degrees:
        return 0.0, 0.0, 0
    # What a seed shares is in every unit too, in proportion to its clips.
    apart = 1.0 - float(np.square(np.bincount(member, minlength=k) / len(member)).sum())
    return max(0.0, (between - within) / (degrees * apart)), between / degrees, degrees


def sign_test(values: ArrayLike) -> tuple[int, int, float]:
    """How many of the paired differences ``(n,)`` are above and below 0, and the two-sided p of the sign test.

    Ties count for neither side (Dixon & Mood 1946).
    """
    array = as_floats(values, "sign_test", "values", "(n,)", 1)
    above, below = int((array > 0).sum()), int((array < 0).sum())
    p = 1.0 if above + below == 0 else float(stats.binomtest(above, above + below).pvalue)
    return above, below, p
