"""Two runs metric by metric: paired differences where per-clip values exist, interval overlap where they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from av_bench.contracts import UsageError
from av_bench.results.record import Run

ROUNDING = 1e-4  # relative; other processors and library builds move float32 features by this much (docs/precision.md)


@dataclass(frozen=True)
class Difference:
    """``value`` = new - base in the metric's unit, with its interval at the level asked for."""

    metric: str
    base: float
    new: float
    low: float | None
    high: float | None
    higher_is_better: bool
    method: str

    @property
    def value(self) -> float:
        """new - base."""
        return self.new - self.base

    @property
    def worse_by(self) -> float:
        """How much worse the new run is (negative: better)."""
        return -self.value if self.higher_is_better else self.value

    @property
    def verdict(self) -> str:
        """``worse``, ``better`` or ``same``: whether the interval of the difference leaves zero on one side."""
        if abs(self.value) <= ROUNDING * max(1.0, abs(self.base)):
            return "same"
        if self.low is None or self.high is None:
            return "same" if self.value == 0 else "unknown"
        if self.low <= 0 <= self.high:
            return "same"
        return "worse" if self.worse_by > 0 else "better"


def differences(new: Run, base: Run, level: float = 0.95, names: Sequence[str] | None = None) -> list[Difference]:
    """One Difference per metric that both runs have, in the protocol's order.

    Raises UsageError when the runs are not comparable (set, protocol, flavour or networks differ).
    """
    problems = incomparable(new, base)
    if problems:
        raise UsageError(f"{new.path} and {base.path} cannot be compared: {'; '.join(problems)}")
    order = [
        m for m in base.scores["protocol"]["metrics"] if m in base.scores["metrics"] and m in new.scores["metrics"]
    ]
    return [_difference(m, new, base, level) for m in order if names is None or m in names]


def incomparable(new: Run, base: Run) -> list[str]:
    """Why two runs cannot be compared; empty when they can."""
    problems = []
    for what, path in (
        ("set", ("set", "name")),
        ("set version", ("set", "version")),
        ("list of clips", ("set", "list_hash")),
        ("protocol", ("protocol", "name")),
        ("protocol version", ("protocol", "version")),
    ):
        ours, theirs = new.scores[path[0]][path[1]], base.scores[path[0]][path[1]]
        if ours != theirs:
            problems.append(f"{what} differs ({ours} against {theirs})")
    if new.scores["flavour"] != base.scores["flavour"]:
        problems.append(f"flavour differs ({new.scores['flavour']} against {base.scores['flavour']})")
    sources = [unstated_pack(run) for run in (new, base)]
    if sources[0] != sources[1]:
        problems.append("the reference packs differ, and do not both say which networks they came from")
    for metric in sorted(set(new.scores["metrics"]) & set(base.scores["metrics"])):
        if new.scores["metrics"][metric]["extractors"] != base.scores["metrics"][metric]["extractors"]:
            problems.append(f"the networks behind {metric} differ (weights, front end or device)")
    return problems


def unstated_pack(run: Run) -> str | None:
    """Digest of a reference pack that does not say which networks made it, None for every other real side."""
    pack = run.scores.get("reference")
    return None if pack is None or pack["networks_stated"] else str(pack["digest"])


def _difference(metric: str, new: Run, base: Run, level: float) -> Difference:
    ours, theirs = new.scores["metrics"][metric], base.scores["metrics"][metric]
    up = bool(ours["higher_is_better"])
    if new.scores["scored_hash"] == base.scores["scored_hash"]:
        paired = _paired(metric, new, base, level)
        if paired is not None:
            low, high = paired
            return Difference(metric, theirs["value"], ours["value"], low, high, up, "paired")
    widths = [half_width(entry) for entry in (ours, theirs)]
    if widths[0] is None or widths[1] is None:
        return Difference(metric, theirs["value"], ours["value"], None, None, up, "none")
    half = _combined_half_width(widths[0], widths[1], level)
    value = ours["value"] - theirs["value"]
    return Difference(metric, theirs["value"], ours["value"], value - half, value + half, up, "intervals")


def _paired(metric: str, new: Run, base: Run, level: float) -> tuple[float, float] | None:
    from av_bench.metrics import intervals

    ours, theirs = new.values(), base.values()
    if metric not in ours or metric not in theirs:
        return None
    joint = ours[metric].rename("new").to_frame().join(theirs[metric].rename("base"), how="outer")
    if (joint["new"].isna() != joint["base"].isna()).any():
        return None  # the metric is defined on other clips in each: their means are not a paired difference
    joint = joint.dropna()
    clusters = [group for _, group in joint.index]
    if len(set(clusters)) < 2:
        return None
    a, b = joint["new"].to_numpy(), joint["base"].to_numpy()
    found = intervals.paired_difference(a, b, clusters, level=level)
    return float(found.low), float(found.high)


def half_width(entry: Mapping[str, Any]) -> float | None:
    """Half width of a metric's 95 % interval; 1.96 sd where it is known (intervals of FD and IS stop at 0 and 1)."""
    if "sd" in entry["details"]:
        return 1.96 * float(entry["details"]["sd"])
    interval = entry.get("interval")
    return None if interval is None else (interval[1] - interval[0]) / 2


def _combined_half_width(first: float, second: float, level: float) -> float:
    """Half width of a difference of independent estimates whose 95 % half widths are given."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2) / norm.ppf(0.975)) * math.hypot(first, second)
