"""Finished run folders made by hand, so that tables and gates are tested without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from av_bench.results.record import SCHEMA, RunFolder
from av_bench.results.values import PSEUDO

METRICS = {"FD-x": (False, ""), "KL-x": (False, "nats"), "F1": (True, "")}


def make_run(
    folder: Path,
    model: str = "model",
    *,
    shift: float = 0.0,
    n: int = 40,
    seed: int = 0,
    flavour: str = "strict",
    version: str = "1",
    drop: tuple[str, ...] = (),
    excluded: int = 0,
    generation_seed: int = 1,
    noise: float = 0.0,
    **scores: Any,
) -> Path:
    """A run of ``n`` clips in pairs of one recording; ``shift`` makes KL-x higher and F1 lower by that much.

    ``seed`` draws other clips, ``generation_seed`` other samples of the same ones, ``noise`` apart.
    """
    rng = np.random.default_rng(seed)
    ids = [f"clip{i:03d}" for i in range(n)]
    most = max(n, 40)  # a run that lost its last clips has the values of the others
    base = {"KL-x": rng.normal(2.0, 0.5, most)[:n], "F1": rng.normal(0.6, 0.1, most)[:n]}
    pseudo = rng.normal(0.0, 1.0, most)
    pseudo = (pseudo - pseudo.mean())[:n]
    draw = np.random.default_rng(1000 + generation_seed)
    values = {"KL-x": base["KL-x"] + shift, "F1": base["F1"] - shift, "FD-x": pseudo + 5.0 + 10 * shift}
    values = {name: v + noise * draw.normal(0.0, 1.0, most)[:n] for name, v in values.items()}
    run = RunFolder(folder)
    rows = [
        {"id": i, "group": f"g{k // 2}", "metric": m, "value": float(values[m][k])}
        for m in values
        if m not in drop
        for k, i in enumerate(ids)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    run.write_clips([row for row in rows if row["metric"] != "FD-x"])
    run.write_clips([row for row in rows if row["metric"] == "FD-x"], PSEUDO)
    metrics: dict[str, Any] = {}
    for name, (up, unit) in METRICS.items():
        if name in drop:
            continue
        value = float(values[name].mean())
        metrics[name] = {
            "value": value,
            "n": n,
            "interval": [value - 0.2, value + 0.2],
            "higher_is_better": up,
            "unit": unit,
            "flavour": flavour,
            "extractors": {"x": "x-1"},
            "notes": [],
            "details": {"sd": 0.1} if name == "FD-x" else {},
        }
    content = {
        "schema": SCHEMA,
        "set": {"name": "toy", "version": "1", "list_hash": "abc"},
        "protocol": {"name": "toy", "version": version, "seconds": 8.0, "metrics": list(METRICS)},
        "flavour": flavour,
        "counts": {
            "expected": n + excluded,
            "scored": n,
            "excluded": {"unreadable": excluded} if excluded else {},
            "flagged": {},
        },
        "scored_hash": f"{n}",
        "metrics": metrics,
        "absent": dict.fromkeys(drop, "not this time"),
        "warnings": [],
    }
    run.write_json("scores.json", content | scores)
    spec = {"model": model, "label": model, "seed": generation_seed, "set": "toy", "protocol": "toy"}
    spec["protocol_version"] = version
    run.write_json("spec.json", spec)
    run.write_json("run.json", {"spec": spec})
    return folder
