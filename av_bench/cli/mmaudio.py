"""`av-bench mmaudio`: files of MMAudio's trainings, from the published code's layout and from adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("import-features")
def import_features(
    folder: Annotated[Path, typer.Argument(help="Folder of memory-mapped tensors (meta.json, mean.memmap, ...).")],
    table: Annotated[Path, typer.Option(help="The tsv that was written beside it: id, and label or caption.")],
    out: Annotated[Path, typer.Option(help="Feature folder to write.")],
    empty_text: Annotated[
        Path | None, typer.Option(help="Features of the empty text (empty_string.pth); a recipe may name them instead.")
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Store float32, not bfloat16.")] = False,
) -> None:
    """Turn a feature folder of the published training code into one that `av-bench train` reads."""
    from av_bench.training import commands

    count = commands.import_features(folder, table, out=out, empty_text=empty_text, dtype="fp32" if fp32 else "bf16")
    typer.echo(f"{out}: {count} samples")


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Checkpoint or weights of the published training code (.pth).")],
    variant: Annotated[str, typer.Option(help="Its variant, e.g. mmaudio-s-16k.")],
    out: Annotated[Path, typer.Option(help="Folder for last.safetensors and ema-WIDTH.safetensors.")],
) -> None:
    """Take weights and tracked averages out of a checkpoint of the published training code."""
    from model_zoo.mmaudio.training.published_checkpoint import import_checkpoint

    for path in import_checkpoint(file, variant, out):
        typer.echo(str(path))


@app.command()
def merge(
    adapters: Annotated[Path, typer.Argument(help="Adapters that training wrote (RUN/weights/*.safetensors).")],
    out: Annotated[Path, typer.Option(help="File of the whole network to write (.safetensors).")],
) -> None:
    """Merge adapters into the weights that they were trained on."""
    from av_bench.training import commands

    typer.echo(str(commands.merge_adapters(adapters, out)))
