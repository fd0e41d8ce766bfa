"""Run folders (or facts from elsewhere) in a layout: its columns, its rows, its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.results.record import Run, read_run
from reports import paper_rows
from reports.build import tables
from reports.layouts import ColumnLayout, Layout, RowLayout
from reports.model import Cell, Column, Row, Table

Value = float | str


@dataclass(frozen=True)
class Fact:
    """One row that comes from no run: numbers and words by column, spreads, and what to note about it."""

    name: str
    values: Mapping[str, Value]
    spread: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def arranged(
    paths: Sequence[Path | str | Run],
    layout: Layout,
    *,
    with_paper: bool = False,
    allow_different_n: bool = False,
    facts: Sequence[Fact] = (),
) -> list[Table]:
    """Tables in a layout: one per set, protocol and flavour of the runs, or one of the facts."""
    if layout.source != "runs":
        return [_of_facts(layout, facts, with_paper)]
    runs = [path if isinstance(path, Run) else read_run(path) for path in paths]
    beside = {*layout.grey_sets, *(name for c in layout.columns for name in c.from_sets)} - set(layout.sets)
    main = [run for run in runs if _set(run) in layout.sets] or [run for run in runs if _set(run) not in beside]
    if not main:
        raise UsageError(f"layout {layout.name}: no run of {' or '.join(layout.sets)} among {len(runs)} run folders")
    others = [table for run in runs if run not in main for table in tables([run])]
    found = tables(main, allow_different_n=allow_different_n)
    return [_of_runs(table, layout, others, with_paper, facts) for table in found]


def _set(run: Run) -> str:
    return str(run.scores["set"]["name"])


def _of_runs(table: Table, layout: Layout, others: list[Table], with_paper: bool, facts: Sequence[Fact]) -> Table:
    others = [other for other in others if other.of[1] == table.of[1]]
    reported = paper_rows.read(layout.paper) if with_paper and layout.paper else []
    if reported:
        _refuse_other_sets(table, layout)
    columns = _columns(table, layout, others, reported, facts)
    rows = [_joined(row, layout, others, facts) for row in table.rows]
    rows += [replace(row, grey=True) for o in others if o.of[0] in layout.grey_sets for row in o.rows]
    if layout.rows:
        rows = _settings(rows, layout.rows, reported, columns)
    else:
        names = {c.name for c, _ in columns}
        rows += [r.row(names, grey="grey" in r.remark) for r in reported]
    rows = [_printed(row, columns) for row in rows]
    lacking = [c.name for c in layout.columns if c.name not in {given.name for _, given in columns}]
    notes = list(table.notes)
    notes += [paper_rows.note(layout.paper or "")] if reported else []
    notes += [f"{r.method} (reported): {r.remark}" for r in reported if r.remark]
    notes += [f"No row has {', '.join(lacking)}: left out."] if lacking else []
    caption = " ".join(filter(None, [layout.caption, _scored_on(table, layout)])) if layout.columns else ""
    marked, footnotes = _marks(rows, layout)
    return replace(
        table,
        columns=tuple(column for column, _ in columns),
        rows=tuple(marked),
        notes=tuple(notes),
        caption=caption,
        label=layout.label or table.label,
        stub=layout.stub,
        footnotes=(*table.footnotes, *footnotes),
        counted=not layout.columns,
    )


def _refuse_other_sets(table: Table, layout: Layout) -> None:
    on, flavour = table.of
    if on not in layout.sets or flavour != "paper":
        raise UsageError(
            f"--with-paper, layout {layout.name}: the paper's numbers are of {' or '.join(layout.sets)} in the paper "
            f"flavour, this table is of {on} in the {flavour} flavour"
        )


def _scored_on(table: Table, layout: Layout) -> str:
    """What was really scored: a layout of the paper on other clips must say so."""
    if table.of[0] in layout.sets:
        return f"Scored: {table.title}."
    return f"Here on other clips and networks than the paper's: {table.title}."


Chosen = list[tuple[Column, ColumnLayout]]


def _columns(
    table: Table, layout: Layout, others: list[Table], reported: list[paper_rows.Reported], facts: Sequence[Fact]
) -> Chosen:
    """The layout's columns that any row fills, under the name of the network that fills them."""
    if not layout.columns:
        return [(column, ColumnLayout(column.name)) for column in table.columns]
    known = {c.name: c for other in others for c in other.columns} | {c.name: c for c in table.columns}
    printed = {name for r in reported for name in (*r.cells, *r.words)}
    printed |= {name for fact in facts for name in fact.values}
    chosen: Chosen = []
    for given in layout.columns:
        name = next((n for n in (given.name, *given.stand_ins) if n in known), None)
        if given.name in printed:
            name = given.name
        if name is None:
            continue
        base = known.get(name) or _no_metric(given)
        head, sub = (given.head, given.sub) if name == given.name else _halves(name)
        chosen.append((replace(base, name=name, unit="", head=head, sub=sub, group=given.group), given))
    return chosen


def _halves(name: str) -> tuple[str, str]:
    """FD-nano -> FD, nano: another network's column keeps its name."""
    head, _, sub = name.partition("-")
    return head, sub


def _no_metric(given: ColumnLayout) -> Column:
    return Column(given.name, given.direction == "up", "", metric=bool(given.direction), ranked=False)


def _joined(row: Row, layout: Layout, others: list[Table], facts: Sequence[Fact]) -> Row:
    """The row with the cells that runs of the same name on other sets, or facts of the same name, give."""
    cells, words = dict(row.cells), dict(row.words)
    for given in layout.columns:
        for other in others:
            twin = next((r for r in other.rows if r.name == row.name), None)
            if other.of[0] in given.from_sets and twin is not None and given.name in twin.cells:
                cells[given.name] = twin.cells[given.name]
    for fact in facts:
        if fact.name == row.name:
            found, more = _cells(fact)
            cells, words = cells | found, words | more
    return replace(row, cells=cells, words=words)


def _cells(fact: Fact) -> tuple[dict[str, Cell], dict[str, str]]:
    cells, words = {}, {}
    for name, value in fact.values.items():
        if isinstance(value, str):
            words[name] = value
        else:
            spread = fact.spread.get(name)
            cells[name] = Cell(value, None, None, spread=None if spread is None else f"{spread:.2f}")
    return cells, words


def _settings(
    rows: list[Row], settings: tuple[RowLayout, ...], reported: list[paper_rows.Reported], columns: Chosen
) -> list[Row]:
    """Rows of an ablation in the layout's order, as reported ones below ours; other runs keep their names."""
    names = {c.name for c, _ in columns}
    found, used = [], set()
    for setting in settings:
        wanted = {_plain(n) for n in (setting.name, *setting.runs)}
        for row in rows:
            if _plain(row.name) in wanted and row.group not in ("reported", "difference"):
                used.add(id(row))
                title = setting.name + (" (default)" if setting.default else "")
                found.append(replace(row, name=title, group="models", section=setting.section))
        found += [r.row(names, setting.section) for r in reported if r.method == setting.name]
    return [row for row in rows if id(row) not in used] + found


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _printed(row: Row, columns: Chosen) -> Row:
    """Decimals and forms of the layout, where a number is not printed as it was reported."""
    cells = dict(row.cells)
    for column, given in columns:
        cell = cells.get(column.name)
        if cell is None or cell.printed is not None:
            continue
        if given.format == "params":
            cells[column.name] = replace(cell, printed=_params(cell.value, cell.signed))
        elif given.share_of and given.share_of in cells:
            share = 100 * cell.value / cells[given.share_of].value
            cells[column.name] = replace(cell, printed=f"{cell.value:.{given.decimals or 0}f} ({share:.2f} %)")
        elif given.decimals is not None:
            cells[column.name] = replace(cell, decimals=given.decimals)
    return replace(row, cells=cells)


def _params(millions: float, signed: bool) -> str:
    """157M, 1.03B; below ten millions with three digits."""
    if signed:
        return f"{millions:+.1f}M"
    if millions >= 1000:
        return f"{millions / 1000:.2f}".rstrip("0").rstrip(".") + "B"
    return f"{millions:.0f}M" if millions >= 10 else f"{millions:.3g}M"


def _marks(rows: list[Row], layout: Layout) -> tuple[list[Row], list[tuple[str, str]]]:
    """The layout's marks at the names of rows."""
    footnotes = {}
    marked = []
    for row in rows:
        marks = list(row.marks)
        for entry in layout.marks:
            plain = row.name.removesuffix(" (reported)")
            if plain in entry.rows and (entry.where == "any" or row.group == "reported"):
                marks.append(entry.mark)
                footnotes[entry.mark] = entry.text
        marked.append(replace(row, marks=tuple(marks)))
    return marked, list(footnotes.items())


def _of_facts(layout: Layout, facts: Sequence[Fact], with_paper: bool) -> Table:
    """A table of rows that come from no run."""
    reported = paper_rows.read(layout.paper) if with_paper and layout.paper else []
    if not facts and not reported:
        raise UsageError(f"layout {layout.name}: nothing to print")
    order = {row.name: i for i, row in enumerate(layout.rows)}
    columns = [(replace(_no_metric(c), head=c.head, sub=c.sub, group=c.group), c) for c in layout.columns]
    rows = []
    for fact in sorted(facts, key=lambda f: order.get(f.name, len(order))):
        cells, words = _cells(fact)
        rows.append(Row(fact.name, "models", cells, {"scored": ""}, {}, (), None, words=words))
    rows += [r.row({c.name for c in layout.columns}) for r in reported]
    notes = [f"{fact.name}: {text}" for fact in facts for text in fact.remarks]
    notes += [paper_rows.note(layout.paper or "")] if reported else []
    return Table(
        layout.title,
        tuple(column for column, _ in columns),
        tuple(_printed(row, columns) for row in rows),
        tuple(notes),
        layout.label,
        stub=layout.stub,
        caption=layout.caption,
        counted=False,
    )
