"""Results of ``av-bench doctor`` and ``av-bench selfcheck`` as plain records, for any display."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. ``missing`` is a choice (an extra), ``broken`` is a fault."""

    what: str
    status: Literal["ok", "missing", "broken"]
    detail: str


@dataclass(frozen=True)
class Reaction:
    """What one metric did under one damage of the real audio; ``low`` and ``high`` bound the difference (95 %)."""

    model: str
    metric: str
    base: float
    value: float
    low: float | None
    high: float | None
    reacted: bool


@dataclass(frozen=True)
class Series:
    """A metric along damages of growing strength, with the half widths of its 95 % intervals."""

    metric: str
    models: tuple[str, ...]
    values: tuple[float, ...]
    half_widths: tuple[float, ...]

    @property
    def rises(self) -> bool:
        """Whether each step is higher than the one before."""
        return all(b > a for a, b in zip(self.values, self.values[1:], strict=False))


@dataclass(frozen=True)
class Outcome:
    """All reactions and series of a selfcheck on one set."""

    set: str
    clips: int
    reactions: tuple[Reaction, ...]
    series: tuple[Series, ...]

    @property
    def passed(self) -> bool:
        """True when every expected reaction came."""
        return all(r.reacted for r in self.reactions) and all(s.rises for s in self.series)
