"""A table as data: columns, rows, cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Column:
    """A metric column with its direction."""

    name: str
    higher_is_better: bool
    unit: str
    metric: bool = True  # params and s/sample describe a model and have no better direction
    ranked: bool = True  # numbers of different networks rank nothing

    @property
    def heading(self) -> str:
        """Name, unit and direction."""
        return f"{self.name}{f' ({self.unit})' if self.unit else ''} {self.arrow}".rstrip()

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
        return f"{self.value:{'+' if self.signed else ''}.{self.digits}f}"

    def text(self, interval: bool) -> str:
        """The number as printed."""
        shown = self.number
        if interval and self.half_width is not None:
            shown += f" ± {self.half_width:.{self.digits}f}"
        return shown


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    group: str  # "bounds", "models", "reported" or "difference"
    cells: dict[str, Cell]
    counts: dict[str, Any]
    absent: dict[str, str]
    warnings: tuple[str, ...]
    path: Path | None  # None: not one of our runs
    clean: dict[str, Any] | None = None
    said: tuple[str, ...] = ()  # about parameters, seconds and spread
    paper: tuple[tuple[str, str], ...] = ()  # (table, row) of the paper that report the same model
    remarks: tuple[str, ...] = ()  # what metrics say about their own values


@dataclass(frozen=True)
class Table:
    """One table: what it is about, its columns, its rows and what must be said under it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    label: str
    of: tuple[str, str] = ("", "")  # set and flavour


def params_cell(millions: float) -> Cell:
    """Parameters in millions."""
    return Cell(millions, None, None, decimals=0 if millions >= 10 else 3)
