"""From features in the store to the scores of a run: one frozen list for all metrics, absent numbers with reasons."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import (
    Clip,
    GaussianRows,
    Metric,
    MetricError,
    MetricInputs,
    Need,
    Reason,
    Score,
    Side,
    plugin_boundary,
)
from av_bench.features.extraction import Extraction
from av_bench.features.reference_pack import Reference
from av_bench.features.sides import ReferenceMedia, Sides
from av_bench.metrics.columns import mean_with_interval
from av_bench.metrics.set_scores import interval_of_effects
from av_bench.pipeline import clean_subset
from av_bench.pipeline.feature_arrays import FeatureArrays
from av_bench.pipeline.measure import needs_of
from av_bench.pipeline.plan import RunPlan
from av_bench.pipeline.remarks import far_above_full_scale, left_out, not_the_released_weights
from av_bench.results.definition import digest
from av_bench.results.record import SCHEMA
from av_bench.weights.lock import load_lock
from protocols.definitions import recorded


def score(
    plan: RunPlan, extraction: Extraction, sides: Sides, scored: tuple[Clip, ...], extra: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """``scores.json``, and the rows of ``clips.parquet`` and ``pseudo_values.parquet``.

    ``extra`` are files of the source that belong to no clip.
    """
    groups = {clip.id: clip.cluster for clip in scored}
    with FeatureArrays(extraction, sides, plan.reference, _needs(plan)) as arrays:
        results, absent = _compute(plan, arrays, scored)
        warnings = _warnings(plan, sides, scored, arrays)
    rows = [
        {"id": clip_id, "group": groups[clip_id], "metric": name, "value": value}
        for name, result in results.items()
        for clip_id, value in (result.per_clip or {}).items()
    ]
    pseudo = [
        {"id": clip_id, "group": (result.units or groups)[clip_id], "metric": name, "value": value}
        for name, result in results.items()
        for clip_id, value in (result.pseudo_values or {}).items()
    ]
    definition = recorded(plan.protocol, plan.definition)
    added = [m.name for m in plan.measurement.metrics if m.name not in plan.protocol.metrics]
    scores = {
        "schema": SCHEMA,
        "set": {"name": plan.clips.name, "version": plan.clips.version, "list_hash": plan.clips.list_hash},
        "protocol": {
            "name": plan.protocol.name,
            "version": plan.protocol.version,
            "seconds": plan.protocol.seconds,
            **({"remark": plan.remark} if plan.remark else {}),
            "metrics": [*plan.protocol.metrics, *added],
            **({"notes": list(plan.protocol.notes)} if plan.protocol.notes else {}),
        },
        "definition": {"hash": digest(definition), **definition},
        "flavour": plan.flavour,
        "reference": _described(plan.reference),
        "counts": _counts(plan, sides, scored, len(extra)),
        "scored_hash": hashlib.sha256("\n".join(c.id for c in scored).encode()).hexdigest(),
        "metrics": {m.name: _entry(m, results[m.name], plan) for m in plan.measurement.metrics if m.name in results},
        "absent": absent,
        "warnings": warnings,
    }
    if plan.options.dedup is not None:
        scores["clean"] = _clean(plan, extraction, sides, scored, results)
    return scores, rows, pseudo


def _described(pack: Reference | None) -> dict[str, Any] | None:
    """Where the reference came from, when that is a pack."""
    if pack is None:
        return None
    return {"digest": pack.digest, "source": pack.info["source"], "networks_stated": pack.stated}


def _needs(plan: RunPlan) -> list[Need]:
    return [need for metric in plan.measurement.metrics for need in metric.needs]


def _compute(plan: RunPlan, arrays: FeatureArrays, clips: tuple[Clip, ...]) -> tuple[dict[str, Score], dict[str, str]]:
    """Every metric on one list of clips: scores, and the reasons of those that are absent."""
    results: dict[str, Score] = {}
    absent: dict[str, str] = {}
    for metric in plan.measurement.metrics:
        try:
            with plugin_boundary(f"metric {type(metric).__name__} ({type(metric).__module__}), column {metric.name}"):
                results[metric.name] = _column(metric, plan, arrays, clips)
        except MetricError as error:
            absent[metric.name] = str(error)
    return results, absent


def _clean(
    plan: RunPlan, extraction: Extraction, sides: Sides, scored: tuple[Clip, ...], full: dict[str, Score]
) -> dict[str, Any]:
    """Scores of the clips that are not in the overlap file, and how they differ from the full set's."""
    assert plan.options.dedup is not None
    clips = clean_subset.clean_subset(scored, plan.options.dedup)
    with FeatureArrays(extraction, sides, plan.reference, _needs(plan)) as arrays:
        results, absent = _compute(plan, arrays, clips)
    found = {m.name: _entry(m, results[m.name], plan) for m in plan.measurement.metrics if m.name in results}
    for name, difference in clean_subset.differences(full, results, scored).items():
        found[name] |= {"against_full": difference}
    return {"scored": len(clips), "left_out": len(scored) - len(clips), "metrics": found, "absent": absent}


def _column(metric: Metric, plan: RunPlan, arrays: FeatureArrays, scored: tuple[Clip, ...]) -> Score:
    """One metric over all samples per clip: the mean over samples of the values and of the per-clip values."""
    if not scored:
        raise MetricError(f"{metric.name}: no clip could be scored (the ledger says why)")
    covered = {n.side for n in metric.needs if plan.reference is not None and plan.reference.covers(n)}
    for name in metric.clip_fields:
        if name in covered:
            continue
        lacking = sum(not clip.has(name) for clip in scored)
        if lacking:
            raise MetricError(f"{metric.name} needs {name} for every clip; {lacking} of {len(scored)} clips have none")
    given = _given_statistics(metric, plan)
    absent = [
        n for n in metric.needs if n.side == "reference" and n not in given and not _has_reference(plan, n, scored)
    ]
    if absent:
        raise MetricError(f"{metric.name} needs reference audio (or its features), and there is none")
    for need in needs_of(metric, plan.extractors):
        if not _has_video(plan, arrays.sides.reference, need):
            raise MetricError(f"{metric.name} needs the videos or their {need.extractor} features, and has neither")
    results = []
    for k in range(plan.options.samples_per_clip):
        found = {n: arrays.get(n, scored, k) for n in metric.needs if n not in given}
        inputs = MetricInputs(scored, found, plan.flavour, given, None if plan.windows else plan.protocol.seconds)
        metric.validate(inputs)
        score_of_k = metric.compute(inputs)
        if not math.isfinite(score_of_k.value):
            raise MetricError(f"{metric.name} came out as {score_of_k.value}, which is not a number")
        results.append(score_of_k)
    return results[0] if len(results) == 1 else mean_over_samples(results, scored)


def _given_statistics(metric: Metric, plan: RunPlan) -> dict[Need, GaussianRows]:
    """Statistics of a pack for the needs of an FD column of which the pack holds no per-clip features."""
    if plan.reference is None or not metric.accepts_statistics:
        return {}
    found = {n: plan.reference.gaussian(n) for n in metric.needs if not plan.reference.covers(n)}
    return {need: gaussian for need, gaussian in found.items() if gaussian is not None}


def _has_video(plan: RunPlan, reference: ReferenceMedia, need: Need) -> bool:
    """Whether a need of the videos is met: by the videos, or by a pack that holds their features."""
    return need.side != "video" or reference.has_video or (plan.reference is not None and plan.reference.covers(need))


def has_inputs(plan: RunPlan, reference: ReferenceMedia, pair: str, side: Side) -> bool:
    """Whether both inputs of a pair extractor are there; a pack may hold some networks' features and not others'."""
    video, audio = plan.extractors.inputs_of(Need(pair, "", side))
    heard = side != "reference" or plan.reference is None or plan.reference.covers(audio)
    return heard and _has_video(plan, reference, video)


def _has_reference(plan: RunPlan, need: Need, scored: tuple[Clip, ...]) -> bool:
    """Whether per-clip features of the reference exist for a need."""
    if plan.reference is not None:
        return plan.reference.covers(need)
    return plan.definition.reference_audio and all(c.reference_audio is not None for c in scored)


def mean_over_samples(results: list[Score], scored: tuple[Clip, ...]) -> Score:
    """Mean of the samples' values; the interval is that of the mean, clip by clip."""
    values = [r.value for r in results]
    spread = {"samples": len(results), "std_over_samples": float(np.std(values, ddof=1))}
    own = {key: value for key, value in results[0].details.items() if key not in ("sd", "half_width")}  # of sample 0
    details = {**own, **spread}
    notes = tuple(dict.fromkeys(note for r in results for note in r.notes))
    if results[0].pseudo_values is not None:
        pseudo = {c.id: float(np.mean([(r.pseudo_values or {})[c.id] for r in results])) for c in scored}
        units = [(results[0].units or {}).get(c.id, c.cluster) for c in scored]
        mean = float(np.mean(values))
        effects = (np.array(list(pseudo.values())) - mean) / len(scored)
        least = min((r.interval[0] for r in results if r.interval), default=-np.inf)
        interval, found = interval_of_effects(mean, effects, units, least)
        return Score(mean, len(scored), interval, None, {**details, **found}, notes, pseudo, results[0].units)
    if results[0].per_clip is None:
        return Score(float(np.mean(values)), results[0].n, None, None, details, notes)
    by_clip: dict[str, list[float]] = {}
    for r in results:
        for clip_id, value in (r.per_clip or {}).items():
            by_clip.setdefault(clip_id, []).append(value)
    clips = [c for c in scored if c.id in by_clip]
    per_clip = {c.id: float(np.mean(by_clip[c.id])) for c in clips}
    mean, interval = mean_with_interval(np.array([per_clip[c.id] for c in clips]), clips)
    return Score(mean, len(clips), interval, per_clip, details, notes)


def _entry(metric: Metric, result: Score, plan: RunPlan) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "value": result.value,
        "n": result.n,
        "higher_is_better": metric.higher_is_better,
        "unit": metric.unit,
        "flavour": plan.flavour,
        "extractors": {n.extractor: plan.extractors.fingerprint(n.extractor) for n in metric.needs},
        "notes": list(result.notes),
        "details": dict(result.details),
    }
    if result.interval is not None:
        entry["interval"] = list(result.interval)
    return entry


def _counts(plan: RunPlan, sides: Sides, scored: Sequence[Clip], extra: int) -> dict[str, Any]:
    problems = (sides.problem(c.id, plan.options.samples_per_clip) for c in plan.clips.clips)
    excluded = Counter(p.reason.value for p in problems if p is not None)
    flagged = Counter(reason.value for c in scored for _, reason, _ in sides.flags(c.id))
    if extra:
        flagged[Reason.EXTRA_SAMPLE.value] = extra
    if plan.clips.left_out:
        flagged[Reason.LEFT_OUT.value] = len(plan.clips.left_out)
    return {
        "expected": len(plan.clips.clips),
        "scored": len(scored),
        "excluded": dict(sorted(excluded.items())),
        "flagged": dict(sorted(flagged.items())),
    }


def _warnings(plan: RunPlan, sides: Sides, scored: tuple[Clip, ...], arrays: FeatureArrays) -> list[str]:
    """Remarks on suspicious input, printed under the table."""
    warnings = [*plan.clips.notes, *clean_subset.warnings(plan.options.dedup)]
    trained_on = plan.protocol.trained_on
    if trained_on is not None and plan.clips.name != trained_on:
        warnings.append(
            f"the networks of protocol {plan.protocol.name} were trained on set {trained_on} only; "
            f"on set {plan.clips.name} their values show that the chain works, not how good a model is"
        )
    short = sum(
        problem is not None and problem.reason in (Reason.TOO_SHORT_AUDIO, Reason.TOO_SHORT_VIDEO)
        for problem in (sides.problem(c.id, plan.options.samples_per_clip) for c in plan.clips.clips)
    )
    if short and plan.definition.kind == "folder" and not plan.windows:
        warnings.append(
            f"{short} clips are shorter than the {plan.protocol.seconds:g} s that are scored; --seconds shortest, or "
            "--protocol any-length, scores them too"
        )
    for network, use in plan.source.metric_networks.items():
        judged = [m.name for m in plan.measurement.metrics if _rests_on(m, network)]
        if judged:
            warnings.append(
                f"{', '.join(judged)}: {plan.spec.model} uses {network} itself ({use}), so no independent judge"
            )
    same = _identical(plan, scored, arrays)
    if same and not plan.source.is_reference:
        warnings.append(
            f"{len(same)} of {len(scored)} samples have the same features as the reference audio, e.g. {same[0]}"
        )
    silent = sum(r is Reason.SILENT for c in scored for stage, r, _ in sides.flags(c.id) if stage == "generated")
    if silent:
        warnings.append(f"{silent} generated samples are silent; they are scored as they are")
    names = [*plan.extractors.names, str(plan.spec.model).partition(":")[0]]
    return [*warnings, *not_the_released_weights(names), *far_above_full_scale(sides, scored), *left_out(plan.clips)]


def _rests_on(metric: Metric, network: str) -> bool:
    """Whether any extractor of a metric has the weights of this name in the lock file."""
    entry = load_lock().get(network)
    users = () if entry is None else (network, *entry.needed_by)
    return any(need.extractor in users for need in metric.needs)


def _identical(plan: RunPlan, scored: tuple[Clip, ...], arrays: FeatureArrays) -> list[str]:
    """Clips whose generated features equal the reference features to rounding."""
    for metric in plan.measurement.metrics:
        needs = {need.side: need for need in metric.needs}
        both = set(needs) == {"reference", "generated"}
        if both and scored and _has_reference(plan, needs["reference"], scored):
            pairs = zip(
                scored,
                arrays.get(needs["reference"], scored, 0),
                arrays.get(needs["generated"], scored, 0),
                strict=True,
            )
            return [clip.id for clip, a, b in pairs if _nearly_equal(a, b)]
    return []


def _nearly_equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Equal but for what writing and reading a file changes: 0.1 % of the size of the features."""
    return float(np.abs(first - second).max()) <= 1e-3 * float(np.sqrt(np.mean(np.square(first))) + 1e-12)
