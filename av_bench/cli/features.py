"""`av-bench features`: what training of MMAudio reads, extracted by one worker of one or many."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from av_bench.cli.devices import DevicesOption


class Rate(StrEnum):
    """Audio rates of the codecs."""

    khz16 = "16k"
    khz44 = "44k"


class Networks(StrEnum):
    """Whose codec and conditions."""

    published = "published"
    nano = "nano"


class Rule(StrEnum):
    """How recordings are cut into crops."""

    paper = "paper"
    code = "code"


def features(
    data: Annotated[Path, typer.Option(help="Folder of the media files.")],
    out: Annotated[Path, typer.Option(help="Feature folder.")],
    rate: Annotated[Rate | None, typer.Option(help="Audio rate of the published codec.")] = None,
    networks: Annotated[
        Networks, typer.Option(help="published, or nano: the embedded ones, for fine-tuning mmaudio-nano offline.")
    ] = Networks.published,
    set_: Annotated[str, typer.Option("--set", help="Set by name or YAML file; clips is any folder.")] = "clips",
    table: Annotated[
        Path | None, typer.Option(help="Table (jsonl, csv or tsv) of id or file, and text, caption or label.")
    ] = None,
    vae: Annotated[
        Path | None, typer.Option(help="A VAE of `av-bench train vae-...` in place of the published one.")
    ] = None,
    video: Annotated[
        bool, typer.Option("--video", help="With visual features, of the first seconds of each file.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Length of a training clip.")] = 8.0,
    rule: Annotated[Rule, typer.Option(help="How recordings are cut into crops: the paper's or the code's way.")] = (
        Rule.paper
    ),
    crops: Annotated[int, typer.Option(help="Maximum number of crops of a recording.")] = 5,
    shard_size: Annotated[int, typer.Option(help="Samples per shard.")] = 4096,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    devices: DevicesOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Extract the features that MMAudio trains on.

    Start it on as many machines as there are, with the same arguments and --devices: the workers share the shards
    among them. Run the same command to resume.
    """
    from av_bench.engines.choose import place_of
    from av_bench.training import commands

    place = place_of(device, devices)
    lines = commands.extract_features_on(
        place, set_name=set_, data=data, out=out, rate=None if rate is None else rate.value, networks=networks.value,
        table=table, vae=vae, video=video, seconds=seconds, rule=rule.value, crops=crops, shard_size=shard_size,
        quiet=quiet,
    )  # fmt: skip
    for line in lines:
        typer.echo(line)
