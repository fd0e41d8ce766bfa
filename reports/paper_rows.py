"""Rows as the MMAudio paper reports them (``protocols/paper/*.csv``), each number with the text it was printed as."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import protocols
from av_bench.contracts import UsageError, unknown_name
from reports.model import Cell, Row, Table

_FOLDER = Path(protocols.__file__).parent / "paper"
_UNITS = {"M": 1.0, "B": 1000.0}
_NAMES = ("method", "setting", "variant", "model", "test set")  # the first column, by table
_ASIDE = ("where", "remark")
_SPREAD = " std"  # a column that ends so holds the standard deviation of the one before
_SETS = {
    "table1": ("vggsound", "vggsound-5s"),
    "table2": ("greatest_hits",),
    "table3": ("audiocaps",),
    "tableA2": ("moviegen",),
}


@dataclass(frozen=True)
class Reported:
    """One row: cells (``params`` in millions) and words by column name, and what the paper remarks on it."""

    method: str
    cells: dict[str, Cell]
    words: dict[str, str]
    where: str
    remark: str

    @property
    def values(self) -> dict[str, float]:
        """The numbers alone, by column."""
        return {name: cell.value for name, cell in self.cells.items()}

    def row(self, columns: set[str], section: str = "", grey: bool = False) -> Row:
        """The row of a table that has these columns."""
        cells = {n: c for n, c in self.cells.items() if n in columns}
        words = {n: w for n, w in self.words.items() if n in columns}
        row = Row(f"{self.method} (reported)", "reported", cells, {"scored": ""}, {}, (), None)
        return replace(row, words=words, section=section, grey=grey)


def tables_of_the_paper() -> list[str]:
    """Names of the tables there are data of."""
    return sorted(path.stem for path in _FOLDER.glob("*.csv"))


def read(table: str) -> list[Reported]:
    """All rows of a table, as table1. UsageError for an unknown name."""
    if table not in tables_of_the_paper():
        raise UsageError(unknown_name("table", table, tables_of_the_paper()))
    with (_FOLDER / f"{table}.csv").open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    name = next(n for n in _NAMES if n in rows[0])
    return [_reported(row, name) for row in rows]


def _reported(row: dict[str, str], name: str) -> Reported:
    cells, words = {}, {}
    for column, text in row.items():
        if column in (name, *_ASIDE) or column.endswith(_SPREAD) or not text:
            continue
        value = _number(text)
        if value is None:
            words[column] = text
        else:
            cells[column] = Cell(value, None, None, printed=text, spread=row.get(column + _SPREAD))
    return Reported(row[name], cells, words, row.get("where", ""), row.get("remark", ""))


def _number(text: str) -> float | None:
    """A printed number; 157M and 1.03B in millions; None for words."""
    unit = _UNITS.get(text[-1])
    try:
        return float(text) if unit is None else float(text[:-1]) * unit
    except ValueError:
        return None


def with_reported(table: Table, name: str) -> Table:
    """A table with the paper's rows and, for runs of the same models, the differences (ours - reported)."""
    reported = read(name)
    if name not in _SETS:
        known = ", ".join(_SETS)
        raise UsageError(f"{name} of the paper compares no methods; use one of {known}, or its layout (--layout)")
    wanted, (on, flavour) = _SETS[name], table.of
    if on not in wanted or flavour != "paper":
        raise UsageError(
            f"--with-paper {name}: the paper's numbers are of {' or '.join(wanted)} in the paper flavour, "
            f"this table is of {on} in the {flavour} flavour"
        )
    if on == "vggsound-5s":
        reported = [r for r in reported if "evaluated at 5 s" in r.remark]
    metrics = {c.name for c in table.columns if c.metric}
    if not any(metrics & set(r.cells) for r in reported):
        raise UsageError(
            f"--with-paper {name}: it has none of the columns {', '.join(sorted(metrics))} of {table.title}"
        )
    names = {c.name for c in table.columns}
    rows = [*table.rows, *(entry.row(names) for entry in reported), *differences(table, name, reported)]
    remarks = [f"{r.method} (reported): {r.remark}" for r in reported if r.remark]
    return replace(table, rows=tuple(rows), notes=(*table.notes, note(name), *remarks))


def differences(table: Table, name: str, reported: list[Reported]) -> list[Row]:
    """One row for each run of a model that the paper reports: ours - reported."""
    rows = []
    for row in table.rows:
        for entry in reported:
            if (name, entry.method) in row.paper:
                both = [c.name for c in table.columns if c.name in row.cells and c.name in entry.cells]
                cells = {n: _difference(row.cells[n], entry.cells[n]) for n in both}
                title = f"{row.name} - reported"
                rows.append(Row(title, "difference", cells, {"scored": row.counts["scored"]}, {}, (), None))
    return rows


def _difference(ours: Cell, reported: Cell) -> Cell:
    value = ours.value - reported.value
    return replace(ours, value=value, half_width=None, rank=None, signed=True, printed=None, marks=())


def note(name: str) -> str:
    """What must be said under a table with reported rows."""
    return f"Reported rows are the MMAudio paper's ({name}), not measured here; their clips may differ from ours."
