"""Scores of an earlier start are kept when everything that they were computed from is the same.

A run that is started again finds its samples and features; with 200,000 clips its scores then cost more than all else.
They are computed again whenever anything differs that could change them, and when it cannot be told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from av_bench.contracts import UsageError
from av_bench.features.sides import MediaFile, Sides
from av_bench.pipeline.plan import RunPlan
from av_bench.results.record import RunFolder
from av_bench.results.shapes import Info, Scores, read_record
from av_bench.results.shards import code
from av_bench.results.values import PSEUDO
from av_bench.runtime.files import file_digest

FILES = ("scores.json", "clips.parquet", PSEUDO)


def fingerprint(plan: RunPlan, sides: Sides, extra: Mapping[str, str]) -> str | None:
    """Digest of all that the scores of a run depend on; None when a change could not be seen.

    That is so for metrics of other packages and for a checkout with local changes.
    """
    versions = code()
    foreign = any(not type(metric).__module__.startswith("av_bench.") for metric in plan.measurement.metrics)
    if foreign or versions.get("git", "").endswith("+dirty"):
        return None
    found = hashlib.sha256(json.dumps(_shared(plan, versions, extra), sort_keys=True, default=repr).encode())
    for line in _clips(sides):
        found.update(line.encode("utf8", "backslashreplace"))
    return found.hexdigest()


def _shared(plan: RunPlan, versions: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, Any]:
    """What is the same for all clips."""
    return {
        "code": versions,
        "spec": asdict(plan.spec),
        "metrics": [[type(metric).__name__, vars(metric)] for metric in plan.measurement.metrics],
        "source": [plan.source.is_reference, dict(plan.source.metric_networks)],
        "extractors": {name: plan.extractors.fingerprint(name) for name in plan.extractors.names},
        "protocol": asdict(plan.protocol),
        "reference": None if plan.reference is None else [plan.reference.digest, plan.reference.stated],
        "windows": dict(plan.windows),
        "notes": [*plan.clips.notes, plan.remark, *map(str, plan.clips.left_out)],
        "extra": dict(extra),
    }


def _clips(sides: Sides) -> Iterator[str]:
    """Every clip and its media."""
    for clip in sides.clips:
        media = [*sides.reference.files(clip.id), *sides.generated.get(clip.id, [])]
        yield f"{clip!r}\0" + "\0".join(map(_medium, media)) + "\n"


def _medium(medium: MediaFile) -> str:
    problem = None if medium.problem is None else (medium.problem.reason, medium.problem.detail)
    return repr((medium.digest, medium.identity, medium.sample, medium.seconds, medium.level, medium.flags, problem))


def earlier_scores(folder: RunFolder, wanted: str | None) -> dict[str, Any] | None:
    """``scores.json`` of the run folder when it was computed from the same and all result files are as they were."""
    if wanted is None or not all((folder.path / name).is_file() for name in ("run.json", *FILES)):
        return None
    try:
        known = read_record(folder.path / "run.json", Info).get("scored_from")
    except UsageError:  # it is written again
        return None
    if known is None or known["inputs"] != wanted or known["files"] != result_files(folder):
        return None
    return dict(read_record(folder.path / "scores.json", Scores))


def result_files(folder: RunFolder) -> dict[str, str]:
    """sha256 of each file that scores are kept in."""
    return {name: file_digest(folder.path / name) for name in FILES}
