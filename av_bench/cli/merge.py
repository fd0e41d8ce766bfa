"""`av-bench merge`: the shards of a run, scored together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    run: Annotated[Path, typer.Argument(help="Run folder whose shards are done.")],
    script: Annotated[str, typer.Option(help="Batch script, for the line that repeats missing shards.")] = "SCRIPT",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Check that all shards of a run are there and fit, score them, and print the table."""
    from av_bench.cli.output import print_tables
    from av_bench.pipeline.merge import merge as merge_shards

    result = merge_shards(run, script=script, quiet=quiet)
    print_tables([result.path])
    typer.echo(f"\nrun folder: {result.path}")
    if result.exit_code:
        counts = result.scores["counts"]
        typer.echo(f"incomplete: {counts['scored']} of {counts['expected']} clips were scored", err=True)
    raise typer.Exit(result.exit_code)
