"""Table A4 of the paper from pinned lists: our counts beside the printed ones, for every pair and every rule.

Source: MMAudio, arXiv 2412.15322v2, Appendix E (Table A4) and footnote 1 (82.48 % of AudioSet is speech or music).
The printed counts are data (``table_a4.yaml``), never targets: nothing here is tuned to meet them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av_bench.audit.cliplist import ClipList, Malformed, filter_labels
from av_bench.audit.overlaps import Rule, counts
from av_bench.audit.sources import Lists
from av_bench.contracts import MissingRequirement
from av_bench.schema import read_yaml
from protocols.lists.sources import sources

DEFINITION = Path(__file__).with_name("table_a4.yaml")


@dataclass(frozen=True)
class Cell:
    """One pair. ``ours`` maps a rule to (overlapping test clips, overlapping test ids); empty with ``why`` said."""

    test: str
    train: str
    without: tuple[str, ...]
    paper: int | None
    paper_n: int
    n_clips: int | None = None
    n_ids: int | None = None
    ours: Mapping[Rule, tuple[int, int]] = field(default_factory=dict)
    why: str = ""
    note: str = ""


@dataclass(frozen=True)
class SpeechMusic:
    """The footnote: rows of a list that carry one of the labels, of all rows."""

    list: str
    labels: tuple[str, ...]
    carrying: int
    rows: int
    paper_percent: float

    @property
    def percent(self) -> float:
        """Share in percent."""
        return 100 * self.carrying / self.rows


@dataclass(frozen=True)
class TableA4:
    """All pairs, the footnote, and every malformed row met on the way."""

    cells: tuple[Cell, ...]
    speech_or_music: SpeechMusic | None
    missing: tuple[str, ...]
    malformed: tuple[Malformed, ...]


class _Opener:
    """Opens each (list, filter) once; remembers why a list could not be opened."""

    def __init__(self, lists: Lists) -> None:
        self.lists = lists
        self.found: dict[tuple[str, tuple[str, ...]], ClipList] = {}

    def why_not(self, name: str) -> str:
        """Empty when the list is available, else the reason and what to do."""
        if self.lists.has(name):
            return ""
        user = sources().user.get(name)
        return f"{name}: {user.note}" if user else f"{name}: not in the lists folder; `av-bench lists pull {name}`"

    def open(self, name: str, drop: tuple[str, ...] = ()) -> ClipList:
        if (name, drop) not in self.found:
            if drop:
                self.found[name, drop] = filter_labels(self.open(name), self.lists.label_ids(drop))
            else:
                self.found[name, drop] = self.lists.open(name)
        return self.found[name, drop]


def table_a4(lists: Lists) -> TableA4:
    """Compute every pair whose lists are available; the others carry the reason. UsageError on a damaged list."""
    definition = read_yaml(DEFINITION, dict)
    opener = _Opener(lists)
    cells = tuple(_cell(pair, opener) for pair in definition["pairs"])
    asked = definition["speech_or_music"]
    footnote, missing = None, []
    try:
        if reason := opener.why_not(asked["list"]):
            raise MissingRequirement(reason)
        whole = opener.open(asked["list"])
        rest = filter_labels(whole, lists.label_ids(asked["labels"]))
        footnote = SpeechMusic(
            asked["list"], tuple(asked["labels"]), len(whole) - len(rest), len(whole), asked["paper_percent"]
        )
    except MissingRequirement as error:
        missing.append(str(error))
    malformed = tuple(dict.fromkeys(m for clips in opener.found.values() for m in clips.malformed))
    return TableA4(cells, footnote, tuple(missing), malformed)


def _cell(pair: Mapping[str, Any], opener: _Opener) -> Cell:
    base = Cell(
        pair["test"],
        pair["train"],
        tuple(pair.get("without", ())),
        pair.get("paper"),
        pair["paper_n"],
        note=pair.get("note", ""),
    )
    reasons = list(dict.fromkeys(filter(None, (opener.why_not(base.test), opener.why_not(base.train)))))
    if reasons:
        return Cell(
            base.test, base.train, base.without, base.paper, base.paper_n, why="; ".join(reasons), note=base.note
        )
    try:
        test, train = opener.open(base.test), opener.open(base.train, base.without)
    except MissingRequirement as error:  # the label names of a filter
        return Cell(base.test, base.train, base.without, base.paper, base.paper_n, why=str(error), note=base.note)
    return Cell(
        base.test,
        base.train,
        base.without,
        base.paper,
        base.paper_n,
        test.n_clips,
        test.n_ids,
        counts(test, train),
        note=base.note,
    )
