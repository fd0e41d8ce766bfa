"""``python -m model_zoo.mmaudio.train --config small_16k --out DIR [--set key=value ...]``, also under torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from av_bench.contracts import AvBenchError
from model_zoo.mmaudio.training.journal import report_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model_zoo.mmaudio.train", description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML file, or the name of a config of this package")
    parser.add_argument("--out", required=True, type=Path, help="folder of the run; started again, it goes on there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the config")
    parser.add_argument("--quiet", action="store_true", help="write the log file only")
    given = parser.parse_args(arguments)
    try:
        from model_zoo.mmaudio.training.loop import train
        from model_zoo.mmaudio.training.recipe import read_recipe

        weights = train(read_recipe(given.config, given.set), given.out, quiet=given.quiet)
    except (AvBenchError, OSError) as error:
        return report_error(error)
    if not given.quiet and os.environ.get("RANK", "0") == "0":
        print(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
