"""More inputs per clip than a set has: structured captions, chains of thought, paths of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError
from av_bench.rows import json_lines, read_table


def read_extras(path: object, keys: tuple[str, ...], name: str) -> dict[str, dict[str, Any]]:
    """More inputs per clip from a JSONL file: ``{"id": ..., "struct_prompt": ...}``."""
    if path is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    where = f"baseline {name}: extras={path}"
    try:
        text = read_table(Path(str(path)))
    except UsageError as error:
        raise UsageError(f"baseline {name}: extras: {error}") from error
    for line, row in json_lines(text, where):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UsageError(f"{where}, line {line}: not a JSON object with id as text")
        lacking = [key for key in keys if key not in row]
        if lacking:
            raise UsageError(f"{where}, line {line}: the key {lacking[0]} is missing")
        found[row.pop("id")] = row
    return found
