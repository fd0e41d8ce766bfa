"""`av-bench accept`: the first run on an installation that has the released files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
    from av_bench.accept import load_known, markdown
    from av_bench.runtime.devices import check_device
    from av_bench.runtime.files import write_atomically
    from protocols import load_set
    from protocols.definitions import SetRequest
    from protocols.readers.read import read_clips

    check_device(device)
    known = load_known(against or [])
    rendered = read_clips(load_set("impacts"), SetRequest(limit=clips))
    say = str if quiet else partial(typer.echo, err=True)
    report = run_all(rendered, out, device, say, known, steps, seconds, only or [])
    write_atomically(out / "accept.json", report.as_json().encode())
    write_atomically(out / "accept.md", markdown(report).encode())  # kept, whatever becomes of the long run
    if table1 is not None:
        spec = table1 if steps is None else f"{table1}{',' if ':' in table1 else ':'}steps={steps}"
        table = _table1(spec, data, lists, limit, out, device, quiet)
        write_atomically(out / "accept.md", markdown(report, table).encode())
    typer.echo((out / "accept.md").read_text(encoding="utf8"), nl=False)
    typer.echo(f"\nreport: {out}/accept.json, {out}/accept.md")
    raise typer.Exit(0 if report.passed else 1)


def _table1(
    model: str, data: Path | None, lists: Path | None, limit: int | None, out: Path, device: str, quiet: bool
) -> str:
    """The row of a model on VGGSound beside the paper's and a reproduction's, as Markdown."""
    import av_bench
    from reports import ledger
    from reports.build import tables
    from reports.render import render

    result = av_bench.run(
        set="vggsound",
        model=model,
        label=_row_name(model),
        data=data,
        lists=lists,
        limit=limit,
        device=device,
        out=out / "table1",
        min_coverage=0.0,
        quiet=quiet,
    )
    found = [
        ledger.with_ledger(table, ledger.read(), [THIRD_PARTY]) for table in tables([result.path], with_paper="table1")
    ]
    few = f"\nOn {limit} clips FD and IS are not comparable with the full set's.\n" if limit is not None else ""
    return f"{render(found, 'markdown')}{few}"


def _row_name(model: str) -> str | None:
    """A name that no reader takes for the model's own row, when any weights of the run are not the released ones."""
    from av_bench.pipeline.measure import extractors_for
    from av_bench.pipeline.needed import entries_for
    from av_bench.weights.lock import not_released
    from protocols import load_protocol, load_set

    names = [model.partition(":")[0], *extractors_for(load_protocol(load_set("vggsound").protocol))]
    return f"not a result: {model} with other weights" if not_released(entries_for(names)) else None
