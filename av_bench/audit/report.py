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
    malformed    [{"file", "line", "text", "reason"}, ...]
    notes        remarks a reader needs
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from av_bench.audit.cliplist import Malformed
from av_bench.audit.overlaps import Finding, ListAudit, OverlapRow
from av_bench.audit.tables import TableA4
from av_bench.contracts import UsageError
from av_bench.runtime.files import write_text

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


def load_overlaps(path: Path | str) -> set[str]:
    """Names of the test clips an audit file marks as overlapping (``<id>_<start, six digits>`` or the bare id).

    Raises UsageError when the file is missing, is no audit, or has another version.
    """
    names = _load(path).get("overlapping")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"{path}: the field 'overlapping' is not a list of clip names; write the file again")
    return set(names)


def load_training_side(path: Path | str) -> set[str]:
    """Names of the training recordings an audit file found in the test set: what a training leaves out.

    By rule ``id`` the bare ids, so that every window of a recording goes; else ``<id>_<start, six digits>`` of the
    training rows that were found (the bare id where a list has no times). A content audit names files by their stem,
    or by their path where a stem is another file's too (``content.clip_names``).
    """
    data = _load(path)
    names = set()
    try:
        for finding in data["findings"]:
            row = finding["train"]
            if data["kind"] == "content":
                names.add(row["clip"])
            elif data["rule"] == "id" or "start" not in row:
                names.add(finding["id"])
            else:
                names.add(f"{finding['id']}_{int(row['start']):06d}")
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: a finding has no {error}; write the file again with `av-bench audit`") from error
    return names


def _load(path: Path | str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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
