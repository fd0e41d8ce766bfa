"""Numbers behind the charts: pairs of models, sorted curves, histograms, means per class. All bounded in size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from av_bench.results.compare import differences, incomparable
from reports.site.views import Metric, Model

CURVE = 400  # points of a sorted curve
POINTS = 2000  # clips of a scatter plot
CLASSES = 40  # classes of a bar chart, the most frequent


@dataclass(frozen=True)
class Duel:
    """How often one model beats another, clip by clip, and the difference of their means with its interval."""

    first: str
    second: str
    metric: str
    wins: int
    ties: int
    losses: int
    difference: float | None
    low: float | None
    high: float | None


def duels(found: Sequence[Model], asked: Sequence[Metric]) -> list[Duel]:
    """All pairs of models on all per-clip metrics."""
    made = []
    for i, first in enumerate(found):
        for second in found[i + 1 :]:
            comparable = not incomparable(first.run, second.run)
            known = {d.metric: d for d in differences(first.run, second.run)} if comparable else {}
            for metric in asked:
                ours, theirs = first.values.get(metric.name, {}), second.values.get(metric.name, {})
                both = [clip for clip in ours if clip in theirs]
                if not both:
                    continue
                signs = [(ours[c] > theirs[c]) - (ours[c] < theirs[c]) for c in both]
                up = 1 if metric.higher_is_better else -1
                wins, losses = signs.count(up), signs.count(-up)
                d = known.get(metric.name)
                interval = (None, None, None) if d is None else (d.value, d.low, d.high)
                made.append(Duel(first.name, second.name, metric.name, wins, signs.count(0), losses, *interval))
    return made


def chart_data(
    found: Sequence[Model], asked: Sequence[Metric], shown: dict[str, str], labels: dict[str, str], seed: int
) -> dict[str, Any]:
    """What the charts draw, as plain data. ``shown``: clip -> its anchor on the clips page."""
    everything = sorted({c for m in found for values in m.values.values() for c in values})
    rest = [c for c in everything if c not in shown]
    chosen = sorted([*shown, *random.Random(seed).sample(rest, min(len(rest), max(0, POINTS - len(shown))))])
    return {
        "models": [{"key": m.key, "name": m.name} for m in found],
        "metrics": [{"name": m.name, "up": m.higher_is_better, "unit": m.unit} for m in asked],
        "clips": [{"id": c, "anchor": shown.get(c), "label": labels.get(c, "")} for c in chosen],
        "values": {
            m.key: {q.name: [_rounded(m.values.get(q.name, {}).get(c)) for c in chosen] for q in asked} for m in found
        },
        "curves": {m.key: {q.name: _curve(m, q) for q in asked if m.values.get(q.name)} for m in found},
        "offsets": {m.key: offsets for m in found if (offsets := _offsets(m))},
        "classes": {q.name: _classes(found, q, labels) for q in asked},
        "clips_in_all": len(everything),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _curve(model: Model, metric: Metric) -> list[float]:
    """Values from worst to best at evenly spaced shares of the clips."""
    values = np.sort(np.array(list(model.values[metric.name].values())))
    if not metric.higher_is_better:
        values = values[::-1]
    at = np.linspace(0, len(values) - 1, min(len(values), CURVE)).round().astype(int)
    return [float(f"{v:.5g}") for v in values[at]]


def _offsets(model: Model) -> dict[str, dict[str, int]]:
    """Signed offsets of DeSync: metric -> class in s -> crops."""
    found = {}
    for name, entry in model.run.scores["metrics"].items():
        histogram = entry.get("details", {}).get("signed_histogram")
        if histogram:
            found[name] = {str(k): int(v) for k, v in histogram.items()}
    return found


def _classes(found: Sequence[Model], metric: Metric, labels: dict[str, str]) -> dict[str, Any]:
    """Means per class, for the classes with the most clips."""
    groups: dict[str, list[str]] = {}
    for clip, label in labels.items():
        if label:
            groups.setdefault(label, []).append(clip)
    names = sorted(groups, key=lambda name: (-len(groups[name]), name))[:CLASSES]
    means: dict[str, list[float | None]] = {}
    for model in found:
        values = model.values.get(metric.name, {})
        inside = [[values[c] for c in groups[name] if c in values] for name in names]
        means[model.key] = [_rounded(float(np.mean(v))) if v else None for v in inside]
    return {"names": [f"{name} ({len(groups[name])})" for name in names], "means": means}
