"""The lock file of pretrained files: name, url, size, hashes, licence and users of each.

Files live in ``$AV_BENCH_HOME/weights`` (default ``~/.cache/av-bench/weights``).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from av_bench.contracts import UsageError
from av_bench.runtime.files import home


@dataclass(frozen=True)
class Entry:
    """One file of the lock. ``file`` is its place below the weights folder; see the lock file for the other fields."""

    name: str
    file: str
    url: str
    licence: str
    needed_by: tuple[str, ...]
    non_commercial: bool = False
    bytes: int | None = None
    about: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unverified: tuple[str, ...] = ()
    note: str = ""

    @property
    def path(self) -> Path:
        """Where the file belongs."""
        return folder() / self.file

    def beside(self, suffix: str) -> Path:
        """A companion of the file: ``.part`` while it arrives, ``.rejected`` when it proved wrong."""
        return self.path.with_name(self.path.name + suffix)

    @property
    def is_text(self) -> bool:
        """True for tokenizer and configuration files."""
        return self.file.endswith((".json", ".txt"))


def folder() -> Path:
    """The weights folder."""
    return home() / "weights"


def offline() -> bool:
    """True when the environment forbids the network (``AV_BENCH_OFFLINE`` set to anything but empty or 0)."""
    return os.environ.get("AV_BENCH_OFFLINE", "") not in ("", "0")


def load_lock() -> dict[str, Entry]:
    """Entries by name, from ``$AV_BENCH_WEIGHTS_LOCK`` (a mirror, private weights) or the package's own lock file.

    Raises UsageError, naming file and entry, for anything but well-formed entries.
    """
    import yaml

    path = Path(os.environ.get("AV_BENCH_WEIGHTS_LOCK") or Path(__file__).with_name("lock.yaml"))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as a lock file: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise UsageError(f"{path}: expected a mapping `files:` of name to entry")
    lock = {str(name): _entry(str(name), raw, path) for name, raw in content["files"].items()}
    places = [entry.file for entry in lock.values()]
    if len(set(places)) != len(places):
        raise UsageError(f"{path}: two entries have the same file; every file needs its own place")
    return lock


def _entry(name: str, raw: Any, lock: Path) -> Entry:
    known = {field.name for field in fields(Entry)} - {"name"}
    where = f"{lock}: entry {name!r}"
    if not isinstance(raw, Mapping) or set(raw) - known:
        odd = sorted(map(str, set(raw) - known)) if isinstance(raw, Mapping) else raw
        raise UsageError(f"{where}: unknown fields {odd}; known are {sorted(known)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    try:
        entry = Entry(name=name, **values)
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from None
    place = PurePosixPath(str(entry.file))
    wrong = {
        "name": re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is None,
        "file": place.is_absolute() or ".." in place.parts or place.parts[:1] == (".records",),
        "url": re.fullmatch(r"https?://\S+", str(entry.url)) is None,
        "sha256": entry.sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", str(entry.sha256)) is None,
        "md5": entry.md5 is not None and re.fullmatch(r"[0-9a-f]{32}", str(entry.md5)) is None,
        "bytes": entry.bytes is not None and not (isinstance(entry.bytes, int) and entry.bytes > 0),
        "about": entry.about is not None and not (isinstance(entry.about, int) and entry.about > 0),
        "needed_by": not isinstance(entry.needed_by, tuple) or not entry.needed_by,
        "unverified": not set(entry.unverified) <= known,
        "non_commercial": not isinstance(entry.non_commercial, bool),
    }
    if any(wrong.values()):
        raise UsageError(f"{where}: bad value of {', '.join(k for k, v in wrong.items() if v)}")
    return entry


def select(names: Iterable[str]) -> list[Entry]:
    """Entries that ``names`` ask for, in lock order: by own name, or all that an extractor, model or column needs.

    Case, ``_`` and ``-`` do not matter. Raises UsageError with the nearest names on a miss.
    """
    lock = load_lock()
    wanted: set[str] = set()
    for name in names:
        hits = [e.name for e in lock.values() if _plain(name) in {_plain(n) for n in (e.name, *e.needed_by)}]
        if not hits:
            known = sorted({*lock, *(user for entry in lock.values() for user in entry.needed_by)})
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise UsageError(f"no weights are named {name!r}{hint}; `av-bench weights list` shows all")
        wanted.update(hits)
    return [entry for entry in lock.values() if entry.name in wanted]


def get(name: str) -> Entry:
    """The one entry of that name. Raises UsageError on a miss."""
    for entry in select([name]):
        if _plain(entry.name) == _plain(name):
            return entry
    raise UsageError(f"{name!r} needs several weight files and is not one; `av-bench weights list` shows their names")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def readable_size(size: int | None) -> str:
    """A size in bytes as people read it, in powers of ten."""
    if size is None:
        return "size unknown"
    unit = "GB" if size >= 1e9 else "MB" if size >= 1e6 else "kB"
    return f"{size / {'GB': 1e9, 'MB': 1e6, 'kB': 1e3}[unit]:.1f} {unit}"
