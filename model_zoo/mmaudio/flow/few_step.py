"""Networks that are made for a few large steps, and what their weight files say about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from av_bench.contracts import UsageError
from av_bench.schema import build


@dataclass(frozen=True)
class FewStep:
    """A network for ``steps`` equal Euler steps, and for no other number of them.

    Its velocity is the mean velocity over a step of the flow it learned from, under guidance of strength ``guidance``.
    It is sampled without guidance.
    """

    steps: int
    guidance: float

    def __post_init__(self) -> None:
        if self.steps < 1 or not 1 <= self.guidance < math.inf:
            raise UsageError(f"few_step: steps and guidance must be 1 or more, got {self.steps} and {self.guidance}")

    def header(self) -> dict[str, Any]:
        """What a weight file's header says besides."""
        return {"few_step": asdict(self)}


def few_step_of(about: Mapping[str, Any], where: str) -> FewStep | None:
    """What a weight file's header says; None for an ordinary network."""
    return build(FewStep, about["few_step"], f"{where}: few_step") if "few_step" in about else None
