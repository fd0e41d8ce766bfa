"""`av-bench table`: run folders as tables, in the layout of a paper or of their protocol."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from av_bench.cli.output import finished_runs
from av_bench.contracts import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from av_bench.results.record import Run
    from reports.arrange import Fact
    from reports.layouts import Layout
    from reports.model import Table


class TableFormat(StrEnum):
    """Table formats."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


def table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders.")] = None,
    layout: Annotated[
        str, typer.Option(help="generic, or a table of the paper: mmaudio-table1 ... mmaudio-tableA7, or a YAML file.")
    ] = "generic",
    format_: Annotated[TableFormat | None, typer.Option("--format", help="\\[default: a table for people]")] = None,
    intervals: Annotated[bool, typer.Option(help="Print 95 % intervals.")] = True,
    allow_different_n: Annotated[
        bool, typer.Option("--allow-different-n", help="Rows scored on other clips too.")
    ] = False,
    common: Annotated[
        bool, typer.Option("--common", help="Score every row on the clips that all rows scored, from the store.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="Feature store of --common \\[default: in the cache folder].")
    ] = None,
    with_paper: Annotated[
        str | None,
        typer.Option(
            help="Add rows as reported and our difference: table1, table2, table3 or tableA2; with a layout of the "
            "paper, its own: yes."
        ),
    ] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="Add reported rows of a model or paper (`av-bench reported`).")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="DeSync's columns of detail: against the real sound, within one class.")
    ] = False,
    columns: Annotated[str | None, typer.Option(help="Only these, in this order, separated by commas.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW, of a row or a column; may be given several times.")
    ] = None,
    caption: Annotated[str | None, typer.Option(help="In place of the layout's.")] = None,
    label: Annotated[str | None, typer.Option(help="In place of the layout's.")] = None,
    landscape: Annotated[bool, typer.Option("--landscape", help="LaTeX: turned, on a page of its own.")] = False,
    study: Annotated[list[Path] | None, typer.Option(help="Scored user study (JSON), for tables A1 and A2.")] = None,
    audit: Annotated[
        Path | None, typer.Option("--from", help="JSON of `av-bench audit table-a4`, for table A4.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to a file.")] = None,
) -> None:
    """Turn run folders into a table: for people, for a README, for a paper."""
    from av_bench.runtime.files import write_atomically
    from reports import change, layouts
    from reports.render import render

    chosen = layouts.load(layout)
    folders = _folders(chosen, runs or [])
    facts = _facts(chosen, folders, study or [], audit)
    rows: Sequence[Path | Run] = folders
    if common:
        from av_bench.pipeline.rescore import on_common_clips
        from av_bench.runtime.files import home

        rows = on_common_clips(folders, store or home() / "store")
    found = _tables(chosen, rows, allow_different_n, with_paper, facts)
    if details:
        found = [change.with_details(t) for t in found]
    if with_:
        from reports import ledger

        numbers = ledger.read()
        found = [ledger.with_ledger(t, numbers, with_) for t in found]
    found = [
        change.changed(t, columns=_list(columns), rename=rename or [], caption=caption, label=label) for t in found
    ]
    if format_ is None and out is None and sys.stdout.isatty():
        from reports.terminal import show

        show(found)
        return
    text = render(found, (format_ or TableFormat.markdown).value, intervals, landscape)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _folders(layout: Layout, paths: list[Path]) -> list[Path]:
    """The finished runs among what is named; for layouts of other sources, the folders as they are."""
    if layout.source != "training" and paths:
        return finished_runs(paths)
    return [path for path in paths if path.is_dir()] or paths


def _facts(layout: Layout, runs: list[Path], study: list[Path], audit: Path | None) -> Sequence[Fact]:
    """Rows (or, in table A2, cells) that come from no run."""
    from av_bench.cli import facts

    if layout.source == "codecs":
        return facts.codecs()
    if layout.source == "variants":
        return facts.variants(runs)
    if layout.source == "training":
        return facts.training(runs)
    if layout.source == "audit":
        return facts.audit(audit)
    if layout.source == "study" and not study:
        raise UsageError(
            f"layout {layout.name} is made from a user study: --study FILE (`av-bench study score --json`)"
        )
    return facts.study(study)


def _tables(
    layout: Layout, runs: Sequence[Path | Run], allow_different_n: bool, with_paper: str | None, facts: Sequence[Fact]
) -> list[Table]:
    from reports.arrange import arranged
    from reports.build import tables

    if layout.source == "runs" and not runs:
        raise UsageError("no run folders given; `av-bench table runs/*`")
    if layout.name == "generic":
        return tables(runs, allow_different_n=allow_different_n, with_paper=with_paper)
    if with_paper not in (None, "yes", layout.paper):
        raise UsageError(f"--with-paper {with_paper}: layout {layout.name} is of {layout.paper}; say --with-paper yes")
    return arranged(runs, layout, with_paper=with_paper is not None, allow_different_n=allow_different_n, facts=facts)


__all__ = ["TableFormat", "table"]
