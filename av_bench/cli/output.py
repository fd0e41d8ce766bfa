"""Files that a command writes beside what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from av_bench.contracts import UsageError
from av_bench.results.record import why_unfinished
from av_bench.runtime.files import explained, write_atomically


def print_tables(paths: Sequence[Path]) -> None:
    """A table for people on a terminal, Markdown when the output goes elsewhere."""
    from reports.build import tables
    from reports.render import render

    found = tables(paths, allow_different_n=True)
    if sys.stdout.isatty():
        from reports.terminal import show

        show(found)
    else:
        typer.echo(render(found, "markdown"), nl=False)


def write_beside(path: Path, payload: bytes, *, asked: bool) -> None:
    """Write a file of a verdict. One that was not asked for by name may fail (a read-only folder), with a warning.

    OSError when it was asked for.
    """
    try:
        write_atomically(path, payload)
    except OSError as error:
        if asked:
            raise
        typer.echo(f"av-bench: not written: {explained(error)}", err=True)


def finished_runs(paths: Sequence[Path]) -> list[Path]:
    """Those of ``runs/*`` that are runs which have ended; the others are named on stderr.

    UsageError when none is left, or when a path does not exist. A damaged run is not left out: its reader says
    what is wrong.
    """
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise UsageError(f"table: {', '.join(absent)}: no such run folder")
    found, left = [], []
    for path in paths:
        if not path.is_dir():
            continue  # runs/* may name files too
        if why := why_unfinished(path, ("scores.json", "run.json")):
            left.append(f"{path}: {why}")
        else:
            found.append(path)
    if not found:
        raise UsageError(f"table: no finished run among {len(paths)} paths; {left[0] if left else 'all are files'}")
    for line in left:
        typer.echo(f"av-bench: left out: {line}", err=True)
    return found
