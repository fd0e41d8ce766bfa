"""`av-bench reported`: what papers print about a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LedgerFormat(StrEnum):
    """Formats of the ledger's answer."""

    markdown = "markdown"
    csv = "csv"


def reported(
    model: Annotated[str, typer.Argument(help="Model, or part of its name: mmaudio-l, hunyuanvideo-foley ...")],
    set_: Annotated[str | None, typer.Option("--set", help="Test set as the papers name it, e.g. vggsound.")] = None,
    runs: Annotated[list[Path] | None, typer.Option("--run", help="Own run folder, to stand among them.")] = None,
    format_: Annotated[LedgerFormat, typer.Option("--format", help="Form of the table.")] = LedgerFormat.markdown,
    plot: Annotated[Path | None, typer.Option(help="Plot as PNG, PDF or SVG.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to a file.")] = None,
) -> None:
    """What papers report about a model, how far they disagree, and where each number stands."""
    from av_bench.results.record import read_run
    from av_bench.runtime.files import write_atomically
    from reports import ledger, reported_view

    found = ledger.spreads(ledger.read(), model, set_)
    own = reported_view.own_values([read_run(path) for path in runs or ()], set_)
    if format_ is LedgerFormat.csv:
        text = reported_view.as_csv(found, own)
    else:
        text = reported_view.markdown(model, set_, found, own)
    if plot is not None:
        reported_view.plot(model, set_, found, own, plot)
    if out is not None:
        write_atomically(out, text.encode())
    else:
        typer.echo(text, nl=False)
