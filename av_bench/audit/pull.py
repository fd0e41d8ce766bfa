"""Fetch the list files of the lock file and check them: hash first, store second."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from av_bench.contracts import MissingRequirement
from av_bench.rows import LARGEST_TABLE
from av_bench.runtime.files import write_atomically
from av_bench.runtime.offline import VARIABLE as OFFLINE_VARIABLE
from av_bench.runtime.offline import offline
from protocols.lists.sources import ListFile, changed, list_file, locate, sha256_of, sources, urls

_TIMEOUT_S = 60


def wanted(names: Sequence[str]) -> list[ListFile]:
    """Files behind list names and file names, each once; all of them when no name is given."""
    files: dict[str, ListFile] = {}
    known = sources()
    for name in names or list(known.files):
        name = known.aliases.get(name, name)
        entry = known.lists.get(name)
        for item in (*entry.files, *entry.minus) if entry else (name,):
            files[item] = list_file(item)
    return list(files.values())


def verify(where: Path, names: Sequence[str] = ()) -> Iterator[tuple[ListFile, str]]:
    """Each file with ``ok``, ``absent`` or ``changed``."""
    for item in wanted(names):
        path = locate(where, item)
        if path is None:
            yield item, "absent"
        else:
            yield item, "ok" if sha256_of(path) == item.sha256 else "changed"


def pull(folder: Path, item: ListFile) -> Path:
    """Fetch one file, check its hash, and store it as gzip; a file that is there and right is left alone.

    Raises MissingRequirement when the address does not answer or the content is not the locked one.
    """
    path = folder / item.local
    if path.is_file() and sha256_of(path) == item.sha256:
        return path
    content = b"".join(_without_header(_fetch(url), item.drop_lines) for url in urls(item))
    digest = hashlib.sha256(content).hexdigest()
    if digest != item.sha256:
        raise MissingRequirement(f"{urls(item)[0]}: {changed(path, item, digest)}. Nothing was stored")
    write_atomically(path, gzip.compress(content, mtime=0))
    return path


def _without_header(content: bytes, lines: int) -> bytes:
    return b"".join(content.splitlines(keepends=True)[lines:]) if lines else content


def _fetch(url: str) -> bytes:
    if offline():
        raise MissingRequirement(
            f"{url}: not fetched, {OFFLINE_VARIABLE} forbids the network; unset it, or put the file in the lists folder"
        )
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read(LARGEST_TABLE + 1)
    except (OSError, http.client.HTTPException) as error:
        raise MissingRequirement(
            f"{url}: cannot be fetched ({error}); put the file in the lists folder by hand"
        ) from error
    if len(body) > LARGEST_TABLE:
        raise MissingRequirement(
            f"{url}: sends more than {LARGEST_TABLE:,} bytes, too much for a list; nothing was kept"
        )
    return body
