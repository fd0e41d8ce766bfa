"""Files of the package: the cache folder, atomic writes, folder locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av_bench.contracts import MissingRequirement, UsageError, leads_out

try:
    import fcntl
except ImportError:  # Windows: everything but locks works, ``lock`` says so
    fcntl = None  # type: ignore[assignment]

ABANDONED = 3600.0  # seconds after which a half-written file counts as abandoned
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP)
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part(\.\w+)?")


def home() -> Path:
    """The package's own folder for caches: ``$AV_BENCH_HOME`` or the user's cache folder."""
    root = os.environ.get("AV_BENCH_HOME")
    try:
        if root:
            return Path(root).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "av-bench"
    except RuntimeError as error:  # no such user, or a user without a home folder
        raise MissingRequirement(
            f"no folder for caches: {error}; set AV_BENCH_HOME to one that can be written"
        ) from error


def explained(error: OSError) -> str:
    """What the system refused, where, and what to do about it, in one line."""
    where = f"{error.filename}: " if error.filename is not None else ""
    message = f"{where}{error.strerror or error}"
    if error.errno in _FULL:
        return f"{message}; make room there, or choose another disk with --out, --store or AV_BENCH_HOME"
    if error.errno in _UNUSABLE and error.filename is not None and _below_home(os.fsdecode(error.filename)):
        return f"{message}; the cache folder cannot be used: set AV_BENCH_HOME (or --store) to one that can be written"
    if error.errno == errno.EEXIST:
        return f"{message}: there is a file where a folder is needed; remove it or choose another name"
    if error.errno == errno.EMFILE:
        return f"{message}; allow more with `ulimit -n 4096`, or use fewer --workers"
    return message


def _below_home(name: str) -> bool:
    """Whether a path is the cache folder, below it, or one of the folders that it would be made in."""
    root, path = home().absolute(), Path(name).absolute()
    return path.is_relative_to(root) or root.is_relative_to(path)


def inside(folder: Path, name: str, where: str = "") -> Path:
    """``folder / name`` for a name made from outside text. UsageError when it would leave the folder."""
    if leads_out(name):
        message = f"{where}: " if where else ""
        raise UsageError(f"{message}file {name!r} must lie inside {folder}")
    return folder / name


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
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):  # safetensors and FFmpeg put the system's words into their own
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed writers of ``atomic_path`` left directly in a folder.

    Others may be writing there now: give the seconds after which a part counts as abandoned.
    """
    for path in folder.glob(".*.part*"):
        if _PART.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):  # somebody else was quicker, or the folder is read-only
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink(missing_ok=True)


def write_atomically(path: Path, payload: bytes) -> None:
    """Write ``payload`` so that ``path`` is either absent, old or complete, whatever happens."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(payload)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; line ends as they are. Abandoned parts of the folder go."""
    remove_parts(path.parent, older_than=ABANDONED)
    write_atomically(path, text.encode())


def write_json(path: Path, content: object, *, indent: int | None = 1, sort_keys: bool = False) -> None:
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
