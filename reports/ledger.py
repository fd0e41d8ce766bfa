"""The ledger of reported numbers: what papers print about one model, and how far they disagree.

Read from ``protocols/reported/*.csv`` (one number a line, as printed; see the README there) and from the MMAudio
paper's own tables. Nothing here was measured here, and copied numbers never count as evidence.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import protocols
from av_bench.contracts import UsageError, unknown_name
from reports import paper_rows
from reports.model import Cell, Row, Table

FOLDER = Path(protocols.__file__).parent / "reported"
COLUMNS = ("paper", "arxiv", "place", "set", "clips", "condition", "origin", "read_in", "model", "metric", "value")
ORIGINS = ("own", "rerun", "copied")
READ_IN = ("source", "summary")
LOWER = ("FD", "KL", "FAD", "DeSync", "seconds")  # beginnings of metrics where lower is better
UNCHECKED, COPIED = "?", "="
_COSINES = {"IB": "IB-score"}  # a cosine, and the metric that is 100 times it
_PAPER = ("MMAudio paper", "2412.15322v2")
_PAPER_SETS = {"table1": "vggsound", "table2": "greatest_hits", "table3": "audiocaps", "tableA2": "moviegen"}
Fit = Literal["exact", "family"]


@dataclass(frozen=True)
class Number:
    """One reported number. ``value`` in the unit of ``metric``; ``printed`` as the source prints it."""

    paper: str
    arxiv: str
    place: str
    set: str
    clips: str
    condition: str
    origin: str
    read_in: str
    model: str
    metric: str
    value: float
    printed: str

    @property
    def evidence(self) -> bool:
        """Whether somebody ran the model for it, rather than copied it."""
        return self.origin != "copied"

    @property
    def checked(self) -> bool:
        """Whether it was read in the source itself."""
        return self.read_in == "source"

    @property
    def marks(self) -> tuple[str, ...]:
        """Footnote marks: unchecked, copied."""
        return ((UNCHECKED,) if not self.checked else ()) + ((COPIED,) if not self.evidence else ())


def read(folder: Path = FOLDER) -> list[Number]:
    """All numbers of the ledger, those of the MMAudio paper first. UsageError names file, line and what is wrong."""
    numbers = _of_the_paper()
    for path in sorted(folder.glob("*.csv")):
        numbers += read_file(path)
    return numbers


def read_file(path: Path) -> list[Number]:
    """The numbers of one file."""
    try:
        with path.open(encoding="utf8", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UsageError(f"{path}: the columns must be {', '.join(COLUMNS)}; see the README beside it")
            return [_number(row, f"{path}:{reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _number(row: dict[str, str], where: str) -> Number:
    if None in row or None in row.values():
        raise UsageError(f"{where}: {len(COLUMNS)} fields are expected")
    for key in ("paper", "place", "set", "model", "metric", "value"):
        if not row[key].strip():
            raise UsageError(f"{where}: {key} is empty")
    for key, known in (("origin", ORIGINS), ("read_in", READ_IN)):
        if row[key] not in known:
            raise UsageError(f"{where}: {key}: {unknown_name('value', row[key], list(known))}")
    try:
        value = float(row["value"])
    except ValueError as error:
        raise UsageError(f"{where}: {row['value']!r} is not a number") from error
    rest = {name: row[name] for name in COLUMNS if name not in ("metric", "value")}
    metric = row["metric"]
    if metric in _COSINES:
        return Number(**rest, metric=_COSINES[metric], value=100 * value, printed=f"{row['value']} (cosine)")
    return Number(**rest, metric=metric, value=value, printed=row["value"])


def _of_the_paper() -> list[Number]:
    numbers = []
    for table, on in _PAPER_SETS.items():
        for entry in paper_rows.read(table):
            own = entry.method.startswith("MMAudio")
            origin = "own" if own else ("copied" if table == "table3" else "rerun")
            for metric, cell in entry.cells.items():
                if metric == "params" or (table == "table2" and metric == "DeSync"):
                    continue
                on_set = "vggsound-5s" if "evaluated at 5 s" in entry.remark else on
                about = (*_PAPER, entry.where, on_set, "", entry.remark, origin, "source", entry.method, metric)
                numbers.append(Number(*about, cell.value, cell.printed or ""))
    return numbers


def higher_is_better(metric: str) -> bool:
    """Direction of a reported metric, by its name."""
    return not metric.startswith(LOWER)


def plain(name: str) -> str:
    """Letters and digits only, lower case."""
    return "".join(c for c in name.lower() if c.isalnum())


def fit(model: str, asked: str) -> Fit | None:
    """``exact``: the name holds what was asked for. ``family``: the source names the family, not the variant."""
    have, want = plain(model), plain(asked)
    if want and want in have:
        return "exact"
    return "family" if have and want.startswith(have) else None


@dataclass(frozen=True)
class Spread:
    """What papers print about one model and metric. ``low`` and ``high`` leave copied numbers out."""

    metric: str
    numbers: tuple[tuple[Number, Fit], ...]

    @property
    def evidence(self) -> list[float]:
        """Values somebody measured."""
        return [n.value for n, _ in self.numbers if n.evidence]

    @property
    def unchecked(self) -> int:
        """Measured values that were read in a summary only."""
        return sum(n.evidence and not n.checked for n, _ in self.numbers)


def spreads(numbers: Sequence[Number], model: str, on: str | None) -> list[Spread]:
    """All that is reported about a model, by metric. UsageError when nothing is, with what there is instead."""
    found = [(n, how) for n in numbers if (how := fit(n.model, model)) and (on is None or n.set == on)]
    if not found:
        hits = sorted({n.set for n in numbers if fit(n.model, model)})
        if hits:
            raise UsageError(f"nothing is reported about {model!r} on {on!r}; there is something on {', '.join(hits)}")
        raise UsageError(unknown_name("model", model, sorted({n.model for n in numbers})))
    metrics = list(dict.fromkeys(n.metric for n, _ in found))
    return [Spread(m, tuple((n, how) for n, how in found if n.metric == m)) for m in metrics]


def with_ledger(table: Table, numbers: Sequence[Number], names: Sequence[str]) -> Table:
    """A table with the reported rows of the named models or papers, on the table's set."""
    columns = {c.name for c in table.columns}
    rows: dict[tuple[str, str, str, str], dict[str, Number]] = {}
    for name in names:
        hits = [
            n
            for n in numbers
            if n.set == table.of[0] and (fit(n.model, name) == "exact" or plain(name) in plain(n.paper))
        ]
        if not hits:
            there = sorted({n.paper for n in numbers if n.set == table.of[0]})
            raise UsageError(
                f"--with {name}: no model or paper of that name reports {table.of[0]}; there are "
                f"{', '.join(there) or 'no numbers on this set'}"
            )
        for n in hits:
            rows.setdefault((n.model, n.paper, n.clips, n.condition), {})[n.metric] = n
    made, used = [], set()
    for (model, paper, clips, _), cells in rows.items():
        kept = {
            m: Cell(n.value, None, None, printed=n.printed, marks=n.marks) for m, n in cells.items() if m in columns
        }
        if kept:
            used |= {mark for cell in kept.values() for mark in cell.marks}
            row = Row(
                f"{model} ({paper}{f', {clips} clips' if clips else ''})",
                "reported",
                kept,
                {"scored": ""},
                {},
                (),
                None,
            )
            made.append(row)
    texts = {UNCHECKED: "read only in a summary of the source", COPIED: "copied from another paper: no evidence"}
    note = "Reported rows are other papers', not measured here; their clips and code may differ from ours."
    footnotes = tuple((mark, texts[mark]) for mark in texts if mark in used)
    return replace(
        table, rows=(*table.rows, *made), notes=(*table.notes, note), footnotes=(*table.footnotes, *footnotes)
    )
