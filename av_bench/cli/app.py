"""Command line: parses, calls, prints. Exit codes: see ``av_bench.cli.process``."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from av_bench.cli.devices import AddressOption, DevicesOption, EngineOption
from av_bench.cli.output import print_tables
from av_bench.cli.process import run_command
from av_bench.contracts import DEFAULT_SEED, UsageError

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunOptions, RunResult

_COMMAND_LINE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # whatever is wrong with the words of a command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class FlavourName(StrEnum):
    """Metric flavours."""

    paper = "paper"
    strict = "strict"


class Group(StrEnum):
    """What `list` can list."""

    models = "models"
    sets = "sets"
    metrics = "metrics"
    extractors = "extractors"
    protocols = "protocols"


def _version(wanted: bool) -> None:
    if wanted:
        from av_bench.results.record import environment

        found = environment("cpu")
        revision = f", git {found['git']}" if found["git"] else ""
        typer.echo(f"av-bench {found['packages'].get('av-bench', '(run from its folder, not installed)')}{revision}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Evaluate video-to-audio generation: run, score, compare, gate."""
    del version


@app.command()
def run(
    set_: Annotated[str, typer.Option("--set", help="Set by name (`av-bench list sets`) or a YAML file.")],
    model: Annotated[str | None, typer.Option(help="Model, e.g. oracle, shuffled, oracle:shift=0.4.")] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of generated files named after the clip ids; several make several rows."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Name of the row in tables.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the set's videos.")] = None,
    table_file: Annotated[Path | None, typer.Option("--table", help="Table of id, file, text, label, onsets.")] = None,
    lists: Annotated[Path | None, typer.Option(help="List folder or file \\[default: that of `lists pull`].")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder \\[default: runs/SET-MODEL-HASH].")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N clips by id.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of generation.")] = DEFAULT_SEED,
    seeds: Annotated[
        int, typer.Option(help="Runs with this many seeds, in OUT/seedN: a baseline that shows their spread.")
    ] = 1,
    samples_per_clip: Annotated[int, typer.Option(help="Samples per clip, averaged per clip.")] = 1,
    flavour: Annotated[FlavourName | None, typer.Option(help="\\[default: the protocol's]")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol by name or YAML file \\[default: the set's].")] = None,
    seconds: Annotated[
        str | None,
        typer.Option(
            help="Seconds that are scored: a number, shortest, or whole (each clip's own) \\[default: the protocol's]."
        ),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Names of the samples, e.g. 'pred_{id}.wav' or '{id}/audio.wav'.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Only these, separated by commas; +NAME adds an optional one.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    devices: DevicesOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    shard: Annotated[
        str | None, typer.Option(help="Only shard i/n, from 0; slurm: this task of the job array. Then `merge`.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads \\[default: cores].")] = None,
    one_network: Annotated[
        bool, typer.Option("--one-network", help="Hold one network in memory at a time; decodes once for each.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    min_coverage: Annotated[float, typer.Option(help="Share of clips that must be scored, else exit 3.")] = 1.0,
    store: Annotated[Path | None, typer.Option(help="Feature store \\[default: in the cache folder].")] = None,
    reference: Annotated[Path | None, typer.Option(help="Reference pack (`av-bench stats`).")] = None,
    dedup: Annotated[
        Path | None, typer.Option(help="Overlap file of `av-bench audit`: scores the clean subset too.")
    ] = None,
    videos: Annotated[
        bool | None, typer.Option(help="An mp4 of each sample to watch \\[default: for models that generate].")
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            help="Models to run beside it for one table, e.g. oracle,shuffled,noise; none for none "
            "\\[default: those three for mmaudio-nano on a rendered set]."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Generate (or take) samples for a set, score them, and print the table."""
    from av_bench.cli.folders import one_for_each
    from av_bench.pipeline.plan import RunOptions
    from av_bench.pipeline.seeds import run_seeds
    from av_bench.pipeline.shard import run as run_one

    if shard is not None and beside not in (None, "none"):
        raise UsageError("--shard and --beside: shard each model in an --out of its own, merge each, table all of them")
    common: dict[str, Any] = {
        "set": set_,
        "data": data,
        "table": table_file,
        "lists": lists,
        "limit": limit,
        "seed": seed,
        "samples_per_clip": samples_per_clip,
        "flavour": flavour.value if flavour else None,
        "protocol": protocol,
        "seconds": seconds,
        "metrics": tuple(m.strip() for m in metrics.split(",")) if metrics else None,
        "device": device,
        "devices": devices,
        "engine": engine,
        "address": address,
        "shard": shard,
        "workers": workers,
        "one_network": one_network,
        "offline": offline,
        "min_coverage": min_coverage,
        "store": store,
        "reference": reference,
        "dedup": dedup,
        "quiet": quiet,
    }
    own = RunOptions(model=model, label=label, out=out, videos=videos, pattern=pattern, **common)
    results = [found for options in one_for_each(own, samples or []) for found in run_seeds(options, seeds)]
    result = max(results, key=lambda found: found.exit_code)
    if shard is not None:
        raise typer.Exit(result.exit_code)
    others = _others(beside, model, set_)
    paths = [run_one(RunOptions(model=name, out=_beside(out, name), **common)).path for name in others]
    print_tables([*paths, *(found.path for found in results)])
    where = [result.path.parent] if seeds > 1 else [found.path for found in results]
    typer.echo(f"\nrun folder{'s' * (len(where) > 1)}: {', '.join(map(str, where))}")
    if result.exit_code:
        typer.echo(_incomplete(result, min_coverage), err=True)
    raise typer.Exit(result.exit_code)


def _incomplete(result: RunResult, min_coverage: float) -> str:
    """Why a run ends with exit code 3."""
    counts = result.scores["counts"]
    if counts["scored"] >= min_coverage * counts["expected"]:
        return "incomplete: no metric could be computed; the notes under the table say why"
    scored = f"{counts['scored']} of {counts['expected']} clips were scored"
    return f"incomplete: {scored}, --min-coverage is {min_coverage:g}; {result.path}/ledger.jsonl says why"


def _others(beside: str | None, model: str | None, set_: str) -> list[str]:
    """Models to run beside: those asked for, else the bounds of a model whose row says little without them."""
    if beside is not None:
        return [name.strip() for name in beside.split(",") if name.strip() not in ("", "none")]
    import protocols
    from av_bench import registry

    name = (model or "").partition(":")[0]
    if name not in registry.names("models") or protocols.load_set(set_).kind != "rendered":
        return []
    return list(registry.load("models", name).beside)


def _beside(out: Path | None, model: str) -> Path | None:
    """Run folder of a model that is run beside another."""
    return None if out is None else out.with_name(f"{out.name}-{model.replace(':', '_')}")


@app.command("list")
def list_(group: Annotated[Group, typer.Argument(help="What to list.")]) -> None:
    """Names of models, sets, metrics, extractors or protocols."""
    from reports.terminal import show_columns, show_names

    if group is not Group.models:
        show_names(group.value)
        return
    from model_zoo.listing import listed_models

    models = listed_models()
    options = [", ".join(model.options) for model in models]
    names, what = [model.name for model in models], [model.what for model in models]
    show_columns({"model": names, "what": what, "from": [m.provider for m in models], "options": options})
    typer.echo("\nOptions are written NAME:option=value,option=value\n")
    users: dict[tuple[str, str], list[str]] = {}
    for model in models:
        for option in model.options.items():
            users.setdefault(option, []).append(model.name)
    keys, texts = [key for key, _ in users], [text for _, text in users]
    show_columns({"option": keys, "what it does": texts, "of": [", ".join(found) for found in users.values()]})


@app.command()
def doctor(
    for_: Annotated[
        str | None, typer.Option("--for", help="What a command lacks, e.g. 'run --model mmaudio-l --set vggsound'.")
    ] = None,
) -> None:
    """What is installed, what is missing, and the command that gets it."""
    from av_bench.doctor import examine
    from reports.terminal import show_findings

    if for_ is not None:
        _doctor_for(for_)
        return
    findings = examine()
    show_findings(findings)
    raise typer.Exit(4 if any(f.status == "broken" for f in findings) else 0)


def _doctor_for(command: str) -> None:
    """Everything one `run` command lacks; exit code 4 when that is anything."""
    from av_bench.pipeline import disk
    from av_bench.pipeline.preflight import describe, preflight

    runs = _run_options(command)
    found = list(dict.fromkeys(item for options in runs for item in preflight(options)))
    typer.echo(describe(found))
    if not any(item.kind == "disk" for item in found):
        typer.echo(disk.describe(disk.writes(runs[0], found)))
    raise typer.Exit(4 if found else 0)


def _run_options(command: str) -> list[RunOptions]:
    """The options of each run that a command line means, without running it. UsageError for another command."""
    from av_bench.cli.folders import one_for_each
    from av_bench.pipeline.plan import RunOptions

    words = [word for word in shlex.split(command) if word != "av-bench"]
    if words[:1] != ["run"]:
        raise UsageError(f"--for {command!r}: a run command is expected, e.g. 'run --model mmaudio-l --set vggsound'")
    parser = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    try:
        given = parser.make_context("run", words[1:]).params
    except _COMMAND_LINE_ERROR as error:
        raise UsageError(f"--for {command!r}: {error}") from error
    metrics = given["metrics"]
    options = RunOptions(
        set=given["set_"],
        model=given["model"],
        data=given["data"],
        lists=given["lists"],
        limit=given["limit"],
        samples_per_clip=given["samples_per_clip"],
        protocol=given["protocol"],
        seconds=given["seconds"],
        out=given["out"],
        store=given["store"],
        videos=given["videos"],
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else None,
    )
    return one_for_each(options, given["samples"] or [])


@app.command()
def selfcheck(
    set_: Annotated[str, typer.Option("--set", help="A set with reference audio.")] = "impacts",
    data: Annotated[Path | None, typer.Option(help="Folder of the set's videos.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N clips by id.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs, the table and the plot.")] = Path("runs/selfcheck"),
    devices: DevicesOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads \\[default: cores].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Damage the reference audio in known ways and check that the metrics react; exit 1 if not."""
    from av_bench.engines.choose import place_of
    from av_bench.selfcheck import run_selfcheck
    from reports.selfcheck import write_report
    from reports.terminal import show_selfcheck

    place = place_of("cpu", devices, engine, address)
    outcome = run_selfcheck(set_, data=data, limit=limit, out=out, workers=workers, quiet=quiet, place=place)
    write_report(outcome, out)
    show_selfcheck(outcome)
    typer.echo(f"\ntable and plot: {out}/selfcheck.md, {out}/selfcheck.png")
    raise typer.Exit(0 if outcome.passed else 1)


def _mount() -> None:
    """Add the commands that have files of their own."""
    from av_bench.cli.accept import accept
    from av_bench.cli.audit import app as audit_app
    from av_bench.cli.audit import lists_app
    from av_bench.cli.baselines import app as baselines_app
    from av_bench.cli.export import export
    from av_bench.cli.features import features
    from av_bench.cli.figure import app as figure_app
    from av_bench.cli.generate import generate
    from av_bench.cli.judge import mount as mount_judges
    from av_bench.cli.merge import merge
    from av_bench.cli.mmaudio import app as mmaudio_app
    from av_bench.cli.report import report
    from av_bench.cli.reported import reported
    from av_bench.cli.sets import app as sets_app
    from av_bench.cli.stats import app as stats_app
    from av_bench.cli.store import store_app
    from av_bench.cli.study import app as study_app
    from av_bench.cli.tables import table
    from av_bench.cli.train import train
    from av_bench.cli.weights import app as weights_app

    app.add_typer(weights_app, name="weights", help="Pretrained files: list, pull, verify, add.")
    app.add_typer(audit_app, name="audit", help="Train/test overlaps: lists, Table A4, content.")
    app.add_typer(sets_app, name="sets", help="Is your copy of a set complete? check.")
    app.add_typer(lists_app, name="lists", help="Public list files of the field: pull, verify, show.")
    app.add_typer(baselines_app, name="baselines", help="Other people's generators: list, show, setup.")
    app.add_typer(stats_app, name="stats", help="Reference packs: make, import, show.")
    app.add_typer(figure_app, name="figure", help="Figures: spectrograms, sorted, examples, rope.")
    app.add_typer(study_app, name="study", help="Listeners' ratings: make, score, agree.")
    app.add_typer(mmaudio_app, name="mmaudio", help="Files of MMAudio's trainings: import-features, ..., merge.")
    app.add_typer(store_app(), name="store", help="The feature store: size, clean.")
    app.command("accept")(accept)
    app.command("merge")(merge)
    app.command("train")(train)
    app.command("features")(features)
    app.command("generate")(generate)
    mount_judges(app)
    app.command("table")(table)
    app.command("export")(export)
    app.command("report")(report)
    app.command("reported")(reported)


_mount()


def main() -> None:
    """Entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
