"""Train the VAE from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from av_bench.contracts import AvBenchError, UsageError
from model_zoo.mmaudio.training.distributed import cluster
from model_zoo.mmaudio.training.journal import report_error
from model_zoo.mmaudio.training.recipe import Run
from model_zoo.mmaudio.vae_training.data import open_items
from model_zoo.mmaudio.vae_training.loop import _silent, held, train
from model_zoo.mmaudio.vae_training.recipes import RECIPES, VAERecipe, read_recipe


def main(arguments: list[str] | None = None) -> int:
    """Command line of the module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m av_bench.cli.train_vae", description="Train the VAE.")
    parser.add_argument("--config", required=True, help=f"recipe: {', '.join(RECIPES)}, or a YAML file")
    parser.add_argument("--data", required=True, type=Path, help="waves or mels in a .npy file, or a folder of audio")
    parser.add_argument("--out", required=True, type=Path, help="folder of checkpoint, log and weights; resumes there")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args(arguments)
    try:
        _run(read_recipe(options.config), options.data, options.out, options.device)
    except (AvBenchError, OSError) as error:
        return report_error(error)
    return 0


def _run(recipe: VAERecipe, data: Path, out: Path, device: str) -> None:
    """Join the processes that torchrun started, decode in the first one, train in all."""
    with cluster(Run(device=device)) as processes, held(out, processes) as mine:
        if not mine:
            raise UsageError(f"{out} is being written by another training run; wait for it, or choose another --out")
        items = open_items(data, recipe, out) if processes.first else None
        processes.wait()  # as long as decoding takes
        if items is None:
            items = open_items(data, recipe, out, decode=False)
        train(recipe, items, out, str(processes.device), print if processes.first else _silent, processes)


if __name__ == "__main__":
    sys.exit(main())
