"""`av-bench report`: run folders as pages to look at and listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from av_bench.cli.output import finished_runs
from av_bench.contracts import UsageError


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one set.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    clips: Annotated[int, typer.Option(help="So many clips with media.")] = 60,
    choose: Annotated[
        str, typer.Option(help="mixed (a quarter each of the others), worst, best, median or random.")
    ] = "mixed",
    by: Annotated[str | None, typer.Option(help="Metric for worst and best \\[default: the first per clip].")] = None,
    clip: Annotated[list[str] | None, typer.Option(help="A clip by id, shown whatever the rule.")] = None,
    seed: Annotated[int, typer.Option(help="Of random.")] = 14159265,
    link: Annotated[bool, typer.Option("--link", help="Link to the media instead of copying them.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of the set's videos \\[default: the runs'].")] = None,
    table_file: Annotated[Path | None, typer.Option("--table", help="Table of the set \\[default: the runs'].")] = None,
    lists: Annotated[Path | None, typer.Option(help="Lists of the set \\[default: the runs'].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """One folder of pages: table, clips with players and spectrograms, comparisons, distributions, failures.

    It opens by double click (index.html), without server or network. Charts need the extra av-bench[report].
    """
    from av_bench.metrics.onset import detect_onsets
    from av_bench.pipeline.clip_media import clip_media
    from av_bench.results.record import read_run
    from av_bench.runtime.progress import Reporter
    from reports.build import tables
    from reports.site.pages import Options, write_report

    folders = finished_runs(runs)
    if clips < 0:
        raise UsageError(f"report: --clips {clips}: a number from 0 is expected")
    found = [read_run(path) for path in folders]
    media = clip_media(found, data=data, table=table_file, lists=lists)
    made = tables(folders, allow_different_n=True)
    options = Options(clips, choose, tuple(clip or ()), by, seed, link)
    summary = write_report(
        made, found, media, out, options, lambda wave, rate: detect_onsets(wave, rate, "strict")[0].tolist(),
        Reporter(quiet=quiet),
    )  # fmt: skip
    typer.echo(f"{out}/index.html: {summary['clips']} of {summary['of']} clips, {summary['bytes'] / 1e6:.1f} MB")
    if not summary["charts"]:
        typer.echo('charts are left out: pip install "av-bench[report]" and make it again', err=True)
