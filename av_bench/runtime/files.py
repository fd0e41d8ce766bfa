"""Files of the package: the cache folder, atomic writes, folder locks."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from av_bench.contracts import MissingRequirement

try:
    import fcntl
except ImportError:  # Windows: everything but locks works, ``lock`` says so
    fcntl = None  # type: ignore[assignment]


def home() -> Path:
    """The package's own folder for caches: ``$AV_BENCH_HOME`` or the user's cache folder."""
    root = os.environ.get("AV_BENCH_HOME")
    if root:
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "av-bench"


@contextmanager
def atomic_path(path: Path, *, keep_suffix: bool = False) -> Iterator[Path]:
    """A hidden file beside ``path`` to write into: flushed to disk and renamed to ``path`` at the end of the block.

    So ``path`` is either absent, old or complete, whatever happens; after an exception nothing is left. Its
    permissions are those of any new file here. ``keep_suffix`` is for writers that choose a format by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = f".part{path.suffix}" if keep_suffix else ".part"
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{ending}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files for their owner alone
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, payload: bytes) -> None:
    """Write ``payload`` so that ``path`` is either absent, old or complete, whatever happens."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(payload)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; line ends as they are."""
    write_atomically(path, text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 1, sort_keys: bool = False) -> None:
    """Write ``content`` as JSON with a newline at its end, atomically. ValueError for NaN and infinity."""
    write_text(path, json.dumps(content, indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n")


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Try to hold ``path`` for this process; yields whether it worked. A killed process holds nothing.

    MissingRequirement on systems without ``flock``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        yield lock_handle(handle.fileno())


def lock_handle(handle: int) -> bool:
    """Lock an open file at once and until it is closed; False when another process holds it."""
    if fcntl is None:
        raise MissingRequirement("av-bench locks its folders with flock: it runs on Linux and macOS (or WSL)")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def file_digest(path: Path | str) -> str:
    """sha256 of the file's bytes, as hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
