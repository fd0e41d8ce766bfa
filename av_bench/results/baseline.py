"""Making and updating a baseline: a folder of records small enough to commit, with the reason of every change."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.results.record import Run
from av_bench.results.values import PSEUDO

KEPT = ("run.json", "scores.json", "spec.json", "clips.parquet", PSEUDO)
HISTORY = "HISTORY.md"


def update_baseline(new: Sequence[Run], folder: Path, reason: str, before: Sequence[Run] = ()) -> Path:
    """Put the records of ``new`` in place of the baseline in ``folder``: one run itself, several as ``seed*``.

    ``HISTORY.md`` keeps date, reason and values of every update, the newest first. The old baseline stays until the new
    one is complete. UsageError without a reason, for an unfinished run, and for a folder that holds something else.
    """
    if not reason.strip():
        raise UsageError("--update needs --reason: say why the baseline changes; it is kept with the baseline")
    if any(run.path.resolve() == folder.resolve() for run in new):
        raise UsageError(f"{folder} is the new run itself; name another folder for the baseline")
    if folder.exists() and not _is_baseline(folder):
        raise UsageError(f"{folder} holds something that is not a baseline; name another folder, or remove it first")
    history = folder / HISTORY
    earlier = history.read_text(encoding="utf8") if history.is_file() else ""
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        for run in new:
            target = part if len(new) == 1 else part / f"seed{run.info['spec'].get('seed')}"
            target.mkdir(parents=True)
            for name in KEPT:
                if (run.path / name).is_file():
                    shutil.copyfile(run.path / name, target / name)
        (part / HISTORY).write_text(_entry(new, before, reason) + ("\n" + earlier if earlier else ""), encoding="utf8")
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old)
        else:
            part.rename(folder)
    finally:
        if part.exists():
            shutil.rmtree(part)
    return folder


def _is_baseline(folder: Path) -> bool:
    """Whether a folder holds records of runs and nothing else."""
    return folder.is_dir() and all(
        path.name in (*KEPT, HISTORY) or (path.is_dir() and {p.name for p in path.iterdir()} <= set(KEPT))
        for path in folder.iterdir()
    )


def _entry(new: Sequence[Run], before: Sequence[Run], reason: str) -> str:
    """One section of the history."""
    spec = new[0].info["spec"]
    seeds = f", {len(new)} seeds" if len(new) > 1 else ""
    lines = [f"## {time.strftime('%Y-%m-%d')}: {' '.join(reason.split())}", ""]
    lines += [
        f"{spec['set']}, protocol {spec['protocol']} {spec['protocol_version']}, model {spec['model']}{seeds}",
        "",
    ]
    lines += ["| metric | before | now |", "|---|---:|---:|"]
    for name in new[0].scores["metrics"]:
        lines.append(f"| {name} | {_mean(name, before)} | {_mean(name, new)} |")
    return "\n".join(lines) + "\n"


def _mean(metric: str, runs: Sequence[Run]) -> str:
    values = [float(run.scores["metrics"][metric]["value"]) for run in runs if metric in run.scores["metrics"]]
    return f"{sum(values) / len(values):.4f}" if values else ""
