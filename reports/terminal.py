"""What people see in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports.model import Column, Row, Table
from reports.significance import MARK

if TYPE_CHECKING:
    from av_bench.registry import ClassGroup
    from av_bench.results.findings import Finding, Outcome
    from av_bench.results.gate import Verdict


def console() -> Console:
    """Standard output; wide enough to keep rows whole when it is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)


def show(tables: Sequence[Table]) -> None:
    """Tables with best bold and second underlined; columns that do not fit side by side follow below."""
    out = console()
    for table in tables:
        blocks = _blocks(table, out.width)
        for number, columns in enumerate(blocks):
            view = RichTable(
                title=None if number else table.caption or table.title, title_justify="left", title_style="bold"
            )
            view.add_column("model", overflow="fold")
            for column in columns:
                view.add_column(column.heading, justify="right", min_width=_width(table, column))
            last = number == len(blocks) - 1 and table.counted
            if last:
                view.add_column("n", justify="right")
            for i, row in enumerate(table.rows):
                if i and row.group != table.rows[i - 1].group:
                    view.add_section()
                cells = [_cell(row, column) for column in columns]
                view.add_row(Text(row.title), *cells, *([str(row.counts["scored"])] if last else []))
            out.print(view)
        for mark, text in table.footnotes:
            out.print(Text(f"  {mark} {text}", style="yellow"))
        for note in table.notes:
            out.print(Text(f"  {note}", style="yellow" if note.startswith("Warning") else "dim"))


def _width(table: Table, column: Column) -> int:
    """Characters that no cell of a column, and no word of its heading, is wider than."""
    cells = [len(_cell(row, column)) for row in table.rows]
    return max(*cells, *map(len, column.heading.split()))


def _blocks(table: Table, width: int) -> list[list[Column]]:
    """Columns in order, as many together as ``width`` characters hold beside the names and the count."""
    frame = 3  # a border and two blanks
    names = min(max([len("model"), *(len(row.title) for row in table.rows)]), width // 3)
    room = width - 1 - (names + frame) - (max(len(str(row.counts["scored"])) for row in table.rows) + frame)
    blocks: list[list[Column]] = [[]]
    used = 0
    for column in table.columns:
        needed = _width(table, column) + frame
        if blocks[-1] and used + needed > room:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += needed
    return blocks


def _cell(row: Row, column: Column) -> Text:
    cell = row.cells.get(column.name)
    if cell is None:
        return Text(row.words.get(column.name, ""))
    text = Text(cell.number, style={1: "bold", 2: "underline"}.get(cell.rank or 0, ""))
    behind = cell.behind(True).replace("± ", "±")
    if behind:
        text.append(behind, style="dim not bold not underline")
    if cell.tied:
        text.append(f" {MARK}", style="dim not bold not underline")
    if cell.marks:
        text.append("".join(cell.marks), style="not bold not underline")
    return text


def show_verdict(verdict: Verdict) -> None:
    """The gate's table and its one-word result."""
    from av_bench.results.gate_report import cells, headline

    out = console()
    view = RichTable(title=f"{verdict.new} against {verdict.base}", title_justify="left")
    for name, side in (("check", "left"), ("baseline", "right"), ("new", "right"), ("difference", "right")):
        view.add_column(name, justify=side)  # type: ignore[arg-type]
    view.add_column("outcome")
    view.add_column("why", overflow="fold")
    styles = {"improvement": "green", "cannot tell": "yellow"}
    for check in verdict.checks:
        style = "red bold" if not check.passed else styles.get(check.outcome, "")
        view.add_row(Text(check.name), *cells(check), Text(check.outcome, style=style), Text(check.detail))
    out.print(view)
    for note in verdict.notes:
        out.print(Text(f"  {note}", style="dim"))
    out.print(Text(f"gate {headline(verdict)}", style="green bold" if verdict.passed else "red bold"))


def show_names(group: str) -> None:
    """Names of a group with what one needs to know to choose."""
    show_columns(_names(group))


def show_columns(columns: Mapping[str, Sequence[str]]) -> None:
    """A plain table of texts, heading -> cells."""
    view = RichTable(box=None, pad_edge=False)
    for heading in columns:
        view.add_column(heading, overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        view.add_row(*map(Text, cells))
    console().print(view)


def _names(group: str) -> dict[str, list[str]]:
    import protocols
    from av_bench import registry

    if group == "sets":
        sets = [protocols.load_set(n) for n in protocols.set_names()]
        return {"set": [s.name for s in sets], "version": [s.version for s in sets], "what": [s.title for s in sets]}
    if group == "protocols":
        found = [protocols.load_protocol(n) for n in protocols.protocol_names()]
        names = [p.name for p in found]
        return {
            "protocol": names,
            "version": [p.version for p in found],
            "metrics": [", ".join(p.metrics) for p in found],
            "on request": [", ".join(p.optional) for p in found],
        }
    known = next(name for name in registry.CLASS_GROUPS if name == group)
    names = registry.names(known)
    return {group.removesuffix("s"): names, "what": [_first_line(known, n) for n in names]}


def _first_line(group: ClassGroup, name: str) -> str:
    from av_bench import registry
    from av_bench.contracts import AvBenchError

    try:
        return registry.first_line(group, name)
    except (ImportError, AvBenchError) as error:
        return f"not usable here: {error}"


def show_findings(findings: Sequence[Finding]) -> None:
    """The doctor's table."""
    view = RichTable(box=None, pad_edge=False)
    for name in ("what", "status", "detail"):
        view.add_column(name, overflow="fold")
    styles = {"ok": "green", "missing": "yellow", "broken": "red bold"}
    for finding in findings:
        view.add_row(finding.what, Text(finding.status, style=styles[finding.status]), Text(finding.detail))
    console().print(view)


def show_selfcheck(outcome: Outcome) -> None:
    """Reactions and series."""
    out = console()
    view = RichTable(title=f"selfcheck on {outcome.set}, {outcome.clips} clips", title_justify="left")
    for name in ("damage", "metric", "oracle", "damaged", "difference", "reacted"):
        view.add_column(name, justify="left" if name in ("damage", "metric", "reacted") else "right")
    for r in outcome.reactions:
        interval = "" if r.low is None else f"{r.value - r.base:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
        mark = Text("yes", style="green") if r.reacted else Text("NO", style="red bold")
        view.add_row(Text(r.model), r.metric, f"{r.base:.3f}", f"{r.value:.3f}", interval, mark)
    out.print(view)
    for s in outcome.series:
        steps = "  ".join(f"{m.partition(':')[2] or m} {v:.3f}" for m, v in zip(s.models, s.values, strict=True))
        style = "green" if s.rises else "red bold"
        out.print(Text(f"{s.metric} {'rises' if s.rises else 'does NOT rise'} step by step: {steps}", style=style))
