"""Pretrained files: what the lock file says of them, where they lie, and whether they are what they should be.

The lock file ``lock.yaml`` names url, size, hashes, licence and users of every file. Files live in
``$AV_BENCH_HOME/weights`` (default ``~/.cache/av-bench/weights``) and get their final name only after size and hash
were checked. Where no sha256 is published, the one of the first file that arrives is recorded beside the weights and
later arrivals must match. Nothing here touches the network; ``av_bench.weights.pull`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from av_bench.contracts import MissingRequirement
from av_bench.runtime.files import home, write_json
from av_bench.weights.load import BadWeights, hash_of_mapping, load_checkpoint, load_state_dict, wrong_kind
from av_bench.weights.lock import LockEntry, folder, get, load_lock, readable_size
from av_bench.weights.structure import implausible

__all__ = [
    "BadWeights",
    "Entry",
    "file_sha256",
    "find",
    "hash_of_mapping",
    "load_checkpoint",
    "load_lock",
    "load_state_dict",
    "require",
]

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, bytes done, bytes in all where known)."""

_BLOCK = 1 << 20
_SETTLED_NS = 2_000_000_000  # a file younger than this could still change without its mtime showing it


def find(name: str) -> Path | None:
    """Where the file lies, None when it is not there. Its content is not looked at; ``require`` does that."""
    path = get(name).path
    return path if path.is_file() else None


def require(name: str) -> Path:
    """The file, checked against the lock (a hash computed once per file and remembered).

    Raises MissingRequirement with the command that gets it when absent, BadWeights when it is not the right file.
    """
    entry = get(name)
    if not entry.path.is_file():
        about = f"{readable_size(entry.bytes or entry.about)}, licence {entry.licence}"
        raise MissingRequirement(
            f"weights {entry.name!r} are missing: {entry.path} ({about}). Get them with\n"
            f"    av-bench weights pull {entry.name}\n"
            "or, without network, bring the file along and run\n"
            f"    av-bench weights add FILE --name {entry.name}"
        )
    check(entry, entry.path)
    return entry.path


def check(entry: LockEntry, path: Path, *, fresh: bool = False, progress: Progress | None = None) -> str:
    """sha256 of ``path`` after it proved to be the file of ``entry``; recorded if the lock holds no sha256.

    ``fresh`` reads every byte; otherwise a remembered sha256 of an unchanged file is taken. Raises BadWeights with
    both hashes when the file is another one, and, where no hash is published, when size or format cannot be right.
    """
    stat = check_at_sight(entry, path)
    known = recorded_sha256(entry) if entry.sha256 is None else entry.sha256
    expected = {"sha256": known, "md5": entry.md5}
    if known is not None and not fresh:
        found = {"sha256": file_sha256(path)}
    else:
        found = digests(path, ("sha256", "md5"), progress)
        remember(path, found["sha256"], stat)
    for kind, value in found.items():
        if expected[kind] not in (None, value):
            raise BadWeights(_mismatch(entry, path, kind, str(expected[kind]), value))
    if known is None:
        _record(entry, found["sha256"], path)
    return found["sha256"]


def check_at_sight(entry: LockEntry, path: Path) -> os.stat_result:
    """What shows without hashing: kind of file, size and, where no hash is published, format. BadWeights."""
    stat = path.stat()
    with path.open("rb") as file:
        reason = wrong_kind(file.read(1024), text_is_fine=entry.is_text)
    if reason is not None:
        raise BadWeights(f"{path}: refused as {entry.name!r}: this is {reason}")
    if entry.bytes is not None and stat.st_size != entry.bytes:
        doubt = _doubt(entry, "bytes")
        raise BadWeights(f"{path}: {stat.st_size:,} bytes, but {entry.name!r} has {entry.bytes:,}{doubt}")
    if entry.sha256 is None and entry.md5 is None and (reason := implausible(entry, path)) is not None:
        raise BadWeights(f"{path}: refused as {entry.name!r}: {reason}{_forget(entry)}")
    return stat


def _mismatch(entry: LockEntry, path: Path, kind: str, expected: str, found: str) -> str:
    text = f"{path}: not the file of {entry.name!r}:\n    {kind} expected {expected}\n    {kind} found    {found}"
    if kind == "sha256" and entry.sha256 is None:
        return (
            f"{text}\nThe expected value was recorded when the file first arrived here. If that was a wrong file, or "
            f"its publisher has replaced it and you want the new one, delete {_record_path(entry)} and try again"
        )
    return text + _doubt(entry, kind)


def _doubt(entry: LockEntry, field: str) -> str:
    if field not in entry.unverified:
        return ""
    return f" (the lock's {field} is quoted from third parties; compare with the publisher's page of {entry.url})"


def _forget(entry: LockEntry) -> str:
    """What to do when a wrong file had been recorded as the first arrival."""
    record = _record_path(entry)
    if not record.exists():
        return ""
    return f". A file was recorded as {entry.name!r} before: if it was this one, delete {record}"


def _record_path(entry: LockEntry) -> Path:
    return folder() / ".records" / f"{entry.name}.json"


def recorded_sha256(entry: LockEntry) -> str | None:
    """The sha256 of the first file that arrived for an entry, None when none has. BadWeights if unreadable."""
    path = _record_path(entry)
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())["sha256"]
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return str(value)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BadWeights(f"{path}: unreadable record of {entry.name!r}'s sha256; delete it to record the file again")


def _record(entry: LockEntry, sha256: str, path: Path) -> None:
    try:
        content = {"sha256": sha256, "bytes": path.stat().st_size, "url": entry.url}
        write_json(_record_path(entry), content, indent=None)
    except OSError as error:
        if entry.md5 is None:  # with a published md5 the file is proven anyway
            raise MissingRequirement(
                f"{path}: no hash of {entry.name!r} is published and its sha256 cannot be recorded in "
                f"{_record_path(entry)} ({error}); make that folder writable once"
            ) from None


# --------------------------------------------------------------------------- hashes


def digests(path: Path, kinds: Iterable[str], progress: Progress | None = None) -> dict[str, str]:
    """Hex digests of a file by kind (``sha256``, ``md5``), all from one reading."""
    hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            done += len(block)
            for one in hashes.values():
                one.update(block)
            if progress is not None:
                progress("checking", done, total)
    return {kind: one.hexdigest() for kind, one in hashes.items()}


def file_sha256(path: str | Path) -> str:
    """sha256 of a file, remembered in the home folder by path and state (size, mtime in ns, inode).

    A change of the bytes in place that keeps size and mtime goes unseen here; ``av-bench weights verify`` reads every
    byte.
    """
    path = Path(path).resolve()
    known = remembered(path)
    if known is not None:
        return known
    stat = path.stat()
    value = digests(path, ["sha256"])["sha256"]
    if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
        remember(path, value, stat)
    return value


def remembered(path: Path) -> str | None:
    """sha256 of a file that was hashed before and is in the state it had then, else None. Reads no byte of it."""
    path = path.resolve()
    *state, sha256 = _memory().get(str(path), [None])
    return str(sha256) if state == _state(path.stat()) else None


def _state(stat: os.stat_result) -> list[int]:
    """What changes with a file, as far as that shows without reading it."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _memory() -> dict[str, list[Any]]:
    try:
        content = json.loads((home() / "hashes.json").read_text())
    except (OSError, ValueError):
        return {}  # absent or damaged: the hashes are computed again
    entries = content.items() if isinstance(content, dict) else ()
    return {k: v for k, v in entries if isinstance(v, list) and len(v) == 4}


def remember(path: Path, sha256: str, stat: os.stat_result | None = None) -> None:
    """Note the sha256 of a file that was just hashed (``stat`` taken before), so that ``file_sha256`` is instant."""
    path = path.resolve()
    stat = stat or path.stat()
    memory = {known: value for known, value in _memory().items() if Path(known).exists()}
    memory[str(path)] = [*_state(stat), sha256]
    try:
        write_json(home() / "hashes.json", memory, indent=None)
    except OSError:
        return  # a read-only home costs time, not correctness
