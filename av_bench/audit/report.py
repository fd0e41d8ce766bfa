"""What an audit leaves behind: a JSON file that runs and trainings read, and a CSV of findings.

The JSON file, version 1 (docs/audit.md has an example)::

    version      1
    kind         "lists" or "content"
    rule         "id", "overlap", "segment"; for content "content"
    test         {"name", "clips", "ids"}
    train        [{"name", "clips", "ids", "overlapping_clips", "overlapping_ids"}, ...]
    overlapping  names of the test clips found in at least one training set, sorted: what a run leaves out
    in_every_train  names of the test clips found in all of them
    files        {file: sha256 of the unpacked content}
    findings     one object per pair of rows, with file, line, start and end (s) of both
    malformed    [{"file", "line", "text", "reason"}, ...] rows, or media files, that were not compared
    incomplete   true when there are such: the audit cannot call the rest clean
    audited      names of all test clips that were compared
    notes        remarks a reader needs

A content audit also has "left_out" (files that are not recordings) and, of a set against itself, "keep" and
"belongs_to" (which copy each name of "overlapping" is one of).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av_bench.audit.cliplist import Malformed
from av_bench.audit.overlaps import Finding, ListAudit, OverlapRow
from av_bench.audit.tables import TableA4
from av_bench.contracts import UsageError
from av_bench.rows import LARGEST_TABLE
from av_bench.runtime.files import write_text
from av_bench.schema import load_json

VERSION = 1
_COLUMNS = (
    "clip",
    "id",
    "train_list",
    "test_file",
    "test_line",
    "test_start_s",
    "train_file",
    "train_line",
    "train_start_s",
)


def to_json(result: ListAudit) -> dict[str, Any]:
    """The audit as the documented JSON object."""
    union, both = result.union, result.intersection
    trains = [
        {
            "name": t.name,
            "clips": t.n_clips,
            "ids": t.n_ids,
            "overlapping_clips": len(t.clips),
            "overlapping_ids": len(t.ids),
        }
        for t in result.trains
    ]
    return {
        "version": VERSION,
        "kind": "lists",
        "rule": result.rule,
        "test": {"name": result.test, "clips": result.n_clips, "ids": result.n_ids},
        "train": trains,
        "overlapping": sorted(union[0]),
        "in_every_train": sorted(both[0]),
        "incomplete": bool(result.malformed),
        "audited": sorted(result.clips),
        "files": result.files,
        "findings": [_finding(f) for f in result.findings],
        "malformed": [malformed(m) for m in result.malformed],
        "notes": list(result.notes),
    }


def malformed(row: Malformed) -> dict[str, Any]:
    """A row that was not audited."""
    return {"file": row.file, "line": row.line, "text": row.text, "reason": row.reason}


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "clip": found.clip,
        "id": found.id,
        "train_list": found.train_list,
        "test": _row(found.test),
        "train": _row(found.train),
    }


def _row(row: OverlapRow) -> dict[str, Any]:
    times = {} if row.start is None or row.end is None else {"start": row.start / 1000, "end": row.end / 1000}
    return {"file": row.file, "line": row.line, **times}


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write the JSON object whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_csv(findings: Sequence[Finding], path: Path) -> None:
    """One line per finding; times in s, empty where a list has none."""
    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(_COLUMNS)
    for f in findings:
        test, train = (f.test.file, f.test.line, seconds(f.test)), (f.train.file, f.train.line, seconds(f.train))
        out.writerow([f.clip, f.id, f.train_list, *test, *train])
    write_text(path, text.getvalue())


def seconds(row: OverlapRow) -> str:
    """Start of a row in s, empty where the list has none."""
    return "" if row.start is None else f"{row.start / 1000:g}"


@dataclass(frozen=True)
class Audit:
    """What a run or a training takes from an audit file.

    ``overlapping``: names of test clips; ``training``: names of the training recordings they were found in;
    ``audited``: names of all test clips that were compared, None where the file does not say; ``not_compared``: rows
    or media files that were not.
    """

    path: Path
    overlapping: frozenset[str]
    training: frozenset[str]
    audited: frozenset[str] | None
    not_compared: int

    def warning(self) -> str:
        """What an incomplete audit leaves open; empty for a complete one."""
        if not self.not_compared:
            return ""
        return (
            f"{self.path}: the audit is incomplete: {self.not_compared} files or rows were not compared (its field "
            "'malformed' names them), so what it does not name is not known to be clean"
        )

    def check_names(self, names: Collection[str]) -> None:
        """UsageError when the audit is of other clips than those called ``names``."""
        known = self.overlapping if self.audited is None else self.audited
        if known.isdisjoint(names):
            like = f"its names are like {min(known)!r}" if known else "it names none"
            raise UsageError(
                f"{self.path}: the audit names no clip of this set ({like}, the set's like {min(names, default='')!r})"
                f"{self._also()}; audit the folder or list that this set is read from"
            )

    def check_training(self) -> None:
        """UsageError when no training recording is named."""
        if not self.training:
            raise UsageError(
                f"{self.path}: the audit found nothing in the training data, so nothing would be left out{self._also()}"
                "; train without --exclude"
            )

    def _also(self) -> str:
        return f", and {self.not_compared} files or rows were not compared" if self.not_compared else ""


def load_audit(path: Path | str) -> Audit:
    """Read an audit file. UsageError when it is missing, is not an audit, or has another version."""
    data = _load(path)
    names, audited = data.get("overlapping"), data.get("audited")
    for key, value in (("overlapping", names), ("audited", audited or [])):
        if not isinstance(value, list) or not all(isinstance(n, str) for n in value):
            raise UsageError(f"{path}: the field {key!r} is not a list of clip names; write the file again")
    not_compared = len(data.get("malformed", []))
    compared = None if audited is None else frozenset(audited)
    return Audit(Path(path), frozenset(names or ()), _training_side(path, data), compared, not_compared)


def load_overlaps(path: Path | str) -> set[str]:
    """Names of the test clips an audit file marks as overlapping (``<id>_<start, six digits>`` or the bare id).

    Raises UsageError when the file is missing, is not an audit, or has another version.
    """
    return set(load_audit(path).overlapping)


def load_training_side(path: Path | str) -> set[str]:
    """Names of the training recordings an audit file found in the test set: what a training leaves out.

    By rule ``id`` the bare ids, so that every window of a recording goes; else ``<id>_<start, six digits>`` of the
    training rows that were found (the bare id where a list has no times). A content audit names files by their stem,
    or by their path where a stem is another file's too (``content.clip_names``); of a set against itself it names the
    copies that go.
    """
    return set(load_audit(path).training)


def _training_side(path: Path | str, data: Mapping[str, Any]) -> frozenset[str]:
    if "belongs_to" in data:
        return frozenset(data["overlapping"])
    names = set()
    try:
        for finding in data.get("findings", ()):
            row = finding["train"]
            if data["kind"] == "content":
                names.add(row["clip"])
            elif data["rule"] == "id" or "start" not in row:
                names.add(finding["id"])
            else:
                names.add(f"{finding['id']}_{int(row['start']):06d}")
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: a finding has no {error}; write the file again with `av-bench audit`") from error
    return frozenset(names)


def _load(path: Path | str) -> dict[str, Any]:
    try:
        data = load_json(Path(path), LARGEST_TABLE)
    except UsageError as error:
        raise UsageError(
            f"{path}: not a readable audit file ({error}); write one with `av-bench audit lists --json FILE`"
        ) from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise UsageError(f"{path}: not an audit file of version {VERSION}; write it again with `av-bench audit`")
    return data


def a4_json(result: TableA4) -> dict[str, Any]:
    """Table A4 as JSON; a cell that could not be computed has ``why`` and no ``ours``."""
    cells = []
    for c in result.cells:
        data: dict[str, Any] = {"test": c.test, "train": c.train, "without": list(c.without)}
        data |= {} if c.paper is None else {"paper": {"count": c.paper, "clips": c.paper_n}}
        if c.n_clips is None:
            data["why"] = c.why
        else:
            data["clips"], data["ids"] = c.n_clips, c.n_ids
            data["ours"] = {rule: {"clips": n[0], "ids": n[1]} for rule, n in c.ours.items()}
        cells.append(data | ({"note": c.note} if c.note else {}))
    note = result.speech_or_music
    footnote = (
        {}
        if note is None
        else {
            "speech_or_music": {
                "list": note.list,
                "labels": list(note.labels),
                "carrying": note.carrying,
                "rows": note.rows,
                "percent": round(note.percent, 4),
                "paper_percent": note.paper_percent,
            }
        }
    )
    bad = [malformed(m) for m in result.malformed]
    missing = list(result.missing)
    return {"version": VERSION, "kind": "table-a4", "cells": cells, **footnote, "missing": missing, "malformed": bad}
