"""The definitions behind a run: what its protocol and set were when it ran, and where two of them disagree.

A name and a version do not tell whether a YAML file was edited since. So the content that decides numbers is recorded
with every run (``spec.json``, ``scores.json``). Runs of version 0.1 have none; their names and versions are believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LONGEST = 80  # characters of both values, beyond which a message names the field alone


def digest(content: Mapping[str, object]) -> str:
    """sha256 of a recorded definition, 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def conflicts(new: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> list[str]:
    """Fields in which two recorded definitions disagree, with both values; metrics that one lacks do not count.

    Empty when either is not recorded.
    """
    if not new or not base:
        return []
    found = []
    for part in ("protocol", "set"):
        ours, theirs = dict(new[part]), dict(base[part])
        metrics = ours.pop("metrics", {}), theirs.pop("metrics", {})
        found += [f"{part}: {text}" for text in _changed(ours, theirs)]
        for name in sorted(set(metrics[0]) & set(metrics[1])):
            found += [f"{part}: {text}" for text in _changed(metrics[0][name], metrics[1][name], f"metrics.{name}.")]
    return found


def _changed(new: Mapping[str, object], base: Mapping[str, object], prefix: str = "") -> list[str]:
    changed = []
    for key in sorted(set(new) | set(base)):
        ours, theirs = new.get(key), base.get(key)
        if ours == theirs:
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            changed += _changed(ours, theirs, f"{prefix}{key}.")
            continue
        values = f" ({_word(ours)} against {_word(theirs)})"
        changed.append(f"{prefix}{key}" + (values if len(values) <= LONGEST else ""))
    return changed


def _word(value: object) -> str:
    return "absent" if value is None else str(value)
