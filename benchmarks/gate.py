"""Does the gate keep its promise? False alarms of an unchanged model, and power against known damage.

    python benchmarks/gate.py                                  # features drawn from known distributions: minutes
    python benchmarks/gate.py --features FOLDER                # and the random generator of gate_samples.py

Every simulated run goes through the metrics of protocol ``nano`` and the gate itself. Prints, for each metric and for
the whole gate, how often an unchanged model fails (with the 95 % interval of that estimate, Clopper & Pearson), and how
often damage is found. ``docs/statistics.md`` holds a table and says what the simulations assume.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from av_bench.contracts import Clip, Metric, MetricInputs, Need
from av_bench.metrics.columns import PerClipMetric
from av_bench.pipeline.measure import measure
from av_bench.results.gate import Outcome, judge
from av_bench.results.record import Run
from av_bench.results.rules import Rules
from av_bench.results.values import ClipValues
from protocols.definitions import load_protocol

Pair = tuple[Run, Run]  # new, base


@dataclass(frozen=True)
class Simulated(Run):
    """A run that never was on disk: values per clip only."""

    series: dict[str, ClipValues] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def paired_values(self) -> dict[str, ClipValues]:
        """The values it was made of."""
        return self.series

    def per_clip(self) -> frozenset[str]:
        """Metrics with values of their own."""
        return self.own


def simulated(values: dict[str, ClipValues], up: dict[str, bool], own: frozenset[str], seed: int = 0) -> Simulated:
    """A run from values per clip; only what the gate reads of a record is there."""
    n = max(len(series.value) for series in values.values())
    metrics = {
        name: {"value": float(np.mean(list(v.value.values()))), "higher_is_better": up[name], "extractors": {}}
        for name, v in values.items()
    }
    scores: dict[str, Any] = {
        "set": {"name": "simulated", "version": "1", "list_hash": str(n)},
        "protocol": {"name": "nano", "version": "1", "metrics": list(values)},
        "flavour": "strict",
        "counts": {"scored": n, "expected": n, "excluded": {}},
        "metrics": metrics,
        "absent": {},
    }
    return Simulated(Path("simulated"), scores, {"spec": {"model": "simulated", "seed": seed}}, values, own)


def clip_values(metric: Metric, inputs: MetricInputs) -> ClipValues:
    """Values per clip of a metric, own or pseudo, without the interval of the run alone."""
    clusters = {clip.id: clip.cluster for clip in inputs.clips}
    if isinstance(metric, PerClipMetric):
        values = metric.values(inputs) * metric.scale
        found = {c.id: float(v) for c, v in zip(inputs.clips, values, strict=True) if np.isfinite(v)}
        return ClipValues(found, clusters)
    score = metric.compute(inputs)
    assert score.pseudo_values is not None
    return ClipValues(dict(score.pseudo_values), dict(score.units or clusters))


# --------------------------------------------------------------------------- known distributions

DIMENSIONS, CLASSES = 64, 24
KNOWN = ("FD-nano", "KL-nano", "IS-nano", "KAD-nano", "Bind-nano", "F1")


class Known:
    """A generator whose embeddings, class scores and onset scores are drawn from known distributions.

    An embedding is 0.7 of the clip's own plus noise of another seed; class scores are a fixed linear map of it. Damage
    is a change of the distribution: ``lowpass`` shrinks half of the dimensions by a fifth, ``gain`` moves the mean,
    ``shift`` lowers onset scores alone, ``replaced`` gives a fifth of the clips another clip's embedding.
    """

    def __init__(self, metrics: Sequence[Metric], n: int, rng: np.random.Generator) -> None:
        self.metrics, self.n, self.rng = metrics, n, rng
        self.scale = np.arange(1, DIMENSIONS + 1) ** -0.5
        self.to_classes = np.random.default_rng(0).normal(size=(DIMENSIONS, CLASSES))
        self.clips = tuple(Clip(f"{i:05d}") for i in range(n))

    def draw_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """Own embedding ``(n, d)`` and difficulty ``(n,)`` of every clip."""
        return self.rng.normal(size=(self.n, DIMENSIONS)), self.rng.normal(size=self.n)

    def draw_seed(self, real: np.ndarray) -> np.ndarray:
        """Embeddings of one seed."""
        drawn: np.ndarray = 0.7 * real + 0.2 + 0.6 * self.rng.normal(size=real.shape)
        return drawn

    def run(self, real: np.ndarray, hard: np.ndarray, made: np.ndarray, damage: str) -> Simulated:
        """The run of one seed, damaged or not."""
        noise = np.random.default_rng(int(abs(made[0, 0]) * 1e9)).normal(size=self.n)  # the seed's, damage apart
        made = made.copy()
        penalty = np.zeros(self.n)
        if damage == "lowpass":
            made[:, ::2] *= 0.8
        elif damage == "gain":
            made += 0.15
        elif damage == "shift":
            penalty += 0.1
        elif damage == "replaced":
            chosen = self.rng.permutation(self.n)[: self.n // 5]
            made[chosen] = made[np.roll(chosen, 1)]
            penalty[chosen] = 0.4
        hits = np.clip(0.6 + 0.2 * hard + 0.15 * noise - penalty, 0.0, 1.0)
        f1 = {clip.id: float(v) for clip, v in zip(self.clips, hits, strict=True)}
        sides = {"reference": real * self.scale, "generated": made * self.scale}
        arrays: dict[Need, Sequence[np.ndarray]] = {}
        values, up = {}, {}
        for metric in self.metrics:
            up[metric.name] = metric.higher_is_better
            if metric.name == "F1":
                values["F1"] = ClipValues(f1, ids(self.clips))
                continue
            for need in metric.needs:
                rows = sides["generated" if need.side == "generated" else "reference"]
                arrays[need] = list(rows @ self.to_classes if need.output == "logits" else rows)
            values[metric.name] = clip_values(metric, MetricInputs(self.clips, arrays))
        return simulated(values, up, frozenset({"KL-nano", "Bind-nano", "F1"}))

    def pair(self, damage: str, same_seed: bool) -> Pair:
        """Fresh clips, a baseline and a new run on them."""
        real, hard = self.draw_clips()
        base = self.draw_seed(real)
        new = base if same_seed else self.draw_seed(real)
        return self.run(real, hard, new, damage), self.run(real, hard, base, "none")


def ids(clips: Sequence[Clip]) -> dict[str, str]:
    """Each clip is a recording of its own."""
    return {clip.id: clip.cluster for clip in clips}


# --------------------------------------------------------------------------- the generator made from real sound


class Impacts:
    """Runs put together from the samples of ``gate_samples.py``: for each clip one of its seeds.

    Clips are independent given their seeds, so choosing seeds clip by clip gives many runs of one model. ``replaced``
    gives a fifth of the clips another clip's sample; its DeSync is left as it was.
    """

    def __init__(self, metrics: Sequence[Metric], folder: Path, n: int, rng: np.random.Generator) -> None:
        from protocols.definitions import SetRequest, load_set
        from protocols.readers.read import read_clips

        self.metrics, self.n, self.rng = metrics, n, rng
        every = read_clips(load_set("impacts"), SetRequest()).clips
        paths = {clip: folder / f"{clip.id}.npz" for clip in every}
        self.clips = tuple(clip for clip, path in paths.items() if path.is_file())
        if len(self.clips) < n:
            raise SystemExit(f"{folder} holds {len(self.clips)} clips of gate_samples.py, {n} are needed")
        self.features = [dict(np.load(paths[clip])) for clip in self.clips]
        kinds = [{tuple(k.split("/")[:2]) for k in f if k[0].isdigit()} for f in self.features]
        self.seeds = sorted({int(seed) for seed, damage in kinds[0] if damage == "none"})
        self.damaged = sorted({int(seed) for seed, damage in kinds[0] if damage == "lowpass"})
        self._cache: dict[tuple[Any, ...], float] = {}

    def pair(self, damage: str, same_seed: bool) -> Pair:
        """``n`` clips of the set, a baseline and a new run on them."""
        chosen = np.sort(self.rng.permutation(len(self.clips))[: self.n])
        new = self.rng.choice(self.seeds if damage in ("none", "replaced") else self.damaged, self.n)
        base = new if same_seed else np.array([self.rng.choice([s for s in self.seeds if s != k]) for k in new])
        return self.run(chosen, new, damage), self.run(chosen, base, "none")

    def run(self, chosen: np.ndarray, seeds: np.ndarray, damage: str) -> Simulated:
        """The run that has these seeds of these clips."""
        source = chosen.copy()
        if damage == "replaced":
            which = self.rng.permutation(self.n)[: self.n // 5]
            source[which] = chosen[np.roll(which, 1)]
        kind = "none" if damage == "replaced" else damage
        clips = tuple(self.clips[i] for i in chosen)
        values, up = {}, {}
        for metric in self.metrics:
            up[metric.name] = metric.higher_is_better
            if isinstance(metric, PerClipMetric):
                found = [self._value(metric, c, s, int(k), kind) for c, s, k in zip(chosen, source, seeds, strict=True)]
                kept = {c.id: v for c, v in zip(clips, found, strict=True) if np.isfinite(v)}
                values[metric.name] = ClipValues(kept, ids(clips))
            else:
                arrays = {
                    need: [self._array(need, c, s, int(k), kind) for c, s, k in zip(chosen, source, seeds, strict=True)]
                    for need in metric.needs
                }
                values[metric.name] = clip_values(metric, MetricInputs(clips, arrays))
        return simulated(values, up, frozenset(m.name for m in self.metrics if isinstance(m, PerClipMetric)))

    def _array(self, need: Need, clip: int, source: int, seed: int, kind: str) -> np.ndarray:
        if need.side != "generated":
            found: np.ndarray = self.features[clip][f"{need.side}/{need.extractor}/{need.output}"]
            return found
        if need.extractor == "nano-sync":
            source = clip
        made: np.ndarray = self.features[source][f"{seed}/{kind}/{need.extractor}/{need.output}"]
        return made

    def _value(self, metric: PerClipMetric, clip: int, source: int, seed: int, kind: str) -> float:
        key = (metric.name, clip, source, seed, kind)
        if key not in self._cache:
            arrays = {need: [self._array(need, clip, source, seed, kind)] for need in metric.needs}
            inputs = MetricInputs((self.clips[clip],), arrays, "strict", seconds=8.0)
            self._cache[key] = float(metric.values(inputs)[0]) * metric.scale
        return self._cache[key]


# --------------------------------------------------------------------------- counting


def rates(pairs: Callable[[], Pair], count: int, rules: Rules | None = None) -> dict[str, int]:
    """How often each metric, and the whole gate, called a regression in ``count`` pairs."""
    found: dict[str, int] = {"whole gate": 0}
    for _ in range(count):
        new, base = pairs()
        verdict = judge([new], [base], rules or Rules())
        found["whole gate"] += not verdict.passed
        for check in verdict.checks[1:]:
            found[check.name] = found.get(check.name, 0) + (check.outcome is Outcome.REGRESSION)
    return found


def shown(hits: int, count: int) -> str:
    """Rate with the 95 % interval of the estimate."""
    interval = stats.binomtest(hits, count).proportion_ci(0.95)
    return f"{hits / count:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def metrics_of(names: Sequence[str]) -> tuple[Metric, ...]:
    """Metrics of protocol nano by name."""
    return measure(load_protocol("nano"), tuple(names), "cpu").metrics


def report(name: str, n: int, source: Known | Impacts, null: int, powered: int) -> dict[str, Any]:
    """Print one block of the table, and return its counts."""
    print(f"\n{name}, n = {n}", flush=True)
    alarms = rates(lambda: source.pair("none", False), null)
    print(f"  unchanged, {null} pairs: " + "; ".join(f"{k} {shown(v, null)}" for k, v in alarms.items()), flush=True)
    result: dict[str, Any] = {"source": name, "n": n, "pairs": null, "alarms": alarms, "power": {}}
    for damage in ("lowpass", "gain", "shift", "replaced"):
        for same in (True, False):
            found = rates(lambda d=damage, s=same: source.pair(d, s), powered)  # type: ignore[misc]
            label = f"{damage}, {'same seed' if same else 'other seed'}"
            result["power"][label] = found
            print(f"  {label}: " + "; ".join(f"{k} {v / powered:.0%}" for k, v in found.items()), flush=True)
    return result


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[64, 256, 2000])
    parser.add_argument("--null", type=int, default=400, help="pairs of an unchanged model")
    parser.add_argument("--power", type=int, default=100, help="pairs per damage")
    parser.add_argument("--features", type=Path, help="folder of gate_samples.py")
    parser.add_argument("--json", type=Path, help="write the counts")
    options = parser.parse_args()
    results = []
    for n in options.clips:
        if options.features is None:
            names = [name for name in KNOWN if name != "KAD-nano" or n < 1000]  # n^2 kernels, hundreds of times
            source: Known | Impacts = Known(metrics_of(names), n, np.random.default_rng(n))
            results.append(report("known distributions", n, source, options.null, options.power))
        elif n <= 256:
            names = [*load_protocol("nano").metrics, "KAD-nano"]
            source = Impacts(metrics_of(names), options.features, n, np.random.default_rng(n))
            results.append(report("random generator on impacts", n, source, options.null, options.power))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
