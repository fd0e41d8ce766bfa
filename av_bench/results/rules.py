"""What a gate tolerates: the rules file, checked strictly.

    alpha: 0.05            # how often an unchanged model may fail the whole gate
    sided: one             # one: only losses are looked for; two: a change in either direction, at the same alpha
    cannot_tell: pass      # or fail: what an undecided metric does to the gate
    lost_clips: 0          # clips of the baseline that the new run may lack: a number, or a share below 1
    metrics:
      FD-nano: {tolerance: 0.5, relative_tolerance: 0.005, limit: 80}
      AP: {ignore: true}
      F1: {alpha: 0.01, sided: two}

A tolerance is in the metric's unit, a relative one a share of the baseline's value; the larger counts. ``limit`` is a
value that must not be passed, whatever the baseline says. A metric with an ``alpha`` of its own is tested at that one;
the others share the gate's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from av_bench.schema import FiniteFloat, NonNegativeFloat, Range, build, load_yaml

ALPHA = 0.05
Probability = Annotated[float, Range(above=0, below=0.5)]
Sides = Literal["one", "two"]


@dataclass(frozen=True)
class Rule:
    """What one metric may lose."""

    tolerance: NonNegativeFloat = 0.0
    relative_tolerance: NonNegativeFloat = 0.0
    limit: FiniteFloat | None = None
    alpha: Probability | None = None
    sided: Sides | None = None
    ignore: bool = False

    def tolerated(self, base: float) -> float:
        """Largest loss that is not a regression, in the metric's unit."""
        return max(self.tolerance, self.relative_tolerance * abs(base))


@dataclass(frozen=True)
class Rules:
    """Rules of a gate."""

    alpha: Probability = ALPHA
    sided: Sides = "one"
    cannot_tell: Literal["pass", "fail"] = "pass"
    lost_clips: NonNegativeFloat = 0.0
    metrics: Mapping[str, Rule] = field(default_factory=dict)

    def of(self, metric: str) -> Rule:
        """The metric's own rule, or one that tolerates nothing."""
        return self.metrics.get(metric, Rule())

    def sides(self, metric: str) -> int:
        """On how many sides a metric is tested."""
        return 1 if (self.of(metric).sided or self.sided) == "one" else 2

    def may_lose(self, scored: int) -> int:
        """Clips of the baseline's ``scored`` ones that may be lost."""
        return int(self.lost_clips * scored) if self.lost_clips < 1 else int(self.lost_clips)


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file. UsageError names what is unknown or out of range, and the nearest known key."""
    return build(Rules, load_yaml(path), f"--rules {path}")
