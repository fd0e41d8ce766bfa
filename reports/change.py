"""Changes to a finished table: columns chosen, names changed, details of DeSync added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from av_bench.contracts import UsageError, unknown_name
from av_bench.results.compare import differences, incomparable
from av_bench.results.record import Run, read_run
from reports.model import Cell, Column, Row, Table


def changed(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    rename: Sequence[str] = (),
    caption: str | None = None,
    label: str | None = None,
) -> Table:
    """The table with these columns only, with other names, caption and label. UsageError for names it has not."""
    if columns is not None:
        known = {c.name: c for c in table.columns}
        for name in columns:
            if name not in known:
                raise UsageError(f"--columns: {unknown_name('column', name, list(known))}")
        table = replace(table, columns=tuple(known[name] for name in columns))
    for pair in rename:
        table = _renamed(table, pair)
    return replace(
        table, caption=table.caption if caption is None else caption, label=table.label if label is None else label
    )


def _renamed(table: Table, pair: str) -> Table:
    old, _, new = pair.rpartition("=") if pair.count("=") > 1 else pair.partition("=")
    if not old or not new:
        raise UsageError(f"--rename {pair}: OLD=NEW is expected")
    rows = [row.name for row in table.rows]
    names = [column.name for column in table.columns]
    if old not in rows and old not in names:
        raise UsageError(f"--rename {pair}: {unknown_name('row or column', old, [*rows, *names])}")
    return replace(
        table,
        rows=tuple(replace(r, name=new) if r.name == old else r for r in table.rows),
        columns=tuple(replace(c, head=new, sub="") if c.name == old else c for c in table.columns),
    )


def with_details(table: Table) -> Table:
    """Behind each DeSync column: its difference from the clip's own real sound, and the share within one class.

    The difference is paired by clip with the oracle's run in the table, its interval resamples source recordings.
    The share comes from the run's own details; it is the part that is stable against versions of the decoder.
    """
    columns: list[Column] = []
    rows = list(table.rows)
    notes = list(table.notes)
    for column in table.columns:
        columns.append(column)
        if not column.name.startswith("DeSync"):
            continue
        off, near = f"{column.name} - real", f"{column.name} within one class"
        rows = [_with(row, {near: _near(row, column.name), off: _off(row, column.name, table)}) for row in rows]
        if any(off in row.cells for row in rows):
            columns.append(replace(column, name=off, head="", sub="", ranked=False))
        else:
            notes.append(f"{off} needs a run of the model oracle on the same clips in the table.")
        if any(near in row.cells for row in rows):
            columns.append(Column(near, True, "", ranked=False, group=column.group))
        else:
            notes.append(f"{near} is in no run: they were scored before it was recorded.")
    return replace(table, columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def _with(row: Row, cells: dict[str, Cell | None]) -> Row:
    return replace(row, cells=row.cells | {name: cell for name, cell in cells.items() if cell is not None})


def _near(row: Row, metric: str) -> Cell | None:
    entry = None if row.path is None else read_run(row.path).scores["metrics"].get(metric)
    if entry is None or "within_one_class" not in entry["details"]:
        return None
    return Cell(float(entry["details"]["within_one_class"]), None, int(entry["n"]))


def _off(row: Row, metric: str, table: Table) -> Cell | None:
    oracle = next((r for r in table.rows if r.group == "bounds" and r.name == "oracle"), None)
    if row.path is None or oracle is None or oracle.path is None or oracle is row:
        return None
    return _paired(read_run(row.path), read_run(oracle.path), metric)


def _paired(run: Run, real: Run, metric: str) -> Cell | None:
    """Mean difference over the clips that both have, with its interval; None where they cannot be compared."""
    if metric not in run.scores["metrics"] or metric not in real.scores["metrics"] or incomparable(run, real):
        return None
    (found,) = differences(run, real, names=[metric])
    half = None if found.low is None or found.high is None else (found.high - found.low) / 2
    return Cell(found.value, half, int(run.scores["metrics"][metric]["n"]), signed=True)
