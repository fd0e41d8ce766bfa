"""`av-bench stats`: reference packs, made from a set's own media or imported from published feature caches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from av_bench.cli.devices import AddressOption, DevicesOption, EngineOption

app = typer.Typer(no_args_is_help=True)


@app.command("make")
def make(
    set_: Annotated[str, typer.Option("--set", help="Set by name or YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the new pack.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the set's media.")] = None,
    lists: Annotated[Path | None, typer.Option(help="List folder or file \\[default: that of `lists pull`].")] = None,
    protocol: Annotated[str | None, typer.Option(help="\\[default: the set's]")] = None,
    metrics: Annotated[str | None, typer.Option(help="Only what these metrics need, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N clips by id.")] = None,
    features: Annotated[
        bool, typer.Option(help="Keep per-clip features too (KL, IB-score and DeSync need them).")
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    devices: DevicesOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
) -> None:
    """Extract the reference of a set once and keep it as a pack."""
    from av_bench.engines.choose import place_of
    from av_bench.pipeline.make_pack import make_pack

    wanted = tuple(m.strip() for m in metrics.split(",")) if metrics else None
    info = make_pack(
        set_, out, data, lists, protocol, wanted, limit, features, device, place_of(device, devices, engine, address)
    )
    typer.echo(f"{out}: {info['clips']} clips, {', '.join(info['fingerprints'])}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of published *.pth feature caches.")],
    out: Annotated[Path, typer.Option(help="Folder of the new pack.")],
    seconds: Annotated[float, typer.Option(help="Window the caches were made with; they do not say.")] = 8.0,
    features: Annotated[bool, typer.Option(help="Keep per-clip features too.")] = True,
) -> None:
    """Turn published av-benchmark caches into a pack; nothing in them is run."""
    from av_bench.features import reference_pack

    pack = reference_pack.import_published(folder, seconds, keep=features)
    reference_pack.write(pack, out)
    parts = sorted(pack.features) if features else sorted({name for name, _ in pack.statistics})
    typer.echo(f"{out}: {pack.info['clips']} clips, {', '.join(parts)}")


@app.command("show")
def show(folder: Annotated[Path, typer.Argument(help="A pack.")]) -> None:
    """Provenance of a pack, after checking its hashes."""
    import json

    from av_bench.features import reference_pack

    pack = reference_pack.read(folder)
    typer.echo(json.dumps(pack.info, indent=1))
    for (extractor, output), gaussian in pack.statistics.items():
        typer.echo(f"{extractor} {output}: {gaussian.n} rows, {len(gaussian.mean)} dimensions")
