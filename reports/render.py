"""Tables as Markdown, LaTeX, CSV and HTML. Text that comes from outside is escaped for the target format."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from av_bench.contracts import UsageError, unknown_name
from reports.model import Cell, Row, Table
from reports.significance import MARK

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


def render(tables: Sequence[Table], form: str, intervals: bool = True) -> str:
    """All tables in one of the formats markdown, latex, csv, html."""
    forms: dict[str, Callable[[Sequence[Table], bool], str]] = {
        "markdown": _markdown,
        "latex": _latex,
        "csv": _csv,
        "html": _html,
    }
    if form not in forms:
        raise UsageError(unknown_name("format", form, sorted(forms)))
    return forms[form](tables, intervals)


def latex_escape(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def _sections(rows: Sequence[Row]) -> list[list[Row]]:
    """Bounds first, then models, rows as reported, differences; empty sections are left out."""
    groups = ("bounds", "models", "reported", "difference")
    return [s for s in ([r for r in rows if r.group == g] for g in groups) if s]


def _markdown(tables: Sequence[Table], intervals: bool) -> str:
    blocks = []
    for table in tables:
        names = [c.heading for c in table.columns]
        lines = [f"**{markdown_text(table.title)}**", "", f"| {' | '.join(['model', *names, 'n'])} |"]
        lines.append("|---|" + "---:|" * (len(names) + 1))
        for section in _sections(table.rows):
            for row in section:
                cells = [_md_cell(row.cells.get(c.name), intervals) for c in table.columns]
                lines.append(f"| {' | '.join([markdown_text(row.name), *cells, str(row.counts['scored'])])} |")
        lines += ["", *[f"- {markdown_text(note)}" for note in table.notes]]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def markdown_text(text: str) -> str:
    """Text for a cell of a Markdown table."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)  # what would begin HTML; "n < 2" stays readable as text


def _md_cell(cell: Cell | None, intervals: bool) -> str:
    if cell is None:
        return ""
    number = cell.number
    marked = {1: f"**{number}**", 2: f"<u>{number}</u>"}.get(cell.rank or 0, number)
    return marked + cell.text(intervals)[len(number) :] + (f" {MARK}" if cell.tied else "")


def _latex(tables: Sequence[Table], intervals: bool) -> str:
    blocks = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        heads = [latex_escape(c.heading) for c in table.columns]
        lines = [r"\begin{table}[t]", r"\centering", r"\small", r"\begin{tabular}{l" + "r" * len(heads) + "r}"]
        lines += [r"\toprule", " & ".join(["Model", *heads, "$n$"]) + r" \\"]
        for section in _sections(table.rows):
            lines.append(r"\midrule")
            for row in section:
                cells = [_tex_cell(row.cells.get(c.name), intervals) for c in table.columns]
                # braces: a row that begins with [ or * would be read as an option of the line end before it
                cells = [f"{{{latex_escape(row.name)}}}", *cells, str(row.counts["scored"])]
                lines.append(f"{' & '.join(cells)} \\\\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        notes = " ".join(note if note.endswith(".") else note + "." for note in table.notes)
        lines.append(rf"\caption{{{latex_escape(table.title)}. {latex_escape(notes)}}}")
        lines.append(rf"\label{{tab:{''.join(c for c in table.label if c.isalnum() or c == '-')}}}")
        lines.append(r"\end{table}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _tex_cell(cell: Cell | None, intervals: bool) -> str:
    if cell is None:
        return "--"
    number = cell.number
    marked = {1: rf"\textbf{{{number}}}", 2: rf"\underline{{{number}}}"}.get(cell.rank or 0, number)
    if intervals and cell.half_width is not None:
        marked += rf" {{\scriptsize $\pm$ {cell.half_width:.{cell.digits}f}}}"
    if cell.tied:
        marked += r" $\approx$"
    return marked


def _csv(tables: Sequence[Table], intervals: bool) -> str:
    """Long form: one line per row and metric, full precision; text that a spreadsheet would run is quoted by '."""
    del intervals
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["table", "model", "metric", "value", "half_width", "n", "higher_is_better", "unit", "mark"])
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells.get(column.name)
                if cell is not None:
                    half = "" if cell.half_width is None else repr(cell.half_width)
                    head = [csv_text(table.title), csv_text(row.name), column.name]
                    n = "" if cell.n is None else cell.n
                    mark = "best" if cell.rank == 1 else "not distinguishable from the best" if cell.tied else ""
                    writer.writerow([*head, repr(cell.value), half, n, column.higher_is_better, column.unit, mark])
    return sink.getvalue()


def csv_text(text: str) -> str:
    """Text that a spreadsheet would run as a formula is quoted."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _html(tables: Sequence[Table], intervals: bool) -> str:
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("reports"), autoescape=select_autoescape(default=True))
    sections = [_sections(table.rows) for table in tables]
    template = environment.get_template("table.html.j2")
    return template.render(tables=list(zip(tables, sections, strict=True)), intervals=intervals)
