"""More inputs per clip than a set has: structured captions, chains of thought, paths of features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError


def read_extras(path: Any, keys: tuple[str, ...], name: str) -> dict[str, dict[str, Any]]:
    """More inputs per clip from a JSONL file: ``{"id": ..., "struct_prompt": ...}``."""
    if path is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = Path(str(path)).read_text(encoding="utf8").split("\n")
    except OSError as error:
        raise UsageError(f"baseline {name}: extras={path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found[str(row.pop("id"))] = row
            lacking = [key for key in keys if key not in row]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"baseline {name}: {path}, line {number}: not a JSON object with id: {error}") from error
        if lacking:
            raise UsageError(f"baseline {name}: {path}, line {number}: the key {lacking[0]} is missing")
    return found
