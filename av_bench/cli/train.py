"""`av-bench train`: the embedded networks, the embedded MMAudio, MMAudio's flow networks and its VAEs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from av_bench.contracts import UsageError

GENERATIONS: dict[str, Literal[1, 2]] = {"mmaudio-nano": 2, "mmaudio-nano-1": 1}


def train(
    network: Annotated[
        str,
        typer.Argument(
            help="nano-tagger, nano-bind, nano-sync; mmaudio-nano, or mmaudio-nano-1 (its first generation); a "
            "training config of MMAudio: small_16k, large_44k, ablations/table6_rope_none ...; a VAE recipe: vae-16k, "
            "vae-44k, vae-tiny; or a YAML file of a config or a VAE recipe."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for weights, checkpoints and log.")] = Path("trained"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of audio files, or waves or mels in a .npy file (VAE).")
    ] = None,
    clips: Annotated[int, typer.Option(help="Scenes of impacts train (embedded networks).")] = 2400,
    corpus: Annotated[Path | None, typer.Option(help="Rendered corpus \\[default: in the cache folder].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the embedded scorers \\[default: the recipe's].")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", help="KEY=VALUE of a config or VAE recipe, e.g. steps=1000 (MMAudio)."),
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of `av-bench audit`: leave out what was found in the test set (MMAudio).")
    ] = None,
    metrics_on: Annotated[
        Path | None, typer.Option(help="Folder of videos to sample and score during training (MMAudio).")
    ] = None,
    metrics_limit: Annotated[int, typer.Option(help="Maximum number of these videos.")] = 64,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:N \\[default: the config's run.device; VAE: cuda if there is one; "
            "embedded networks: cpu]."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Rendering processes.")] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Train a network; run the same command to resume.

    On several GPUs: torchrun --nproc-per-node N -m av_bench train CONFIG --device cuda ...
    """
    from av_bench.training import commands

    embedded: dict[str, object] = {"--corpus": corpus, "--epochs": epochs}
    flow_only: dict[str, object] = {"--exclude": exclude, "--metrics-on": metrics_on}
    if network.startswith("nano-"):
        _refuse(network, flow_only | {"--change": change, "--data": data})
        file = commands.train_nano(
            network, out=out, clips=clips, corpus_folder=corpus, epochs=epochs, device=device, workers=workers,
            quiet=quiet,
        )  # fmt: skip
        typer.echo(f"weights: {file}; log: {file.with_suffix('.json')}")
    elif network in GENERATIONS:
        _refuse(network, flow_only | {"--epochs": epochs, "--data": data})
        folder = commands.train_mmaudio_nano(
            GENERATIONS[network], out=out, clips=clips, corpus_folder=corpus, changes=change or [], device=device,
            workers=workers, quiet=quiet,
        )  # fmt: skip
        typer.echo(f"weights: {folder}; try them: av-bench run --model mmaudio-nano:weights={folder} --set impacts")
    elif (recipe := commands.vae_recipe(network, change or [])) is not None:
        _refuse(network, flow_only | embedded)
        if data is None:
            raise UsageError(f"train {network}: --data is missing: a folder of audio files, or a .npy file")
        _say_weights(commands.train_vae(recipe, data, out=out, device=device, quiet=quiet), quiet)
    else:
        _refuse(network, embedded | {"--data": data})
        folder = commands.train_mmaudio(
            network, out=out, changes=change or [], exclude=exclude, metrics_on=metrics_on, limit=metrics_limit,
            device=device, quiet=quiet,
        )  # fmt: skip
        _say_weights(folder, quiet)


def _say_weights(where: Path, quiet: bool) -> None:
    """Once, however many processes train together."""
    if not quiet and os.environ.get("RANK", "0") == "0":
        typer.echo(f"weights: {where}")


def _refuse(network: str, options: Mapping[str, object]) -> None:
    """Options that mean nothing for a network are an error, not a surprise."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"train {network}: {', '.join(given)} has no meaning for this network; leave it out")
