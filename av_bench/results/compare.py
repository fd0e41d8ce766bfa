"""Runs metric by metric: paired differences on the clips that all of them scored.

A side is one run, or several runs of one model with different seeds. Values per clip come from the run folders: a
metric's own values, or the pseudo-values of FD, IS and KAD (``av_bench.metrics.paired``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from av_bench.contracts import UsageError
from av_bench.results.identity import incomparable, unstated_pack
from av_bench.results.record import Run
from av_bench.results.shapes import Entry
from av_bench.results.values import ClipValues

if TYPE_CHECKING:
    from av_bench.metrics.paired import PairedEffect

ROUNDING = 1e-4  # relative; other processors and library builds move float32 features by this much (docs/precision.md)
ALIKE = 0.9  # share of clips that both runs must have scored for FD, IS and KAD to be corrected to the common ones

__all__ = ["Difference", "Joint", "alike", "differences", "half_width", "incomparable", "join", "unstated_pack"]


@dataclass(frozen=True)
class Joint:
    """Values of one metric on the clips that all runs of both sides have, ``(seeds, clips)`` each."""

    clips: tuple[str, ...]
    units: tuple[str, ...]
    new: np.ndarray[Any, np.dtype[np.float64]]
    base: np.ndarray[Any, np.dtype[np.float64]]
    whole_set: bool  # pseudo-values of a metric of the whole set


@dataclass(frozen=True)
class Difference:
    """``value`` = new - base in the metric's unit, on the clips that both have, with its interval.

    ``effect`` holds the noise; it is None where no verdict is possible, and ``reason`` then says why.
    """

    metric: str
    base: float
    new: float
    low: float | None
    high: float | None
    higher_is_better: bool
    method: str
    effect: PairedEffect | None = None
    clips: int = 0
    reason: str = ""

    @property
    def value(self) -> float:
        """new - base."""
        return self.new - self.base

    @property
    def worse_by(self) -> float:
        """How much worse the new run is (negative: better)."""
        return -self.value if self.higher_is_better else self.value

    @property
    def negligible(self) -> bool:
        """Whether rounding explains the difference."""
        return abs(self.value) <= ROUNDING * max(1.0, abs(self.base))

    @property
    def verdict(self) -> str:
        """``worse``, ``better``, ``same`` or ``unknown``: whether the interval leaves zero on one side."""
        if self.negligible:
            return "same"
        if self.low is None or self.high is None:
            return "same" if self.value == 0 else "unknown"
        if self.low <= 0 <= self.high:
            return "same"
        return "worse" if self.worse_by > 0 else "better"


def differences(
    new: Run | Sequence[Run], base: Run | Sequence[Run], level: float = 0.95, names: Sequence[str] | None = None
) -> list[Difference]:
    """One Difference per metric that all runs have, in the protocol's order, with two-sided bounds at ``level``.

    Raises UsageError when the runs are not comparable (set, protocol, definition, flavour or networks differ).
    """
    ours, theirs = _side(new), _side(base)
    refuse_incomparable(ours, theirs)
    every = [*ours, *theirs]
    order = [m for m in theirs[0].scores["protocol"]["metrics"] if all(m in run.scores["metrics"] for run in every)]
    wanted = [m for m in order if names is None or m in names]
    values = read_sides(ours, theirs)
    return [difference(m, ours, theirs, values, 1 - level, 2) for m in wanted]


def refuse_incomparable(new: Sequence[Run], base: Sequence[Run]) -> None:
    """UsageError that names every reason why some run cannot be compared with the first baseline."""
    for run in [*new, *base[1:]]:
        problems = incomparable(run, base[0])
        if problems:
            raise UsageError(f"{run.path} and {base[0].path} cannot be compared: {'; '.join(problems)}")


Values = tuple[list[dict[str, ClipValues]], list[dict[str, ClipValues]]]


def read_sides(new: Sequence[Run], base: Sequence[Run]) -> Values:
    """Values per clip of all runs of both sides, read once."""
    return [run.paired_values() for run in new], [run.paired_values() for run in base]


def difference(
    metric: str, new: Sequence[Run], base: Sequence[Run], values: Values, alpha: float, sides: int
) -> Difference:
    """The difference of one metric; bounds err with probability ``alpha`` on both, or on each single side."""
    from av_bench.metrics.paired import paired_effect

    entries = [[run.scores["metrics"][metric] for run in runs] for runs in (new, base)]
    up = bool(entries[1][0]["higher_is_better"])
    ours, theirs = (float(np.mean([e["value"] for e in side])) for side in entries)
    found = join(metric, new, base, values)
    if isinstance(found, str):
        return Difference(metric, theirs, ours, None, None, up, "none", reason=found)
    ours, theirs = float(found.new.mean()), float(found.base.mean())
    if len(set(found.units)) < 2:
        reason = f"{len(found.clips)} clips of one source recording show no spread"
        return Difference(metric, theirs, ours, None, None, up, "none", None, len(found.clips), reason)
    effect = paired_effect(found.new, found.base, found.units)
    reach = effect.reach(alpha, sides)
    value = ours - theirs
    return Difference(metric, theirs, ours, value - reach, value + reach, up, "paired", effect, len(found.clips))


def join(metric: str, new: Sequence[Run], base: Sequence[Run], values: Values) -> Joint | str:
    """Values on the clips that all runs have, or why there are none."""
    sides = []
    for runs, read in zip((new, base), values, strict=True):
        missing = [run.path for run, series in zip(runs, read, strict=True) if metric not in series]
        if missing:
            return (
                f"{missing[0]} has no values of {metric} per clip (made by an older version, or from statistics alone)"
            )
        sides.append([series[metric] for series in read])
    whole_set = not any(metric in run.per_clip() for run in (*new, *base))
    if not whole_set and len({run.scores.get("scored_hash") for run in (*new, *base)}) == 1:
        sides = _completed(sides)
    every = [*sides[0], *sides[1]]
    common = sorted(set.intersection(*(set(series.value) for series in every)))
    if not common:
        return "no clip has a value in all runs"
    most = max(len(series.value) for series in every)
    if whole_set and len(common) < ALIKE * most:
        return (
            f"{len(common)} of {most} clips are scored in all runs, too few to correct {metric} for the others: "
            "score the same clips, or see `av-bench table --common`"
        )
    arrays = [np.array([[series.value[c] for c in common] for series in side], dtype=np.float64) for side in sides]
    return Joint(tuple(common), _units(common, every), arrays[0], arrays[1], whole_set)


def _completed(sides: Sequence[Sequence[ClipValues]]) -> list[list[ClipValues]]:
    """Values of runs that scored the same clips, where a metric is undefined for some clips of some runs.

    To pair only the clips that are defined everywhere would hide what the others say: a model that adds hits to clips
    without onsets loses F1 on exactly those. Each run's mean is over its own defined clips, so each clip gets the
    mean plus n times its effect on it, which is nothing where it is undefined.
    """
    units = {clip: unit for side in sides for series in side for clip, unit in series.unit.items()}

    def completed(series: ClipValues) -> ClipValues:
        if len(series.value) == len(units):
            return series
        mean = float(np.mean(list(series.value.values())))
        weight = len(units) / len(series.value)
        value = {clip: mean + weight * (series.value.get(clip, mean) - mean) for clip in units}
        return ClipValues(value, {**units, **series.unit})

    return [[completed(series) for series in side] for side in sides]


def alike(
    metric: str, a: tuple[Run, dict[str, ClipValues]], b: tuple[Run, dict[str, ClipValues]], alpha: float
) -> bool:
    """Whether the difference of two runs, given with their values, is within noise; False where that is unknown."""
    from av_bench.metrics.paired import paired_effect

    joint = join(metric, [a[0]], [b[0]], ([a[1]], [b[1]]))
    if not isinstance(joint, Joint) or len(set(joint.units)) < 2:
        return False
    return paired_effect(joint.new, joint.base, joint.units).p_value(1.0, 2) > alpha


def half_width(entry: Entry) -> float | None:
    """Half width of a metric's 95 % interval; from the record where a bound of the interval stops early."""
    details = entry["details"]
    if "half_width" in details:
        return float(details["half_width"])
    if "sd" in details:  # runs of version 0.1
        return 1.96 * float(details["sd"])
    interval = entry.get("interval")
    return None if interval is None else (interval[1] - interval[0]) / 2


def _side(runs: Run | Sequence[Run]) -> list[Run]:
    return [runs] if isinstance(runs, Run) else list(runs)


def _units(clips: Sequence[str], every: Sequence[ClipValues]) -> tuple[str, ...]:
    """What moves together in any run: units that share a clip are one."""
    first = [every[0].unit[c] for c in clips]
    if all(series.unit[c] == unit for series in every[1:] for c, unit in zip(clips, first, strict=True)):
        return tuple(first)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for clip in clips:
        roots = [root(f"{i}:{series.unit[clip]}") for i, series in enumerate(every)]
        for other in roots[1:]:
            parent[root(other)] = root(roots[0])
    return tuple(root(f"0:{every[0].unit[c]}") for c in clips)
