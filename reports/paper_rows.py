"""Rows as the MMAudio paper reports them (``protocols/paper/*.csv``), read for a table of ours."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import protocols
from av_bench.contracts import UsageError, unknown_name
from reports.model import Cell, Row, Table, params_cell

_FOLDER = Path(protocols.__file__).parent / "paper"
_UNITS = {"M": 1.0, "B": 1000.0}
_WORDS = ("training hours",)  # columns that are no numbers of ours
_SETS = {
    "table1": ("vggsound", "vggsound-5s"),
    "table2": ("greatest_hits",),
    "table3": ("audiocaps",),
    "tableA2": ("moviegen",),
}


@dataclass(frozen=True)
class Reported:
    """One row: numbers by column name (``params`` in millions), and what the paper remarks on it."""

    method: str
    values: dict[str, float]
    where: str
    remark: str


def read(table: str) -> list[Reported]:
    """All rows of a table, as table1. UsageError for an unknown name."""
    known = sorted(path.stem for path in _FOLDER.glob("*.csv"))
    if table not in known:
        raise UsageError(unknown_name("table", table, known))
    with (_FOLDER / f"{table}.csv").open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if "method" not in rows[0]:
        raise UsageError(f"{table} of the paper compares no methods; use one of table1, table2, table3")
    return [Reported(r["method"], _values(r), r.get("where", ""), r.get("remark", "")) for r in rows]


def _values(row: dict[str, str]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        if name in ("method", "where", "remark") or not text:
            continue
        if name == "params":
            found[name] = float(text[:-1]) * _UNITS[text[-1]]
        elif name not in _WORDS:
            found[name] = float(text)
    return found


def with_reported(table: Table, name: str) -> Table:
    """A table with the paper's rows and, for runs of the same models, the differences (ours - reported)."""
    reported = read(name)
    wanted, (on, flavour) = _SETS.get(name, ()), table.of
    if on not in wanted or flavour != "paper":
        raise UsageError(
            f"--with-paper {name}: the paper's numbers are of {' or '.join(wanted) or 'no set'} in the paper flavour, "
            f"this table is of {on} in the {flavour} flavour"
        )
    if on == "vggsound-5s":
        reported = [r for r in reported if "evaluated at 5 s" in r.remark]
    metrics = {c.name for c in table.columns if c.metric}
    if not any(metrics & set(r.values) for r in reported):
        raise UsageError(
            f"--with-paper {name}: it has none of the columns {', '.join(sorted(metrics))} of {table.title}"
        )
    rows = list(table.rows)
    names = [c.name for c in table.columns]
    for entry in reported:
        cells = {n: params_cell(v) if n == "params" else Cell(v, None, None) for n, v in entry.values.items()}
        cells = {n: cell for n, cell in cells.items() if n in names}
        rows.append(Row(f"{entry.method} (reported)", "reported", cells, {"scored": ""}, {}, (), None))
    for row in table.rows:
        for entry in reported:
            if (name, entry.method) in row.paper:
                both = [n for n in names if n in row.cells and n in entry.values]
                cells = {n: replace(row.cells[n], value=row.cells[n].value - entry.values[n]) for n in both}
                cells = {n: replace(c, half_width=None, rank=None, signed=True) for n, c in cells.items()}
                title = f"{row.name} - reported"
                rows.append(Row(title, "difference", cells, {"scored": row.counts["scored"]}, {}, (), None))
    remarks = [f"{r.method} (reported): {r.remark}" for r in reported if r.remark]
    note = f"Reported rows are the MMAudio paper's ({name}), not measured here; their clips may differ from ours."
    return replace(table, rows=tuple(rows), notes=(*table.notes, note, *remarks))
