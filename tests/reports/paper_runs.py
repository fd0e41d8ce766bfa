"""Run folders by hand that hold the paper's own numbers, so that layouts are tested against what the paper prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from av_bench.results.record import SCHEMA, RunFolder
from reports import paper_rows
from reports.ledger import higher_is_better

SETS = {"table1": "vggsound", "table2": "greatest_hits", "table3": "audiocaps", "tableA2": "moviegen"}
NO_METRICS = ("params", "seconds", "training hours")
NETWORKS = {
    "PaSST": "passt",
    "PANNs": "panns",
    "VGG": "vggish",
    "IS": "panns",
    "IB-score": "imagebind-audio",
    "DeSync": "synchformer",
}


def scored_run(
    folder: Path, name: str, on: str, values: dict[str, float], described: dict[str, Any] | None = None, n: int = 100
) -> Path:
    """A run folder with these values; every clip has the mean's value."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    metrics = {}
    for metric, value in values.items():
        network = NETWORKS.get(metric, NETWORKS.get(metric.partition("-")[2], "x"))
        metrics[metric] = {
            "value": value,
            "n": n,
            "interval": [value * 0.98, value * 1.02],
            "higher_is_better": higher_is_better(metric),
            "unit": {"KL": "nats", "De": "s"}.get(metric[:2], ""),
            "flavour": "paper",
            "extractors": {network: f"{network}-1"},
            "notes": [],
            "details": {"within_one_class": 0.775} if metric.startswith("DeSync") else {},
        }
    run.write_clips(
        [{"id": f"c{i}", "group": f"g{i}", "metric": m, "value": v} for i in range(n) for m, v in values.items()]
    )
    scores: dict[str, Any] = {
        "schema": SCHEMA,
        "set": {"name": on, "version": "1", "list_hash": on},
        "protocol": {"name": f"{on}-8s", "version": "1", "seconds": 8.0, "metrics": list(values)},
        "flavour": "paper",
        "counts": {"expected": n, "scored": n, "excluded": {}, "flagged": {}},
        "scored_hash": on,
        "metrics": metrics,
        "absent": {},
        "warnings": [],
    }
    run.write_json("scores.json", scores)
    run.write_json("run.json", {"spec": {"model": name, "label": name}, "generator": described or {}})
    return folder


def runs_of(table: str, folder: Path, on: str = "vggsound", names: dict[str, str] | None = None) -> list[Path]:
    """One run per row of a table of the paper. ``names``: setting -> label of the run."""
    made = []
    for i, entry in enumerate(paper_rows.read(table)):
        values = {m: c.value for m, c in entry.cells.items() if m not in NO_METRICS and c.spread is None}
        described: dict[str, Any] = {"paper": [{"table": table, "row": entry.method}], "training_sets": []}
        if "params" in entry.cells:
            described["parameters"] = {"count": round(entry.cells["params"].value * 1e6), "source": "measured"}
        if "seconds" in entry.cells:
            seconds = {"mean": entry.cells["seconds"].value, "n": 8, "how": "by hand", "device": "none"}
            described["seconds_per_sample"] = seconds
        where = "vggsound-5s" if "evaluated at 5 s" in entry.remark else SETS.get(table, on)
        label = (names or {}).get(entry.method, entry.method)
        made.append(scored_run(folder / f"{table}-{i}", label, where, values, described))
    return made
