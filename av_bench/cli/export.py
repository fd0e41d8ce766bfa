"""`av-bench export`: runs for other people's tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from av_bench.contracts import UsageError


def export(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    wandb: Annotated[str | None, typer.Option(help="Project of Weights & Biases.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="W&B: write its files, send nothing.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder of TensorBoard logs.")] = None,
    model_index: Annotated[
        Path | None, typer.Option(help="File for the metadata of a Hugging Face model card (one run).")
    ] = None,
) -> None:
    """Send runs to Weights & Biases or TensorBoard, or write the results of a model card (extra av-bench[export])."""
    from av_bench.results.record import read_run
    from av_bench.runtime.files import write_atomically
    from reports import exports

    if wandb is None and tensorboard is None and model_index is None:
        raise UsageError("export: say where to: --wandb PROJECT, --tensorboard FOLDER or --model-index FILE")
    found = [read_run(path) for path in runs]
    if model_index is not None:
        if len(found) != 1:
            raise UsageError("export --model-index: a model card is of one model, give one run")
        write_atomically(model_index, exports.model_index(found[0]).encode())
        typer.echo(str(model_index))
    if tensorboard is not None:
        typer.echo("\n".join(map(str, exports.to_tensorboard(found, tensorboard))))
    if wandb is not None:
        typer.echo("\n".join(exports.to_wandb(found, wandb, "offline" if offline else "online")))
