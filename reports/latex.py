"""Tables as LaTeX that fits: a column of a two-column article where it can, else the whole page.

Nothing is scaled (``resizebox`` makes letters of any size). Instead the widths are reckoned in Computer Modern, and the
first setting that fits is taken: letters from 9 pt down to 7 pt, less room between columns, intervals on a line of
their own, and at last the columns in several blocks below each other. The widths that must hold are those of the
narrowest common class (``article``, twocolumn, 10 pt); in others the table has air.

Needs booktabs and xcolor; ``--landscape`` needs rotating too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from reports.latex_text import SIZES, breakable, comment, escape, width
from reports.model import Cell, Column, Row, Table
from reports.significance import MARK

COLUMN, PAGE, TURNED = 200.0, 410.0, 550.0  # pt: \columnwidth, \textwidth and \textheight of the narrowest class
LINES, LINES_TURNED = 52, 34  # of rows on a page, below a caption
REPORTED = " (reported)"
_NAME_SHARE = 0.42  # of the width, for the names; longer ones are broken
_SUB = 0.72  # size of a subscript


@dataclass(frozen=True)
class _Setting:
    """How a table is set: environment and width in pt, letter size, half the room between columns in pt."""

    environment: str
    room: float
    size: str
    gap: float
    stacked: bool = False  # intervals on a line of their own

    @property
    def points(self) -> float:
        return SIZES[self.size]


def latex(tables: Sequence[Table], intervals: bool = True, landscape: bool = False) -> str:
    """All tables, each a float of its own."""
    packages = ["booktabs", "xcolor", *(["rotating"] if landscape else [])]
    head = "% needs " + " ".join(rf"\usepackage{{{p}}}" for p in packages)
    return "\n\n".join([head, *(text for table in tables for text in _floats(table, intervals, landscape))]) + "\n"


def _settings(landscape: bool) -> Iterator[_Setting]:
    """From the most to the least comfortable."""
    if landscape:
        for size in SIZES:
            yield from (_Setting("sidewaystable*", TURNED, size, gap) for gap in (5.0, 3.5, 2.5))
        yield _Setting("sidewaystable*", TURNED, "scriptsize", 2.5, stacked=True)
        return
    for size, gap in (("small", 4.0), ("small", 3.0), ("footnotesize", 3.5), ("footnotesize", 2.5)):
        yield _Setting("table", COLUMN, size, gap)
    for size, gaps in (("small", (5.0, 3.5)), ("footnotesize", (4.0, 3.0, 2.2)), ("scriptsize", (3.0, 2.0))):
        yield from (_Setting("table*", PAGE, size, gap) for gap in gaps)
    for size, gap in (("footnotesize", 3.0), ("footnotesize", 2.2), ("scriptsize", 3.0), ("scriptsize", 1.8)):
        yield _Setting("table*", PAGE, size, gap, stacked=True)


def _floats(table: Table, intervals: bool, landscape: bool) -> list[str]:
    """The floats of a table: one, or several where it is higher than a page."""
    setting, blocks = _fitting(table, intervals, landscape)
    limit = (LINES_TURNED if landscape else LINES) // (2 if setting.stacked and intervals else 1)
    pages: list[list[Table]] = [[]]
    for columns in blocks:
        for start in range(0, max(1, len(table.rows)), limit):
            part = replace(table, columns=columns, rows=table.rows[start : start + limit])
            used = sum(len(t.rows) + 3 for t in pages[-1])
            if pages[-1] and used + len(part.rows) + 3 > limit:
                pages.append([])
            pages[-1].append(replace(part, counted=table.counted and columns == blocks[-1]))
    printed, in_source = _notes(table)
    made = [_float(page, table, intervals, setting, number) for number, page in enumerate(pages)]
    if printed:
        notes = rf"\par\vspace{{2pt}}\n\parbox{{\linewidth}}{{\scriptsize\raggedright {' '.join(printed)}}}".replace(
            "\\n", "\n"
        )
        end = rf"\end{{{setting.environment}}}"
        made[-1] = made[-1].removesuffix(end) + notes + "\n" + end
    return ["\n".join([*(comment(note) for note in in_source), made[0]]), *made[1:]]


def _float(parts: Sequence[Table], whole: Table, intervals: bool, setting: _Setting, number: int) -> str:
    wide = setting.environment != "table"
    lines = [rf"\begin{{{setting.environment}}}[t]", r"\centering", rf"\{setting.size}"]
    lines.append(rf"\setlength{{\tabcolsep}}{{{setting.gap:g}pt}}")
    caption = whole.caption or whole.title + "."
    lines.append(rf"\caption{{{breakable(caption + (' (continued)' if number else ''), every=30)}}}")
    if not number:
        lines.append(rf"\label{{tab:{''.join(c for c in whole.label if c.isalnum() or c == '-')}}}")
    for at, part in enumerate(parts):
        lines += [r"\par\smallskip"] if at else []
        lines += _tabular(part, intervals, setting, wide)
    return "\n".join([*lines, rf"\end{{{setting.environment}}}"])


def _fitting(table: Table, intervals: bool, landscape: bool) -> tuple[_Setting, list[tuple[Column, ...]]]:
    """The first setting that fits, and the columns of each block."""
    setting = None
    for setting in _settings(landscape):
        if _natural(table, intervals, setting) <= setting.room:
            return setting, [table.columns]
    assert setting is not None
    blocks: list[tuple[Column, ...]] = [()]
    for column in table.columns:
        tried = (*blocks[-1], column)
        if blocks[-1] and _natural(replace(table, columns=tried), intervals, setting) > setting.room:
            blocks.append((column,))
        else:
            blocks[-1] = tried
    return setting, blocks


def _natural(table: Table, intervals: bool, setting: _Setting) -> float:
    """Width in pt the tabular takes."""
    widths = [_name_width(table, setting)]
    for column in table.columns:
        widths.append(_column_width(table, column, intervals, setting))
    for name, columns in groupby(table.columns, key=lambda c: c.group):
        members = list(columns)
        if name:
            at = 1 + table.columns.index(members[0])
            span = sum(widths[at : at + len(members)]) + 2 * setting.gap * (len(members) - 1)
            longest = max(width(line, setting.points) for line in _wrapped(name.split(), span, setting.points))
            widths[at] += max(0.0, longest - span)
    if table.counted:
        widths.append(max(width(w, setting.points) for w in ["n", *(str(r.counts["scored"]) for r in table.rows)]))
    return sum(widths) + 2 * setting.gap * (len(widths) - 1)


def _name_width(table: Table, setting: _Setting) -> float:
    longest = max(width(text, setting.points) for text in [table.stub, *(_name(r) for r in table.rows)])
    return min(longest, _NAME_SHARE * setting.room)


def _name(row: Row) -> str:
    """The name with its marks; rows as reported are set in italics instead of saying so."""
    return row.title.replace(REPORTED, "")


def _column_width(table: Table, column: Column, intervals: bool, setting: _Setting) -> float:
    body = [_cell_width(row, column, intervals, setting) for row in table.rows]
    return max([*body, *(w for _, w in _head(table, column, intervals, setting))])


def _cell_width(row: Row, column: Column, intervals: bool, setting: _Setting) -> float:
    size, cell = setting.points, row.cells.get(column.name)
    if cell is None:
        return width(row.words.get(column.name, "--"), size)
    number = width(cell.number, size, bold=cell.rank == 1) + 0.6 * size * _SUB * len("".join(cell.marks))
    behind = width(f"{cell.behind(intervals)}{f' {MARK}' if cell.tied else ''}".strip(), 7.0)
    return max(number, behind) if setting.stacked else number + (behind + 0.4 * size if behind else 0.0)


def _head(table: Table, column: Column, intervals: bool, setting: _Setting) -> list[tuple[str, float]]:
    """Lines of a column's heading with their widths: broken at blanks where the column is narrower."""
    size = setting.points
    arrow = f"$\\{'up' if column.arrow == '↑' else 'down'}arrow$" if column.arrow else ""
    tail = width("0", size) if arrow else 0.0
    unit = f" ({column.unit})" if column.unit else ""
    if column.sub:
        name = rf"$\mathrm{{{_math(column.head or column.name)}}}_{{\mathrm{{{_math(column.sub)}}}}}$"
        wide = width(column.head or column.name, size) + width(column.sub, size * _SUB)
        lines = [(name, wide), *([(escape(unit.strip()), width(unit.strip(), size))] if unit else [])]
    else:
        words = [*(column.head or column.name).split(), *unit.split()]
        room = max([_cell_width(row, column, intervals, setting) for row in table.rows] or [0.0])
        lines = [(escape(line), width(line, size)) for line in _wrapped(words, room, size)]
    lines[-1] = (lines[-1][0] + arrow, lines[-1][1] + tail)
    return lines


def _wrapped(words: Sequence[str], room: float, size: float) -> list[str]:
    """Words on as few lines as ``room`` pt (or the longest word) allows."""
    room = max([room, *(width(w, size) for w in words)])
    lines: list[str] = []
    for word in words:
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _math(text: str) -> str:
    return escape(text).replace("-", r"\mbox{-}").replace(" ", r"\ ")


def _tabular(table: Table, intervals: bool, setting: _Setting, wide: bool) -> list[str]:
    counted = table.counted
    names = _name_width(table, setting)
    broken = any(width(_name(row), setting.points) > names for row in table.rows)
    first = f"p{{{names:.0f}pt}}" if broken else "l"
    kinds = "".join("l" if any(c.name in r.words for r in table.rows) else "r" for c in table.columns)
    fill = r"@{\extracolsep{\fill}}" if wide else ""
    layout = f"@{{}}{first}{fill}{kinds}{'r' if counted else ''}@{{}}"
    begin = rf"\begin{{tabular*}}{{\linewidth}}{{{layout}}}" if wide else rf"\begin{{tabular}}{{{layout}}}"
    lines = [begin, r"\toprule", *_headings(table, intervals, setting, counted)]
    for rows in table.sections:
        lines.append(r"\midrule")
        if rows[0].section:
            span = 1 + len(table.columns) + counted
            lines.append(rf"\multicolumn{{{span}}}{{@{{}}l}}{{\textit{{{escape(rows[0].section)}}}}} \\")
        for row in rows:
            lines += _lines(row, table, intervals, setting, broken, counted)
    return [*lines, r"\bottomrule", rf"\end{{tabular{'*' if wide else ''}}}"]


def _headings(table: Table, intervals: bool, setting: _Setting, counted: bool) -> list[str]:
    found = _groups(table, intervals, setting, counted) if any(c.group for c in table.columns) else []
    heads = [_head(table, column, intervals, setting) for column in table.columns]
    height = max((len(h) for h in heads), default=1)
    for line in range(height):
        bottom = line == height - 1
        cells = [escape(table.stub) if bottom else ""]
        for head in heads:
            at = line - (height - len(head))
            cells.append(rf"\multicolumn{{1}}{{c}}{{{head[at][0]}}}" if at >= 0 else "")
        found.append(" & ".join(cells + (["$n$" if bottom else ""] if counted else [])) + r" \\")
    return found


def _groups(table: Table, intervals: bool, setting: _Setting, counted: bool) -> list[str]:
    """Lines of the headings over several columns, and the rules below them."""
    groups, rules, at = [], [], 2
    for name, members in groupby(table.columns, key=lambda c: c.group):
        inside = list(members)
        room = sum(_column_width(table, c, intervals, setting) for c in inside) + 2 * setting.gap * (len(inside) - 1)
        groups.append((len(inside), _wrapped(name.split(), room, setting.points)))
        rules += [rf"\cmidrule(lr){{{at}-{at + len(inside) - 1}}}"] if name else []
        at += len(inside)
    height = max(len(lines) for _, lines in groups)
    found = []
    for line in range(height):
        cells = [""]
        for count, lines in groups:
            above = line - (height - len(lines))
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(lines[above]) if above >= 0 else ''}}}")
        found.append(" & ".join(cells + [""] * counted) + r" \\")
    return [*found, " ".join(rules)]


def _lines(row: Row, table: Table, intervals: bool, setting: _Setting, broken: bool, counted: bool) -> list[str]:
    """One row; with stacked intervals a second line below it."""
    plain = row.name.removesuffix(REPORTED)
    name = breakable(plain) if broken else escape(plain)
    name = rf"\textit{{{name}}}" if plain != row.name else name
    name += "".join(rf"\textsuperscript{{{escape(m)}}}" for m in row.marks)
    # braces: a row that begins with [ or * would be read as an option of the line end before it
    cells = [rf"{{\raggedright {name}\par}}" if broken else f"{{{name}}}"]
    below = [""]
    for column in table.columns:
        cell = row.cells.get(column.name)
        if cell is None:
            cells.append(escape(row.words.get(column.name, "")) or "--")
            below.append("")
            continue
        behind = _behind(cell, intervals)
        cells.append(_number(cell) + ("" if setting.stacked or not behind else f" {behind}"))
        below.append(behind if setting.stacked else "")
    if counted:
        cells.append(str(row.counts["scored"]))
        below.append("")
    if row.grey:
        cells = [rf"\textcolor{{gray}}{{{cell}}}" if cell else "" for cell in cells]
        below = [rf"\textcolor{{gray}}{{{cell}}}" if cell else "" for cell in below]
    lines = [" & ".join(cells) + r" \\"]
    if any(below):
        lines.append(" & ".join(below) + r" \\[1pt]")
    return lines


def _number(cell: Cell) -> str:
    number = escape(cell.number)
    ranked = {1: rf"\textbf{{{number}}}", 2: rf"\underline{{{number}}}"}.get(cell.rank or 0, number)
    return ranked + "".join(rf"\textsuperscript{{{escape(m)}}}" for m in cell.marks)


def _behind(cell: Cell, intervals: bool) -> str:
    text = f"{cell.behind(intervals)}{f' {MARK}' if cell.tied else ''}".strip()
    return rf"{{\scriptsize {escape(text)}}}" if text else ""


def _notes(table: Table) -> tuple[list[str], list[str]]:
    """What is printed below the table, and what is only in the source: full accounts of clips and seconds."""
    printed = [rf"\textsuperscript{{{escape(mark)}}}\,{_sentence(text)}" for mark, text in table.footnotes]
    in_source = []
    for note in table.notes:
        if (
            note.startswith("Warning: ")
            or note.startswith("Reported rows")
            or note.startswith("Rows are scored")
            or note.startswith(MARK)
        ):
            printed.append(_sentence(note))
        else:
            in_source.append(note)
    if any(row.name.endswith(REPORTED) for row in table.rows):
        printed.append("In italics: as reported.")
    return printed, in_source


def _sentence(text: str) -> str:
    return breakable(text if text.endswith((".", "!", "?")) else text + ".", every=30)
