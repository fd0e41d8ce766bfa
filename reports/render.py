"""Tables as Markdown, CSV and HTML (LaTeX: ``reports.latex``). Text from outside is escaped for the target format."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import partial

from av_bench.contracts import UsageError, unknown_name
from reports.latex import latex
from reports.model import Cell, Row, Table
from reports.significance import MARK


def render(tables: Sequence[Table], form: str, intervals: bool = True, landscape: bool = False) -> str:
    """All tables in one of the formats markdown, latex, csv, html; ``landscape`` turns LaTeX tables."""
    forms: dict[str, Callable[[Sequence[Table], bool], str]] = {
        "markdown": _markdown,
        "latex": partial(latex, landscape=landscape),
        "csv": _csv,
        "html": _html,
    }
    if form not in forms:
        raise UsageError(unknown_name("format", form, sorted(forms)))
    return forms[form](tables, intervals)


def _markdown(tables: Sequence[Table], intervals: bool) -> str:
    blocks = []
    for table in tables:
        names = [c.heading for c in table.columns]
        head = [markdown_text(table.stub), *map(markdown_text, names), *(["n"] if table.counted else [])]
        lines = [f"**{markdown_text(table.caption or table.title)}**", "", f"| {' | '.join(head)} |"]
        lines.append("|---|" + "---:|" * (len(head) - 1))
        for section in table.sections:
            if section[0].section:
                lines.append(f"| *{markdown_text(section[0].section)}* |" + " |" * (len(head) - 1))
            for row in section:
                cells = [_md_cell(row, c.name, intervals) for c in table.columns]
                cells += [str(row.counts["scored"])] if table.counted else []
                lines.append(f"| {' | '.join([markdown_text(row.title), *cells])} |")
        lines += ["", *[f"- {markdown_text(mark)} {markdown_text(text)}" for mark, text in table.footnotes]]
        lines += [f"- {markdown_text(note)}" for note in table.notes]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def markdown_text(text: str) -> str:
    """Text for a cell of a Markdown table."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)  # what would begin HTML; "n < 2" stays readable as text


def _md_cell(row: Row, column: str, intervals: bool) -> str:
    cell = row.cells.get(column)
    if cell is None:
        return markdown_text(row.words.get(column, ""))
    number = cell.number
    marked = {1: f"**{number}**", 2: f"<u>{number}</u>"}.get(cell.rank or 0, number)
    return marked + cell.text(intervals)[len(number) :] + (f" {MARK}" if cell.tied else "")


def _csv(tables: Sequence[Table], intervals: bool) -> str:
    """Long form: one line per row and metric, full precision; text that a spreadsheet would run is quoted by '."""
    del intervals
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    of = ["set", "set_version", "protocol", "protocol_version", "flavour"]
    writer.writerow(
        [*of, "model", "kind", "metric", "value", "half_width", "n", "higher_is_better", "unit", "printed", "mark"]
    )
    for table in tables:
        head = [csv_text(t) for t in (table.of[0], table.version, *table.protocol, table.of[1])]
        for row in table.rows:
            for column in table.columns:
                cell = row.cells.get(column.name)
                if cell is not None:
                    half = "" if cell.half_width is None else repr(cell.half_width)
                    n = "" if cell.n is None else cell.n
                    about = [csv_text(row.name), row.group, column.name]
                    data = [repr(cell.value), half, n, column.higher_is_better, column.unit, cell.number, _mark(cell)]
                    writer.writerow([*head, *about, *data])
    return sink.getvalue()


def _mark(cell: Cell) -> str:
    return "best" if cell.rank == 1 else "not distinguishable from the best" if cell.tied else ""


def csv_text(text: str) -> str:
    """Text that a spreadsheet would run as a formula is quoted."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _html(tables: Sequence[Table], intervals: bool) -> str:
    return from_template("table.html.j2", tables, intervals)


def from_template(name: str, tables: Sequence[Table], intervals: bool) -> str:
    """A page (``table.html.j2``) or a part of one (``tables.html.j2``)."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("reports"), autoescape=select_autoescape(["html.j2"], default=True))
    return environment.get_template(name).render(tables=tables, intervals=intervals)
