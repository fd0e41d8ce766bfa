"""Layouts of tables as data: ``protocols/layouts/*.yaml``, or a YAML file of the user's.

A layout says which columns a table has, how they are headed and rounded, which rows stand where, which rows of the
MMAudio paper belong to it, and what is said under it. It holds no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import protocols
from av_bench.contracts import UsageError, unknown_name
from av_bench.schema import read_yaml

FOLDER = Path(protocols.__file__).parent / "layouts"
Source = Literal["runs", "study", "audit", "codecs", "variants", "training"]


@dataclass(frozen=True)
class ColumnLayout:
    """One column. ``stand_ins``: columns of other networks that stand here instead, under their own names."""

    name: str
    head: str = ""
    sub: str = ""
    group: str = ""
    decimals: int | None = None
    format: Literal["", "params"] = ""
    direction: Literal["", "up", "down"] = ""  # of a column that is not a metric of a protocol
    spread: str = ""  # column of the paper's data that holds the standard deviation
    share_of: str = ""  # column the number is also printed as a share of
    from_sets: tuple[str, ...] = ()  # sets whose runs give this column
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowLayout:
    """One row: a setting, and the names of runs that stand for it."""

    name: str
    runs: tuple[str, ...] = ()
    section: str = ""
    default: bool = False


@dataclass(frozen=True)
class MarkLayout:
    """A footnote mark at the names of some rows. ``where``: at reported rows only, or at any row of that name."""

    mark: str
    rows: tuple[str, ...]
    text: str
    where: Literal["reported", "any"] = "any"


@dataclass(frozen=True)
class Layout:
    """One table. No ``columns``: those of the runs. No ``sets``: any."""

    name: str
    title: str
    stub: str = "Model"
    source: Source = "runs"
    paper: str | None = None  # table of protocols/paper
    sets: tuple[str, ...] = ()
    grey_sets: tuple[str, ...] = ()
    columns: tuple[ColumnLayout, ...] = ()
    rows: tuple[RowLayout, ...] = ()
    marks: tuple[MarkLayout, ...] = ()
    caption: str = ""
    label: str = ""


def names() -> list[str]:
    """Names of the layouts that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Layout:
    """A layout by name, or from a YAML file. UsageError names what is wrong and where."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    elif name in names():
        path = FOLDER / f"{name}.yaml"
    else:
        raise UsageError(unknown_name("layout", name, names()))
    layout = read_yaml(path, Layout)
    known = [column.name for column in layout.columns]
    if twice := sorted({n for n in known if known.count(n) > 1}):
        raise UsageError(f"layout {path}: the column {twice[0]} is listed twice")
    return layout
