"""Which clips a report shows, when it cannot show all: by a rule that is said, never by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from av_bench.contracts import UsageError, unknown_name

Rule = Literal["mixed", "worst", "best", "median", "random"]
RULES: tuple[Rule, ...] = ("mixed", "worst", "best", "median", "random")


@dataclass(frozen=True)
class Choice:
    """A clip and why it is shown."""

    clip: str
    why: str


def choose(
    scores: dict[str, float],
    count: int,
    rule: str,
    seed: int,
    named: Sequence[str] = (),
    every: Sequence[str] = (),
) -> list[Choice]:
    """``count`` clips by a rule over ``scores`` (higher is better), the named ones first, each clip once.

    ``mixed`` takes a quarter each of worst, best, median and random. ``every``: all clips, for ``random`` and for
    names. UsageError for names that are not clips and for unknown rules.
    """
    if rule not in RULES:
        raise UsageError(f"--choose: {unknown_name('rule', rule, list(RULES))}")
    everything = sorted({*every, *scores})
    for name in named:
        if name not in everything:
            raise UsageError(f"--clip: {unknown_name('clip', name, everything)}")
    found = [Choice(name, "named") for name in named]
    order = sorted(scores, key=lambda clip: (scores[clip], clip))
    queues: dict[str, list[str]] = {
        "worst": order,
        "best": order[::-1],
        "median": _from_the_middle(order),
        "random": random.Random(seed).sample(everything, len(everything)),
    }
    wanted = list(queues) if rule == "mixed" else [rule]
    taken = {choice.clip for choice in found}
    while len(found) < count and any(queues[name] for name in wanted):
        for name in wanted:
            while queues[name] and queues[name][0] in taken:
                queues[name] = queues[name][1:]
            if queues[name] and len(found) < count:
                taken.add(queues[name][0])
                found.append(Choice(queues[name][0], name))
    return found


def _from_the_middle(order: list[str]) -> list[str]:
    """The median first, then its neighbours outwards."""
    middle = (len(order) - 1) / 2
    return [order[i] for i in sorted(range(len(order)), key=lambda i: (abs(i - middle), i))]
