"""What is known of the overlap between a set and a generator's declared training sets.

``overlaps.csv`` holds the counts that ``av-bench audit lists`` computes from the pinned public lists (by video id). A
set may be scored on several lists: what is known is known of a list, by its name behind ``@`` in the set's version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from av_bench.rows import read_table, records

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
    path = HERE / "overlaps.csv"
    return tuple(
        (row["list"], Overlap(row["train"], int(row["clips"]), int(row["of"]), row["rule"]))
        for _, row in records(read_table(path), str(path))
    )


def list_name(set_name: str, version: str) -> str:
    """The list a set was scored on, by its name in ``overlaps.csv``: the set's own name when it has one list."""
    return version.partition("@")[2] or set_name


def known_overlaps(listed: str, training_sets: Iterable[str]) -> tuple[list[Overlap], list[str]]:
    """Overlaps of a list with training sets (those that are not zero), and the training sets nothing is known of."""
    known = {overlap.train: overlap for name, overlap in _rows() if name == listed}
    wanted = list(dict.fromkeys(training_sets))
    return [known[t] for t in wanted if t in known and known[t].clips], [t for t in wanted if t not in known]
