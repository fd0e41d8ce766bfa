"""The bytes of a file and the state it was in, so that what is decoded is what was hashed.

A file is hashed once and decoded later. In between another may take its place, or its bytes may change. Both show in
its state: device, inode, size and the times of its last change. A file written within the last two seconds may change
again without showing it (file systems count time in ticks); such a file is hashed a second time after decoding.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from av_bench.contracts import MediaError, Reason

State = tuple[int, int, int, int, int]
"""Device, inode, bytes, time of the last change of the content and of the file's own entry, in ns."""

_FRESH_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT)
_TRIES = 2
if sys.platform == "win32":
    _READ = os.O_RDONLY | os.O_BINARY
else:
    _READ = os.O_RDONLY | os.O_NONBLOCK  # a pipe without a writer would hang otherwise
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held when it was hashed: sha256 (hex), its state then, and whether it was new (see above).

    ``identity`` names the features of these bytes in the store. It is the sha256, but for AVI: version 0.1 read the
    frames of AVI with B-frames in a wrong order, and its features must not be taken for those of the right one.
    """

    digest: str
    state: State
    fresh: bool
    identity: str


def read_content(path: Path) -> Content:
    """Hash a file. MediaError: missing-file, unreadable, changed-while-read (twice in a row)."""
    for _ in range(_TRIES):
        try:
            with os.fdopen(open_regular(path), "rb") as handle:
                before = _state(os.fstat(handle.fileno()))
                head = handle.read(12)
                handle.seek(0)
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
                after = _state(os.fstat(handle.fileno()))
            there = _state(path.stat())
        except OSError as error:
            raise unusable(path, error) from error
        if before == after == there:
            fresh = time.time_ns() - max(after[3:]) < _FRESH_NS
            return Content(digest, after, fresh, _identity(digest, head))
    raise changed(path)


def _identity(digest: str, head: bytes) -> str:
    return avi_identity(digest) if head[:4] == b"RIFF" and head[8:12] == b"AVI " else digest


def avi_identity(digest: str) -> str:
    """What names the features of an AVI file of this sha256."""
    return hashlib.sha256(f"avi-2/{digest}".encode()).hexdigest()


def is_as_read(path: Path, content: Content) -> bool:
    """Whether a file is in the state in which it was hashed."""
    try:
        return _state(path.stat()) == content.state
    except OSError:
        return False


def changed(path: Path) -> MediaError:
    """The error of a file whose bytes changed between hashing and the end of decoding."""
    return MediaError(
        path, Reason.CHANGED_WHILE_READ, "the file changed while it was read; start again when it is done"
    )


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; never waits for a pipe. OSError otherwise."""
    if (kind := _irregular(path.stat().st_mode)) is not None:  # some devices act when they are opened
        raise OSError(errno.EINVAL, f"{kind}, not a regular file")
    descriptor = os.open(path, _READ)
    if (kind := _irregular(os.fstat(descriptor).st_mode)) is not None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{kind}, not a regular file")
    return descriptor


def unusable(path: Path, error: OSError) -> MediaError:
    """What a failed attempt to open a file means, in words."""
    if error.errno == errno.ELOOP:
        return MediaError(path, Reason.MISSING_FILE, "a link that leads to itself")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if path.is_symlink():
            return MediaError(path, Reason.MISSING_FILE, f"a link that leads nowhere: {path.readlink()}")
        return MediaError(path, Reason.MISSING_FILE, "no such file")
    return MediaError(path, Reason.UNREADABLE, error.strerror or str(error))


def _irregular(mode: int) -> str | None:
    """What a path is when it is not a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for test, name in _KINDS if test(mode)), "neither file nor folder")


def _state(info: os.stat_result) -> State:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
