"""`av-bench sets`: what a set is, and whether your copy of it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """What a set is, and whether your copy of it is complete (docs/sets.md says what to get from where)."""


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Set by name (`av-bench list sets`) or a YAML file.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the set's media.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table of id, file, text, label, onsets.")] = None,
    lists: Annotated[Path | None, typer.Option(help="List folder or file \\[default: that of `lists pull`].")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol whose length counts \\[default: the set's].")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N clips by id.")] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads \\[default: cores].")] = None,
    min_coverage: Annotated[float, typer.Option(help="Share of clips that must be usable, else exit 3.")] = 1.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Coverage, files that cannot be read and wrong lengths, without any network; exit 3 below --min-coverage."""
    from av_bench.pipeline.set_check import check_set
    from av_bench.runtime.progress import Reporter
    from protocols.definitions import SetRequest

    report = check_set(name, SetRequest(data, table, lists, limit, workers), Reporter(quiet), protocol)
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(0 if report.coverage >= min_coverage else 3)
