"""``av-bench run``: one model on one set, with its bounds beside it where its row says little alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from av_bench.cli.devices import AddressOption, DevicesOption, EngineOption
from av_bench.cli.output import print_tables
from av_bench.contracts import DEFAULT_SEED, UsageError

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunResult


class FlavourName(StrEnum):
    """Metric flavours."""

    paper = "paper"
    strict = "strict"


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
