"""A content audit as the JSON object of ``av_bench.audit.report``."""

from __future__ import annotations

from typing import Any

from av_bench.audit import report
from av_bench.audit.alignment import Alignment
from av_bench.audit.content import ContentAudit
from av_bench.audit.library import Match


def to_json(result: ContentAudit) -> dict[str, Any]:
    """The audit; clips are named as ``content.clip_names`` says."""
    names = result.test_names
    by_train = {t: {names[m.test] for m in result.matches if m.train.is_relative_to(t)} for t in result.trains}
    outside = {names[m.test] for m in result.matches if result.kept is None or not m.train.is_relative_to(result.test)}
    goes = {} if result.kept is None else {names[p]: names[stays] for p, stays in result.kept.stands_for.items()}
    if result.kept is not None:
        by_train[result.test] = set(goes)
    found = sorted(outside | set(goes))
    trains = [
        {"name": str(t), "clips": result.counts[str(t)], "overlapping_clips": len(clips)}
        for t, clips in by_train.items()
    ]
    data = {
        "version": report.VERSION,
        "kind": "content",
        "rule": "content",
        "test": {"name": str(result.test), "clips": result.counts[str(result.test)]},
        "train": trains,
        "incomplete": bool(result.not_compared),
        "overlapping": found,
        "in_every_train": sorted(set(found).intersection(*by_train.values())),
        "findings": [_finding(m, names[m.test], result.train_names[m.train]) for m in result.matches],
        "malformed": [{"file": str(item.path), "reason": item.reason} for item in result.not_compared],
        "left_out": [{"file": str(item.path), "reason": item.reason} for item in result.left_out if item.harmless],
        "audited": sorted(names.values()),
        "notes": [],
    }
    if result.kept is not None:
        data |= {"keep": result.kept.rule, "belongs_to": dict(sorted(goes.items()))}
    return data


def _finding(match: Match, test: str, train: str) -> dict[str, Any]:
    data: dict[str, Any] = {"clip": test, "kind": match.kind, "test": {"file": str(match.test)}}
    data["train"] = {"file": str(match.train), "clip": train}
    for name, found in (("audio", match.sound), ("video", match.picture)):
        if found:
            data[name] = _stretch(found)
    return data


def _stretch(found: Alignment) -> dict[str, Any]:
    numbers = {"offset": found.offset, "start": found.start, "length": found.length, "confidence": found.confidence}
    data: dict[str, Any] = {key: round(value, 3) for key, value in numbers.items()}
    if words := found.change.words():
        data["change"] = words
        data["speed"], data["pitch"] = round(found.change.speed, 4), round(found.change.pitch, 2)
    return data
