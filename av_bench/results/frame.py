"""Runs as pandas frames, for notebooks and own analyses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from av_bench.contracts import UsageError, unknown_name
from av_bench.results.record import Run, read_run

if TYPE_CHECKING:
    import pandas as pd

Per = Literal["run", "clip"]
PER: tuple[Per, ...] = ("run", "clip")


def frame(paths: Sequence[Path | str], per: str = "run") -> pd.DataFrame:
    """A pandas frame of run folders.

    ``per="run"``: one row per run and metric: run, model, set, set_version, protocol, flavour, metric, value, low,
    high, n, higher_is_better, unit. ``per="clip"``: one row per run, clip and metric: run, model, set, clip, group,
    metric, value. A missing number has no row. UsageError for other words and for folders that are not finished runs.
    """
    import pandas as pd

    if per not in PER:
        raise UsageError(f"av_bench.frame: {unknown_name('unit', per, PER)}")
    runs = [read_run(path) for path in paths]
    if not runs:
        raise UsageError("av_bench.frame: no run folders given")
    if per == "run":
        return pd.DataFrame([row for run in runs for row in _rows(run)])
    return pd.concat([_clips(run) for run in runs], ignore_index=True)


def _about(run: Run) -> dict[str, str]:
    return {"run": str(run.path), "model": run.name, "set": run.scores["set"]["name"]}


def _rows(run: Run) -> list[dict[str, object]]:
    scores = run.scores
    about = _about(run) | {
        "set_version": scores["set"]["version"],
        "protocol": scores["protocol"]["name"],
        "flavour": scores["flavour"],
    }
    rows = []
    for name, entry in scores["metrics"].items():
        low, high = entry.get("interval") or (None, None)
        number = {"metric": name, "value": entry["value"], "low": low, "high": high, "n": entry["n"]}
        rows.append(about | number | {"higher_is_better": entry["higher_is_better"], "unit": entry["unit"]})
    return rows


def _clips(run: Run) -> pd.DataFrame:
    import pandas as pd

    found = pd.read_parquet(run.path / "clips.parquet").rename(columns={"id": "clip"})
    for at, (name, value) in enumerate(_about(run).items()):
        found.insert(at, name, value)
    return found[["run", "model", "set", "clip", "group", "metric", "value"]]
