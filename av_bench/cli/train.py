"""Sub-commands that live beside what they call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from av_bench.contracts import UsageError


def train(
    network: Annotated[
        str,
        typer.Argument(
            help="nano-tagger, nano-bind, nano-sync; mmaudio-nano; or a training config of MMAudio: small_16k, "
            "large_44k, ablations/table6_rope_none ..., or a YAML file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for weights, checkpoints and log.")] = Path("trained"),
    clips: Annotated[int, typer.Option(help="Scenes of impacts train (embedded networks).")] = 2400,
    corpus: Annotated[Path | None, typer.Option(help="Rendered corpus \\[default: in the cache folder].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the embedded scorers \\[default: the recipe's].")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--change", help="KEY=VALUE of the config, e.g. steps=1000 (MMAudio).")
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of `av-bench audit`: leave out what was found in the test set (MMAudio).")
    ] = None,
    metrics_on: Annotated[
        Path | None, typer.Option(help="Folder of videos to sample and score during training (MMAudio).")
    ] = None,
    metrics_limit: Annotated[int, typer.Option(help="At most so many of them.")] = 64,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or cuda:N \\[default: the config's run.device; embedded networks: cpu]."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Rendering processes.")] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Train an embedded network, the embedded MMAudio, or a variant of MMAudio; started again, it goes on.

    On several GPUs: torchrun --nproc-per-node N -m av_bench.cli.app train CONFIG --device cuda ...
    """
    from av_bench.training import commands

    mmaudio_only = {"--change": change, "--exclude": exclude, "--metrics-on": metrics_on}
    if network.startswith("nano-"):
        _refuse(network, mmaudio_only)
        file = commands.train_nano(
            network,
            out=out,
            clips=clips,
            corpus_folder=corpus,
            epochs=epochs,
            device=device,
            workers=workers,
            quiet=quiet,
        )
        typer.echo(f"weights: {file}; log: {file.with_suffix('.json')}")
    elif network == "mmaudio-nano":
        _refuse(network, {"--exclude": exclude, "--metrics-on": metrics_on, "--epochs": epochs})
        folder = commands.train_mmaudio_nano(
            out=out,
            clips=clips,
            corpus_folder=corpus,
            changes=change or [],
            device=device,
            workers=workers,
            quiet=quiet,
        )
        typer.echo(f"weights: {folder}; try them: av-bench run --model mmaudio-nano:weights={folder} --set impacts")
    else:
        _refuse(network, {"--epochs": epochs, "--corpus": corpus})
        folder = commands.train_mmaudio(
            network, out=out, changes=change or [], exclude=exclude, metrics_on=metrics_on, limit=metrics_limit,
            device=device, quiet=quiet,
        )  # fmt: skip
        typer.echo(f"weights: {folder}")


def _refuse(network: str, options: Mapping[str, object]) -> None:
    """Options that mean nothing for a network are an error, not a surprise."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"train {network}: {', '.join(given)} has no meaning for this network; leave it out")
