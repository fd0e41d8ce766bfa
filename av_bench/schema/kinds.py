"""Rules that a type hint states with ``Annotated``, and the numbers and texts that are stated often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

SET_BY_LOADER = {"set_by_loader": True}
"""``field(metadata=SET_BY_LOADER)``: a field that no document may give, such as the digest of the document."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number in ``Annotated``: ``low`` and ``high`` may be reached, ``above`` and ``below`` may not."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number lies within the bounds; NaN and infinity never do."""
        inside = self.low <= value <= self.high and (self.above == -math.inf or value > self.above)
        return math.isfinite(value) and inside and (self.below == math.inf or value < self.below)

    def __str__(self) -> str:
        bounds = {"at least": self.low, "at most": self.high, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {value:g}" for word, value in bounds.items() if math.isfinite(value)) or "finite"


@dataclass(frozen=True)
class Pattern:
    """Form of a text in ``Annotated``: a regular expression for the whole text, and what that means in words."""

    expression: str
    words: str


@dataclass(frozen=True)
class NumberAsText:
    """In ``Annotated[str, NumberAsText()]``: a whole number is taken as its text, e.g. ``version: 2``."""


PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(low=0)]
FiniteFloat = Annotated[float, Range()]
PositiveInt = Annotated[int, Range(low=1)]
NonNegativeInt = Annotated[int, Range(low=0)]
Sha256 = Annotated[str, Pattern(r"[0-9a-f]{64}", "64 hex digits")]
