"""A table as data: columns, rows, cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av_bench.results.shapes import Clean

GROUPS = ("bounds", "models", "reported", "difference")


@dataclass(frozen=True)
class Column:
    """A metric column with its direction."""

    name: str
    higher_is_better: bool
    unit: str
    metric: bool = True  # params and s/sample describe a model and have no better direction
    ranked: bool = True  # numbers of different networks rank nothing
    head: str = ""  # what stands over the column instead of the name
    sub: str = ""  # subscript of the head: the network behind a metric
    group: str = ""  # heading over several columns

    @property
    def title(self) -> str:
        """Head and subscript in one line, without direction and unit."""
        head = self.head or self.name
        return f"{head}-{self.sub}" if self.sub else head

    @property
    def heading(self) -> str:
        """Name, unit and direction."""
        return f"{self.title}{f' ({self.unit})' if self.unit else ''} {self.arrow}".rstrip()

    @property
    def arrow(self) -> str:
        """Direction of better."""
        if not self.metric:
            return ""
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class Cell:
    """A number with its 95 % interval half width, and its rank among the ranked rows (1, 2 or None).

    ``tied``: not the best of its column, but the difference is within noise.
    """

    value: float
    half_width: float | None
    n: int | None  # None: a number that is only reported
    rank: int | None = None
    decimals: int | None = None
    signed: bool = False
    tied: bool = False
    printed: str | None = None  # the number as text: as it was printed elsewhere, or in a form of its own
    spread: str | None = None  # standard deviation over responses, printed behind the value
    marks: tuple[str, ...] = ()  # footnote marks, each explained once in ``Table.footnotes``

    @property
    def digits(self) -> int:
        """Decimals: four significant digits, at least two decimals."""
        if self.decimals is not None:
            return self.decimals
        size = abs(self.value)
        return 2 if size >= 10 else 3

    @property
    def number(self) -> str:
        """The value alone, as printed."""
        if self.printed is not None:
            return self.printed
        return f"{self.value:{'+' if self.signed else ''}.{self.digits}f}"

    def text(self, interval: bool) -> str:
        """The number as printed, with its marks."""
        return self.number + self.behind(interval) + "".join(self.marks)

    def behind(self, interval: bool) -> str:
        """What stands behind the number: the spread over responses, or the half width of the interval."""
        if self.spread is not None:
            return f" ± {self.spread}"
        if interval and self.half_width is not None:
            return f" ± {self.half_width:.{self.digits}f}"
        return ""


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    group: str  # "bounds", "models", "reported" or "difference"
    cells: dict[str, Cell]
    counts: Mapping[str, Any]
    absent: dict[str, str]
    warnings: tuple[str, ...]
    path: Path | None  # None: not one of our runs
    clean: Clean | None = None
    model_notes: tuple[str, ...] = ()  # about parameters, seconds and spread
    paper: tuple[tuple[str, str], ...] = ()  # (table, row) of the paper that report the same model
    remarks: tuple[str, ...] = ()  # what metrics say about their own values
    words: dict[str, str] = field(default_factory=dict)  # columns that hold text
    marks: tuple[str, ...] = ()  # footnote marks at the name
    grey: bool = False  # not comparable with the other rows
    section: str = ""  # rows of one section stand together under this heading

    @property
    def title(self) -> str:
        """The name with its marks."""
        return f"{self.name} {''.join(self.marks)}".rstrip()


@dataclass(frozen=True)
class Table:
    """One table: what it is about, its columns, its rows and the notes under it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    label: str
    of: tuple[str, str] = ("", "")  # set and flavour
    protocol: tuple[str, str] = ("", "")  # name and version
    version: str = ""  # of the set
    stub: str = "model"  # heading over the names
    caption: str = ""  # what a paper prints instead of the title
    footnotes: tuple[tuple[str, str], ...] = ()  # (mark, text)
    counted: bool = True  # a last column with n

    @property
    def sections(self) -> list[list[Row]]:
        """Rows that stand together, in order; empty ones are left out.

        Bounds first, then models, rows as reported, differences; rows with a section of their own come by it.
        """
        named = list(dict.fromkeys(row.section for row in self.rows if row.section))
        groups = [[r for r in self.rows if not r.section and r.group == group] for group in GROUPS]
        groups += [[r for r in self.rows if r.section == name] for name in named]
        return [rows for rows in groups if rows]


def params_cell(millions: float) -> Cell:
    """Parameters in millions."""
    return Cell(millions, None, None, decimals=0 if millions >= 10 else 3)
