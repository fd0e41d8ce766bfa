"""What verification finds: a stretch that two files have in common."""

from __future__ import annotations

from dataclasses import dataclass

from av_bench.audit.turns import NONE, Change


@dataclass(frozen=True, slots=True)
class Alignment:
    """A verified stretch: training time = ``change.speed`` x test time + ``offset`` (s); ``start`` and ``length`` (s)
    in the test file. ``confidence`` in (0, 1]: of a picture the mean correlation over the stretch, of sound the share
    of peaks found again beyond chance (sound added on top lowers it, not the certainty)."""

    offset: float
    start: float
    length: float
    confidence: float
    change: Change = NONE
