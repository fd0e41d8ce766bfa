"""Commands ``av-bench audit ...`` and ``av-bench lists ...``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from av_bench.cli.devices import AddressOption, DevicesOption, EngineOption
from av_bench.contracts import UsageError

app = typer.Typer(
    help="Is this test set clean for that model? Overlaps between test and training data.", no_args_is_help=True
)
lists_app = typer.Typer(help="The public list files: fetch, check, show.", no_args_is_help=True)

INCOMPLETE = 3
ListsDir = Annotated[
    Path | None,
    typer.Option("--lists", help="List folder or file \\[default: that of `lists pull`]."),
]
Own = Annotated[list[str] | None, typer.Option("--list", help="Your own file for a name, e.g. avsync15/test=test.txt.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result here; a run reads it with --dedup.")]


def _own(pairs: list[str] | None) -> dict[str, Path]:
    own = {}
    for pair in pairs or []:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--list {pair!r}: write NAME=FILE, e.g. avsync15/test=test.txt")
        own[name] = Path(path)
    return own


@app.command("lists")
def lists_command(
    test: Annotated[str, typer.Option(help="Test list: a known name, FILE, or FORMAT:FILE.")],
    train: Annotated[list[str], typer.Option(help="Training list; repeat the option for several.")],
    rule: Annotated[
        str, typer.Option(help="id: same recording; overlap: windows share time; segment: same start.")
    ] = "id",
    without_label: Annotated[
        list[str] | None, typer.Option(help="Drop training rows with this label (Speech, /m/04rlf).")
    ] = None,
    only_label: Annotated[list[str] | None, typer.Option(help="Keep only training rows with this label.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns of a table of your own: id=NAME[,start=NAME][,end=NAME][,label=NAME], times in s."),
    ] = None,
    lists: ListsDir = None,
    own: Own = None,
    json_file: Json = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write one line per finding here.")] = None,
    show: Annotated[int, typer.Option(help="Findings to print.", min=0)] = 10,
) -> None:
    """Which test clips are in the training lists, by name and time. Exit code 3 when list rows were malformed."""
    from rich.console import Console

    from av_bench.audit import formats, report, screen
    from av_bench.audit.overlaps import RULES, audit
    from av_bench.audit.sources import Lists

    chosen = next((r for r in RULES if r == rule), None)
    if chosen is None:
        raise UsageError(f"no rule is called {rule!r}; available: {', '.join(RULES)}")
    library = Lists(lists, _own(own), None if columns is None else formats.own_columns(columns))
    trains = library.filtered(train, without_label or [], only_label or [])
    result = audit(library.open(test), trains, chosen)
    console = Console()
    console.print(screen.summary_table(result))
    if show and result.findings:
        console.print(screen.findings_table(result.findings, show))
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
    if json_file:
        report.write_json(report.to_json(result), json_file)
    if csv_file:
        report.write_csv(result.findings, csv_file)
    if result.malformed:
        typer.echo("\n".join(screen.malformed_lines(result.malformed)))
        raise typer.Exit(INCOMPLETE)


@app.command("table-a4")
def table_a4_command(lists: ListsDir = None, own: Own = None, json_file: Json = None) -> None:
    """Every pair of the paper's Table A4 from the pinned lists, our counts beside the printed ones."""
    from rich.console import Console

    from av_bench.audit import report, screen
    from av_bench.audit.sources import Lists
    from av_bench.audit.tables import table_a4

    result = table_a4(Lists(lists, _own(own)))
    console = Console()
    console.print(screen.a4_table(result))
    for reason in dict.fromkeys([c.why for c in result.cells if c.why] + list(result.missing)):
        console.print(f"not computed: {reason}", markup=False)
    for cell in result.cells:
        if cell.note:
            console.print(f"note: {cell.test} -> {cell.train}: {cell.note}", markup=False)
    if (note := result.speech_or_music) is not None:
        console.print(
            f"{' or '.join(note.labels)} in {note.list}: {note.carrying:,} of {note.rows:,} rows = "
            f"{note.percent:.2f} % (paper: {note.paper_percent:.2f} %)",
            markup=False,
        )
    if json_file:
        report.write_json(report.a4_json(result), json_file)
    if result.malformed:
        typer.echo("\n".join(screen.malformed_lines(result.malformed)))
        raise typer.Exit(INCOMPLETE)


@app.command("content")
def content_command(
    test: Annotated[Path, typer.Option(help="Folder with the test media (searched with its subfolders).")],
    train: Annotated[
        list[Path],
        typer.Option(help="Folder with training media; repeat for several. The test folder itself: its duplicates."),
    ],
    json_file: Json = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with thumbnails and spectrograms here.")] = None,
    page_limit: Annotated[int, typer.Option(help="Matches on the page.", min=1)] = 100,
    keep: Annotated[
        str, typer.Option(help="Of a folder against itself, the copy that stays: first, longest, best.")
    ] = "first",
    store: Annotated[
        Path | None, typer.Option(help="Keep fingerprints in this store (default: the package's).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Decoding threads (0: one per core).", min=0)] = 0,
    devices: DevicesOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """The same recording under another name: sound and picture compared. Exit code 3 when not all was compared."""
    from rich.console import Console

    from av_bench.audit import content, content_report, report, screen
    from av_bench.audit.copies import KEEPS
    from av_bench.audit.spread import make_fingerprints
    from av_bench.engines.choose import place_of
    from av_bench.features.store import Store
    from av_bench.runtime.files import home
    from av_bench.runtime.progress import Reporter

    rule = next((k for k in KEEPS if k == keep), None)
    if rule is None:
        raise UsageError(f"--keep {keep}: no such rule; available: {', '.join(KEEPS)}")
    kept = Store(store or home() / "store")
    reporter, place = Reporter(quiet), place_of("cpu", devices, engine, address)
    lost = make_fingerprints([test, *train], kept.root, place, reporter)
    result = content.audit_content(test, train, kept, reporter, workers, rule, lost)
    Console().print(screen.matches_table(result))
    for line in (*screen.kept_lines(result), *screen.left_out_lines(result)):
        typer.echo(line)
    if json_file:
        report.write_json(content_report.to_json(result), json_file)
    if page:
        from av_bench.audit.page import write_page

        write_page(result, page, page_limit)
    if result.not_compared:
        raise typer.Exit(INCOMPLETE)


# --------------------------------------------------------------------------- av-bench lists


@lists_app.command("pull")
def pull_command(
    names: Annotated[list[str] | None, typer.Argument(help="List or file names (default: all).")] = None,
    into: Annotated[Path | None, typer.Option(help="Folder (default: $AV_BENCH_LISTS or the cache).")] = None,
) -> None:
    """Fetch list files from their public addresses, check them against the lock file, and say their licence."""
    from av_bench.audit.pull import pull, wanted
    from protocols.lists.sources import default_folder

    folder = into or default_folder()
    for item in wanted(names or []):
        path = pull(folder, item)
        typer.echo(f"{path}  {item.rows:,} rows  licence: {item.licence}")


@lists_app.command("verify")
def verify_command(
    names: Annotated[list[str] | None, typer.Argument(help="List or file names (default: all).")] = None,
    lists: ListsDir = None,
) -> None:
    """Compare the files of a folder with the lock file. Exit code 4 when one is absent or changed."""
    from av_bench.audit.pull import verify
    from protocols.lists.sources import check_lists

    states = list(verify(check_lists(lists), names or []))
    for item, state in states:
        typer.echo(f"{state:8} {item.local}  licence: {item.licence}")
    if any(state != "ok" for _, state in states):
        raise typer.Exit(4)


@lists_app.command("show")
def show_command() -> None:
    """Names that can be audited, with files, licences and addresses."""
    from protocols.lists.sources import list_file, sources, urls

    for name, entry in sources().lists.items():
        typer.echo(f"{name}: {entry.note}".rstrip(": "))
        for item in map(list_file, entry.files):
            typer.echo(f"    {item.name}: {urls(item)[0]}  ({item.rows:,} rows, {item.licence})")
    for name, user in sources().user.items():
        typer.echo(f"{name}: {user.note}")
