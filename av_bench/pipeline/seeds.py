"""One model with several seeds: a run folder per seed in one folder, which `gate` takes as one baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.pipeline.plan import RunOptions, RunResult
from av_bench.pipeline.prepare import row_name
from av_bench.pipeline.shard import run


def run_seeds(options: RunOptions, seeds: int) -> list[RunResult]:
    """Runs with seeds ``options.seed``, + 1, ... in ``OUT/seedN`` (default: runs/SET-MODEL-seeds).

    Raises UsageError for fewer than one seed, and for a folder of samples, which is one seed whatever is asked for.
    """
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    if seeds > 1 and options.shard is not None:
        raise UsageError("--shard and --seeds: shard one seed at a time (--seed N), and merge each")
    if seeds == 1:
        return [run(options)]
    if options.samples is not None:
        raise UsageError(
            "--seeds generates again for every seed; score folders of samples in a run each, and name them all"
        )
    name = "".join(c if c.isalnum() or c in "-_.=" else "_" for c in options.label or row_name(options))
    home = options.out or Path("runs") / f"{Path(options.set).stem}-{name}-seeds"
    if (home / "scores.json").is_file():
        raise UsageError(f"{home} holds a run itself; choose another --out for the runs of {seeds} seeds")
    return [
        run(replace(options, seed=seed, out=home / f"seed{seed}")) for seed in range(options.seed, options.seed + seeds)
    ]
