"""Fine-tuning: the weights a training starts from, what of them is trained, at which rate, and from which teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from av_bench.contracts import UsageError
from model_zoo.mmaudio.flow.lora import Lora, add_adapters, matching


@dataclass(frozen=True)
class RateGroup:
    """Parameters whose name fits ``match`` (``*`` is any text) learn at ``factor`` times the rate."""

    match: str
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise UsageError(f"rates: the factor of {self.match!r} must be a positive number, got {self.factor}")


@dataclass(frozen=True)
class Distill:
    """Training a network to make, in ``steps`` equal steps, the sounds that ``teacher`` makes in many.

    ``teacher``: weights by name or file. ``guidance``: the strength the student holds afterwards (None: 4.5, the
    paper's; that of a teacher which is itself made for few steps), ``guide_from`` the time before which the teacher
    has none, as in sampling. ``evaluations``: steps of the teacher for one of the student's (None: 4; a teacher made
    for few steps takes its own). ``DISTILL_GUIDANCE`` and ``DISTILL_EVALUATIONS``
    are the two defaults.
    """

    teacher: str
    steps: int = 4
    guidance: float | None = None
    guide_from: float = 0.0
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.evaluations is not None and self.evaluations < 1):
            raise UsageError(f"distill: steps and evaluations must be positive, got {self.steps}, {self.evaluations}")
        if self.guidance is not None and not 1 <= self.guidance < math.inf:
            raise UsageError(f"distill: guidance must be 1 (none) or more, got {self.guidance}")
        if not 0 <= self.guide_from < 1:
            raise UsageError(f"distill: guide_from must be at least 0 and below 1, got {self.guide_from:g}")


DISTILL_GUIDANCE, DISTILL_EVALUATIONS = 4.5, 4


def prepare(network: nn.Module, frozen: Sequence[str], lora: Lora | None, seed: int, where: str) -> None:
    """Freeze what is not to be trained and put adapters in. With adapters nothing else is trained.

    UsageError for a pattern that fits nothing, and when nothing is left to train.
    """
    if lora is not None:
        network.requires_grad_(False)
        add_adapters(network, lora, seed)
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    gone = set(matching(frozen, names, f"{where}: frozen", "trained parameter"))
    for name, parameter in network.named_parameters():
        if name in gone:
            parameter.requires_grad_(False)
    if len(gone) == len(names):
        raise UsageError(f"{where}: frozen leaves nothing to train")


def parameter_groups(network: nn.Module, rates: Sequence[RateGroup], where: str = "rates") -> list[dict[str, Any]]:
    """Trainable parameters by the factor on their rate (the first group that fits), the others last with factor 1."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    for group in rates:
        matching([group.match], [name for name, _ in trained], where, "trained parameter")
    members: list[list[nn.Parameter]] = [[] for _ in (*rates, None)]
    for name, parameter in trained:
        place = next((n for n, group in enumerate(rates) if fnmatchcase(name, group.match)), len(rates))
        members[place].append(parameter)
    factors = [*(group.factor for group in rates), 1.0]
    return [{"params": m, "factor": f} for m, f in zip(members, factors, strict=True) if m]


def without_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content without fine-tuning that is not asked for, so that older checkpoints keep their identity."""
    return {k: v for k, v in content.items() if not (k in ("frozen", "lora", "rates", "distill") and not v)}
