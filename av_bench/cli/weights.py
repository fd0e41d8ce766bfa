"""``av-bench weights``: list, pull, verify and add pretrained files."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from av_bench.contracts import AvBenchError, MissingRequirement, UsageError
from av_bench.runtime.offline import offline
from av_bench.weights import Progress, check
from av_bench.weights.lock import LockEntry, folder, load_lock, readable_size, select
from av_bench.weights.pull import accept, add, pull, unaccepted

app = typer.Typer(help="Pretrained files: list, pull, verify, add.", no_args_is_help=True)

Offline = Annotated[bool, typer.Option("--offline", help="Never open a connection (also AV_BENCH_OFFLINE=1).")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines instead of progress bars.")]


@app.command("list")
def list_() -> None:
    """What is known: present or missing, size, licence, and who needs it."""
    rows = [("name", "state", "size", "licence", "needed by")]
    lock = load_lock().values()
    for entry in lock:
        size = entry.path.stat().st_size if entry.path.is_file() else entry.bytes
        shown = readable_size(size) if size or not entry.about else f"~{readable_size(entry.about)}"
        licence = entry.licence + (" (non-commercial)" if entry.non_commercial else "")
        rows.append((entry.name, _state(entry), shown, licence, ", ".join(entry.needed_by)))
    _print_table(rows)
    present = sum(entry.path.is_file() for entry in lock)
    typer.echo(f"\n{present} of {len(lock)} files present in {folder()}")
    typer.echo("Get some with `av-bench weights pull NAME`; NAME may also be anything in the last column.")


@app.command("pull")
def pull_(
    names: Annotated[
        list[str] | None, typer.Argument(help="Weight files, or extractors, models or columns that need them.")
    ] = None,
    for_: Annotated[
        list[str] | None, typer.Option("--for", help="Everything that a protocol, set or model needs; may be repeated.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the non-commercial licences without being asked.")
    ] = False,
    offline_: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Download files, resuming where an earlier pull was cut, and check them before they get their name."""
    with _errors_told():
        names = names or []
        entries = _asked(names, for_ or [])
        network = not (offline_ or offline())
        if network:
            _settle_licences(entries, [*names, *(f"--for={whole}" for whole in for_ or [])], accept_licence)
        failed = [entry.name for entry in entries if not _pull_one(entry, network, quiet)]
    if failed:
        typer.echo(f"{len(failed)} of {len(entries)} files failed: {', '.join(failed)}", err=True)
        raise typer.Exit(MissingRequirement.exit_code)


def _asked(names: list[str], wholes: list[str]) -> list[LockEntry]:
    """Entries by name, and all that protocols, sets and models need. UsageError when nothing is asked for."""
    if not names and not wholes:
        raise UsageError("name weight files, or say --for PROTOCOL, SET or MODEL; `av-bench weights list` shows all")
    wanted = select(names) if names else []
    if wholes:  # knowing what a protocol needs takes the extractors' classes, and torch with them
        from av_bench.pipeline.needed import needed_by

        wanted += [entry for whole in wholes for entry in needed_by(whole)]
    return list({entry.name: entry for entry in wanted}.values())


@app.command("verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="As for pull; none: all present files.")] = None,
    quiet: Quiet = False,
) -> None:
    """Read every byte of the files that are present and compare with the lock."""
    with _errors_told():
        entries = select(names) if names else list(load_lock().values())
    wrong = absent = 0
    for entry in entries:
        if not entry.path.is_file():
            absent += 1
            if names:
                typer.echo(f"missing  {entry.name}: av-bench weights pull {entry.name}")
            continue
        try:
            with _progress(entry.name, quiet) as progress:
                sha256 = check(entry, entry.path, fresh=True, progress=progress)
            typer.echo(f"ok       {entry.name}  sha256 {sha256}{'' if entry.sha256 else _basis(entry)}")
        except MissingRequirement as error:
            wrong += 1
            typer.echo(f"WRONG    {entry.name}: {error}")
    typer.echo(f"{len(entries) - absent - wrong} ok, {wrong} wrong, {absent} missing")
    if wrong or (names and absent):
        raise typer.Exit(MissingRequirement.exit_code)


@app.command("add")
def add_(
    file: Annotated[Path, typer.Argument(help="Your own copy of a known file.")],
    name: Annotated[str | None, typer.Option("--name", help="Which file it is, if no hash tells.")] = None,
    quiet: Quiet = False,
) -> None:
    """Check a file you already have against the lock and link or copy it into place."""
    with _errors_told():
        with _progress(file.name, quiet) as progress:
            entry = add(file, name, progress)
        typer.echo(f"{entry.name}: {entry.path}{_basis(entry)}")
        typer.echo(_licence(entry))


def _pull_one(entry: LockEntry, network: bool, quiet: bool) -> bool:
    try:
        with _progress(entry.name, quiet) as progress:
            path, downloaded = pull(entry, progress, network=network)
    except MissingRequirement as error:
        typer.echo(f"{entry.name}: {error}", err=True)
        return False
    typer.echo(f"{entry.name}: {'checked, ' if downloaded else 'already there, '}{path}{_basis(entry)}")
    if entry.citation and downloaded:
        typer.echo(f"{entry.name}: please cite {entry.citation}")
    return True


def _settle_licences(entries: list[LockEntry], names: list[str], accepted: bool) -> None:
    """Tell every licence; ask once for those that forbid commercial use."""
    missing = [entry for entry in entries if not entry.path.is_file()]
    for entry in missing:
        size = readable_size(entry.bytes) if entry.bytes else f"about {readable_size(entry.about)}"
        typer.echo(f"{entry.name}: {size if entry.bytes or entry.about else 'size unknown'}, {_licence(entry)}")
    asked = unaccepted(missing)
    if not asked:
        return
    if not accepted and not sys.stdin.isatty():
        command = shlex.join(["av-bench", "weights", "pull", *names, "--accept-licence"])
        raise MissingRequirement(
            f"{', '.join(e.name for e in asked)}: for non-commercial use only, and there is no terminal to ask on. "
            f"If you accept the licences above, run\n    {command}"
        )
    if not accepted:
        licences = " and ".join(sorted({entry.licence for entry in asked}))
        files = ", ".join(entry.name for entry in asked)
        accepted = typer.confirm(f"Do you accept {licences} (no commercial use) for {files}?")
    if not accepted:
        raise MissingRequirement("licence not accepted; nothing was downloaded")
    accept(asked)


def _licence(entry: LockEntry) -> str:
    doubt = " (as quoted by third parties)" if "licence" in entry.unverified else ""
    terms = f"licence {entry.licence}{doubt}"
    if entry.licence == "not stated":
        terms = f"licence not known here, see the pages of {entry.url}"
    return terms + (": NON-COMMERCIAL use only" if entry.non_commercial else "")


def _basis(entry: LockEntry) -> str:
    """On what the check rests, where it is not a sha256 of the lock."""
    if entry.sha256:
        return ""
    return " (by the published md5)" if entry.md5 else " (no published hash; its first sha256 is recorded here)"


def _state(entry: LockEntry) -> str:
    if entry.path.is_file():
        wrong = entry.bytes is not None and entry.path.stat().st_size != entry.bytes
        return "WRONG SIZE" if wrong else "present"
    part = entry.beside(".part")
    if part.is_file():
        return f"partial, {readable_size(part.stat().st_size)}"
    return "rejected" if entry.beside(".rejected").is_file() else "missing"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


@contextlib.contextmanager
def _progress(name: str, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line every five seconds."""
    if quiet or not sys.stderr.isatty():
        yield _lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{name} {what}", total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _lines(name: str) -> Progress:
    last: dict[str, float] = {}

    def show(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - last.setdefault(what, now) >= 5.0:
            last[what] = now
            share = f" ({100 * done / total:.0f} %)" if total else ""
            typer.echo(f"{name}: {what} {readable_size(done)}{share}", err=True)

    return show


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    """Errors that a user can fix become a message and an exit code, never a traceback."""
    try:
        yield
    except AvBenchError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None


if __name__ == "__main__":
    app()
