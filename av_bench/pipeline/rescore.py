"""Runs that lost different clips, scored again on the clips that all of them scored.

Values per clip are read from the records. Metrics of the whole set (FD, IS, KAD) are recomputed from the features in
the store, which the ledger's digests and the recorded fingerprints find; no network runs and nothing is written.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import protocols
from av_bench.contracts import Clip, Metric, MetricError, MetricInputs, Need, Score, UsageError
from av_bench.features.store import FeaturesLost, Store, media_key
from av_bench.metrics.columns import mean_with_interval
from av_bench.pipeline.measure import build_metric
from av_bench.pipeline.score import mean_over_samples
from av_bench.results.compare import refuse_incomparable
from av_bench.results.ledger import read_ledger
from av_bench.results.record import Run, read_run
from av_bench.results.shapes import Entry
from av_bench.results.values import ClipValues, read_values

ELSEWHERE = "not scored in every row"


@dataclass(frozen=True)
class CommonRun(Run):
    """A run on fewer clips than it scored; its values are those of these clips."""

    series: dict[str, ClipValues] = field(default_factory=dict)

    def paired_values(self) -> dict[str, ClipValues]:
        """Values per clip, on the common clips."""
        return self.series


def on_common_clips(paths: Sequence[Path | str], store: Path) -> list[Run]:
    """The runs with every metric on the clips that all of them scored; ``counts`` says what each row lost.

    Raises UsageError when they are not comparable, share no clip, or a feature is no longer in the store.
    """
    runs = [read_run(path) for path in paths]
    refuse_incomparable(runs[1:] or runs, runs[:1])
    media = [scored_media(run) for run in runs]
    common = sorted(set.intersection(*(set(found) for found in media)))
    if not common:
        raise UsageError("table --common: no clip was scored in every one of these runs")
    return [_on(run, found, common, Store(store)) for run, found in zip(runs, media, strict=True)]


def scored_media(run: Run) -> dict[str, Mapping[str, Any]]:
    """Digests of the media of every clip that the last start of a run scored, from its ledger."""
    path = run.path / "ledger.jsonl"
    if not path.is_file():
        raise UsageError(f"{path} is missing: it says which media were scored; start the run again")
    found: dict[str, Mapping[str, Any]] = {}
    for _, entry in read_ledger(path):
        if entry["status"] == "excluded":
            found.pop(entry["clip"], None)
        elif entry["stage"] == "score":
            found[entry["clip"]] = entry
    if not found:
        raise UsageError(f"{path}: no line of it names a scored clip; start the run again")
    return found


def _on(run: Run, media: Mapping[str, Mapping[str, Any]], common: Sequence[str], store: Store) -> CommonRun:
    values = read_values(run.path / "clips.parquet")
    groups = {clip: unit for series in values.values() for clip, unit in series.unit.items()}
    clips = tuple(Clip(id=clip, group=groups.get(clip)) for clip in common)
    scores = copy.deepcopy(run.scores)
    series: dict[str, ClipValues] = {}
    for name, entry in list(scores["metrics"].items()):
        try:
            if name in values:
                found = _restricted(values[name], clips, entry)
            else:
                found = _computed(run, name, entry, clips, media, store)
        except MetricError as error:
            scores["absent"][name] = str(error)
            del scores["metrics"][name]
            continue
        entry |= {"value": found.value, "n": found.n, "details": dict(found.details), "notes": list(found.notes)}
        entry.pop("interval", None)
        if found.interval is not None:
            entry["interval"] = list(found.interval)
        own = found.per_clip or found.pseudo_values or {}
        series[name] = ClipValues(dict(own), {c.id: (found.units or {}).get(c.id, c.cluster) for c in clips})
    counts = scores["counts"]
    elsewhere = counts["scored"] - len(common)
    if elsewhere:
        counts["excluded"] = {**counts["excluded"], ELSEWHERE: elsewhere}
    counts["scored"] = len(common)
    scores["scored_hash"] = f"{len(common)} common clips"
    scores.pop("clean", None)
    return CommonRun(run.path, scores, run.info, series)


def _restricted(series: ClipValues, clips: Sequence[Clip], entry: Entry) -> Score:
    """The mean of a metric's own values on the common clips for which it is defined."""
    kept = [clip for clip in clips if clip.id in series.value]
    if not kept:
        raise MetricError("undefined for each of the common clips")
    numbers = np.array([series.value[clip.id] for clip in kept])
    mean, interval = mean_with_interval(numbers, kept)
    notes = tuple(entry["notes"]) if len(kept) == entry["n"] else ()
    return Score(mean, len(kept), interval, {c.id: series.value[c.id] for c in kept}, notes=notes)


def _computed(
    run: Run,
    name: str,
    entry: Entry,
    clips: tuple[Clip, ...],
    media: Mapping[str, Mapping[str, Any]],
    store: Store,
) -> Score:
    """A metric of the whole set, from the features in the store."""
    metric = _metric(run, name)
    seconds = float(run.scores["protocol"]["seconds"])
    samples = int(run.info["spec"].get("samples_per_clip", 1))
    results = []
    for k in range(samples):
        arrays = {}
        for need in metric.needs:
            keys = [media_key(_digest(media[clip.id], need, k), seconds) for clip in clips]
            try:
                rows = store.require(entry["extractors"][need.extractor], keys)
            except (FeaturesLost, KeyError) as error:
                raise UsageError(
                    f"table --common: the {need.extractor} features of {run.path} are not in the store (--store); "
                    "run the same command again to make them"
                ) from error
            arrays[need] = [rows[key][need.output] for key in keys]
        inputs = MetricInputs(clips, arrays, entry["flavour"], seconds=seconds)
        metric.validate(inputs)
        results.append(metric.compute(inputs))
    return results[0] if len(results) == 1 else mean_over_samples(results, clips)


def _metric(run: Run, name: str) -> Metric:
    """The metric as it was defined when the run was made; runs of version 0.1 do not say, so as it is defined now."""
    options = (run.scores.get("definition") or {}).get("protocol", {}).get("metrics", {}).get(name)
    if options is None:
        protocol = protocols.load_protocol(run.scores["protocol"]["name"])
        options = {**protocol.optional, **protocol.metrics}.get(name, {"kind": name})
    return build_metric(str(run.path), name, options)


def _digest(media: Mapping[str, Any], need: Need, k: int) -> str:
    if need.side == "generated":
        return str(media["generated"][k])
    return str(media["picture" if need.side == "video" else "reference"])
