"""`run --samples A --samples B`: one run for each folder of samples, for one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.pipeline.plan import RunOptions


def one_for_each(options: RunOptions, folders: Sequence[Path]) -> list[RunOptions]:
    """The options of each run; with several folders their run folders are ``OUT/NAME`` where OUT is given.

    UsageError when two folders would give one row name, and for options that mean one run.
    """
    if len(folders) < 2:
        return [replace(options, samples=folder) for folder in folders] or [options]
    names = [folder.resolve().name for folder in folders]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"--samples: two folders are called {twice[0]}, rows of a table need names of their own")
    for given, option in ((options.label, "--label"), (options.model, "--model")):
        if given is not None:
            raise UsageError(
                f"{option} with {len(folders)} folders of --samples: it means one run; run them one by one"
            )
    outs = [None if options.out is None else options.out / name for name in names]
    return [replace(options, samples=folder, out=out) for folder, out in zip(folders, outs, strict=True)]
