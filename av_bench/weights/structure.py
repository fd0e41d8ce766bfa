"""What a file without a published hash must look like: its size, and the structure of its format.

The first such file is recorded and later ones must match it, so a wrong first file would shut the right one out.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from av_bench.weights.load import HEADER_LIMIT, is_safetensors
from av_bench.weights.lock import LockEntry, readable_size

TOLERANCE = 0.05  # of the size: it is known to three or four digits
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch files before 1.6 begin with, pickled


def implausible(entry: LockEntry, path: Path) -> str | None:
    """Why ``path`` cannot be the file of ``entry``, judged by its size and format; None when it can."""
    size = path.stat().st_size
    if entry.about is not None and abs(size - entry.about) > TOLERANCE * entry.about:
        return f"it has {size:,} bytes ({readable_size(size)}), the real one has about {readable_size(entry.about)}"
    if entry.file.endswith(".json"):
        return _no_json(path)
    if entry.file.endswith(".txt"):
        return _no_merges(path)
    with path.open("rb") as file:
        head = file.read(1024)
    if is_safetensors(head):
        return _no_safetensors(path, head)
    if entry.file.endswith(".safetensors"):
        return "it is not a safetensors file"
    return None if head.startswith(_LEGACY) or _is_torch_zip(path) else "it is neither a torch nor a safetensors file"


def _no_json(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"it is not a JSON file ({error})"
    return None if isinstance(content, dict) and content else "it is not a JSON object with something in it"


def _no_merges(path: Path) -> str | None:
    """Byte pair merges: an optional line ``#version``, then two tokens a line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        return f"it is not UTF-8 text ({error})"
    rows = [line for line in lines[lines[0].startswith("#version") :] if line]
    odd = next((row for row in rows if len(row.split(" ")) != 2), None)
    if odd is not None:
        return f"it is not a list of merges: {odd[:40]!r} is not two tokens"
    return None if rows else "it is a list of no merges"


def _no_safetensors(path: Path, head: bytes) -> str | None:
    """The header must parse, and its tensors must fill the file."""
    length, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    if length > min(size - 8, HEADER_LIMIT):
        return f"its safetensors header claims {length:,} bytes"
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(length)
    try:
        ends = [value["data_offsets"][1] for key, value in json.loads(raw).items() if key != "__metadata__"]
        filled = max(ends) + 8 + length
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return "its safetensors header cannot be read"
    return None if filled == size else f"its safetensors header speaks of {filled:,} bytes, the file has {size:,}"


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
