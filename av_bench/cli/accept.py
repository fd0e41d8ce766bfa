"""`av-bench accept`: the first run on an installation that has the released files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunOptions

THIRD_PARTY = "MMAudio issue 90"  # a reproduction of MMAudio-S-16kHz in the ledger of reported numbers


def accept(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("runs/accept"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    table1: Annotated[
        str | None, typer.Option("--table1", help="Also run this model on vggsound and set its row beside the paper's.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="With --table1: folder of the VGGSound videos.")] = None,
    lists: Annotated[Path | None, typer.Option(help="With --table1: list folder or file.")] = None,
    limit: Annotated[int | None, typer.Option(help="With --table1: only the first N clips by id.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="With --table1: only these metrics, separated by commas, and their networks."),
    ] = None,
    one_network: Annotated[
        bool, typer.Option("--one-network", help="With --table1: hold one network in memory at a time.")
    ] = False,
    against: Annotated[
        list[Path] | None, typer.Option(help="Compare with the outputs in another accept.json; may be repeated.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the variants' sampler, for a CPU \\[default: each model's own].", min=1)
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(help="Seconds of the variants' sample; 1 makes a trial on a CPU affordable.", min=1.0, max=8.0),
    ] = 8.0,
    clips: Annotated[int, typer.Option(help="Rendered clips that the networks run on.", min=1, max=3)] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this network or variant, with options if you like; may be repeated. Files are all checked."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Check every released file that is here, run every network and variant on known clips, and write a report."""
    from av_bench.accept import accept as run_all
    from av_bench.accept import load_known, markdown, with_steps
    from av_bench.contracts import MissingRequirement
    from av_bench.pipeline.plan import RunOptions
    from av_bench.pipeline.preflight import describe, preflight
    from av_bench.runtime.devices import check_device
    from av_bench.runtime.files import write_atomically
    from protocols import load_set
    from protocols.definitions import SetRequest
    from protocols.readers.read import read_clips

    check_device(device)
    known = load_known(against or [])
    options = None
    if table1 is not None:
        spec = with_steps(table1, steps)
        wanted = None if metrics is None else tuple(name.strip() for name in metrics.split(","))
        options = RunOptions(
            set="vggsound",
            model=spec,
            label=_row_name(spec, wanted),
            data=data,
            lists=lists,
            out=out / "table1",
            limit=limit,
            metrics=wanted,
            device=device,
            one_network=one_network,
            min_coverage=0.0,
            quiet=quiet,
        )
        missing = [item for item in preflight(options) if item.kind != "disk"]
        if missing:  # said before the networks run, not after
            raise MissingRequirement(f"--table1 {table1}: {describe(missing)}")
    rendered = read_clips(load_set("impacts"), SetRequest(limit=clips))
    say = str if quiet else partial(typer.echo, err=True)
    report = run_all(rendered, out, device, say, known, steps, seconds, only or [])
    write_atomically(out / "accept.json", report.as_json().encode())
    write_atomically(out / "accept.md", markdown(report).encode())  # kept, whatever becomes of the long run
    if options is not None:
        row, table = _table1(options)
        write_atomically(out / "accept.json", replace(report, table1=row).as_json().encode())
        write_atomically(out / "accept.md", markdown(report, table).encode())
    typer.echo((out / "accept.md").read_text(encoding="utf8"), nl=False)
    typer.echo(f"\nreport: {out}/accept.json, {out}/accept.md")
    raise typer.Exit(0 if report.passed else 1)


def _table1(options: RunOptions) -> tuple[dict[str, Any], str]:
    """The row of a run on VGGSound, and as Markdown beside the paper's and a reproduction's."""
    from av_bench.pipeline.run import run
    from reports import ledger
    from reports.build import tables
    from reports.render import render

    result = run(options)
    values = {name: metric["value"] for name, metric in result.scores["metrics"].items()}
    row = {"model": options.label or options.model, "n": result.scores["counts"]["scored"], "metrics": values}
    built = tables([result.path], with_paper="table1")
    found = [ledger.with_ledger(table, ledger.read(), [THIRD_PARTY]) for table in built]
    limit = options.limit
    few = "" if limit is None else f"\nOn {limit} clips FD and IS are not comparable with the full set's.\n"
    return row, f"{render(found, 'markdown')}{few}"


def _row_name(model: str, metrics: Sequence[str] | None = None) -> str | None:
    """A name that no reader takes for the model's own row, when any weights of the run are not the released ones."""
    from av_bench.pipeline.measure import extractors_for
    from av_bench.pipeline.needed import entries_for
    from av_bench.weights.lock import not_released
    from protocols import load_protocol, load_set

    names = [model.partition(":")[0], *extractors_for(load_protocol(load_set("vggsound").protocol), metrics)]
    return f"not a result: {model} with other weights" if not_released(entries_for(names)) else None
