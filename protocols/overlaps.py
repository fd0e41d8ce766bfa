"""What is known of the overlap between a set and a generator's declared training sets.

``overlaps.csv`` holds the counts that ``av-bench audit table-a4`` computes from the pinned public lists (by video id).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Overlap:
    """``clips`` of the set's ``of`` clips are, by ``rule``, in the list ``train``."""

    train: str
    clips: int
    of: int
    rule: str

    @property
    def text(self) -> str:
        """For a note under a table."""
        return f"{self.train} shares {self.clips:,} of {self.of:,} clips by {self.rule}"


@cache
def _rows() -> tuple[tuple[str, Overlap], ...]:
    with (HERE / "overlaps.csv").open(encoding="utf8", newline="") as file:
        return tuple(
            (row["set"], Overlap(row["train"], int(row["clips"]), int(row["of"]), row["rule"]))
            for row in csv.DictReader(file)
        )


def found(set_name: str, training_sets: Iterable[str]) -> tuple[list[Overlap], list[str]]:
    """Overlaps of a set with training sets (those that are not zero), and the training sets nothing is known of."""
    known = {overlap.train: overlap for name, overlap in _rows() if name == set_name}
    wanted = list(dict.fromkeys(training_sets))
    return [known[t] for t in wanted if t in known and known[t].clips], [t for t in wanted if t not in known]
