"""Downloading one file, resumable: an HTTP GET that continues where the last one was cut.

The standard library's urllib does it: redirects, proxies and ranges are all that is needed, and a file of 5 GB must
not depend on which hub client happens to be installed. Only ``av_bench.weights.pull`` imports this module, after the
offline check. Whether the bytes are the right ones is decided there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from av_bench.contracts import MissingRequirement
from av_bench.runtime.files import write_json
from av_bench.weights import Progress, recorded_sha256
from av_bench.weights.load import BadWeights, wrong_kind
from av_bench.weights.lock import LockEntry, readable_size

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte
RETRIES = 5  # consecutive failures without a new byte
BACKOFF = 0.5  # seconds, doubled with each failure
LARGEST = 64 << 30  # bytes of a file of unknown size
RESERVE = 256 << 20  # bytes that a download leaves free
_BLOCK = 1 << 20
_RETRY_CODES = (408, 425, 429, 500, 502, 503, 504)


class _InterruptedError(Exception):
    """The connection gave out; another request may continue."""


class _TooMuch(Exception):
    """The server sends more than the file can have."""


def download(entry: LockEntry, part: Path, progress: Progress | None) -> None:
    """Fill ``part``, continuing after cuts; gives up after ``RETRIES`` failures in a row without a new byte."""
    failures = 0
    while True:
        before = _length(part)
        try:
            return _request(entry, part, progress)
        except _InterruptedError as error:
            failures = 0 if _length(part) > before else failures + 1
            if failures > RETRIES:
                raise MissingRequirement(
                    f"weights {entry.name!r}: {entry.url}: {error}; {_length(part):,} bytes are kept, "
                    f"`av-bench weights pull {entry.name}` continues"
                ) from None
            pause = min(30.0, BACKOFF * 2**failures) if failures else 0.0
            log.warning("%s: %s; trying again in %g s", entry.name, error, pause)
            time.sleep(pause)


def _request(entry: LockEntry, part: Path, progress: Progress | None) -> None:
    """One GET that starts or continues ``part``; returns when it is complete."""
    state = _resumable(entry, part)
    start = _length(part) if state else 0
    if state and state["total"] == start:
        return
    headers = {"User-Agent": "av-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if state["validator"]:
            headers["If-Range"] = state["validator"]
    try:
        with urlopen(Request(entry.url, headers=headers), timeout=TIMEOUT) as response:
            start, total = _extent(entry, response, start)
            _receive(entry, part, response, start, total, progress)
    except HTTPError as error:
        if error.code == 416:  # the part does not fit what the server has now
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server refuses to continue") from None
        if error.code in _RETRY_CODES:
            raise _InterruptedError(f"HTTP {error.code} {error.reason}") from None
        raise MissingRequirement(
            f"weights {entry.name!r}: {entry.url}: HTTP {error.code} {error.reason}{_moved(entry)}; get the file "
            f"another way and run `av-bench weights add FILE --name {entry.name}`"
        ) from None
    except (URLError, HTTPException, SSLError, TimeoutError, ConnectionError) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from None


def _moved(entry: LockEntry) -> str:
    return " (this address is unverified in the lock file)" if "url" in entry.unverified else ""


def _extent(entry: LockEntry, response: HTTPResponse, asked: int) -> tuple[int, int | None]:
    """(first byte of this answer, size of the whole file if known). BadWeights when the size is not the lock's."""
    start, total = 0, None
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(asked):
            raise _InterruptedError(f"the server sent bytes {span or 'unknown'} when asked to continue at {asked}")
        start, total = asked, int(whole) if whole.isdigit() else None
    elif response.headers.get("Content-Length", "").isdigit():
        total = int(response.headers["Content-Length"])
    if response.headers.get_content_type() == "text/html":
        raise BadWeights(
            f"weights {entry.name!r}: {response.url} sent an HTML page instead of {entry.path.name}{_moved(entry)}; "
            "nothing was kept"
        )
    if total is None and not response.chunked and not _has_hash(entry):
        raise BadWeights(
            f"weights {entry.name!r}: {response.url} does not tell how long {entry.path.name} is and no hash of it is "
            "known, so a cut could not be noticed; nothing was kept"
        )
    if entry.bytes is not None and total is not None and total != entry.bytes:
        raise BadWeights(
            f"weights {entry.name!r}: {response.url} offers {entry.path.name} with {total:,} bytes, the lock says "
            f"{entry.bytes:,}; nothing was kept"
        )
    return start, total


def _receive(
    entry: LockEntry, part: Path, response: HTTPResponse, start: int, total: int | None, progress: Progress | None
) -> None:
    if start == 0:
        head = response.read(1024)
        reason = wrong_kind(head, text_is_fine=entry.is_text) if head or total == 0 else None
        if reason is not None:
            raise BadWeights(f"weights {entry.name!r}: {response.url} sent {reason}; nothing was kept")
        _room_for(entry, total)
        part.unlink(missing_ok=True)
        validator = _validator(response)
        content = {"url": entry.url, "total": total, "validator": validator}
        write_json(entry.beside(".part.json"), content, indent=None)
    else:
        head = b""
    limit = _limit(entry, part, total)
    try:
        with part.open("ab") as file:
            _copy(response, file, head, total, limit, progress)
    except _TooMuch as error:
        part.unlink(missing_ok=True)
        raise BadWeights(
            f"weights {entry.name!r}: {error}, which is more than the file has or than {part.parent} has room for; "
            "nothing was kept"
        ) from None
    if total is not None and _length(part) != total:
        raise _InterruptedError(f"the connection closed after {_length(part):,} of {total:,} bytes")


def _copy(
    response: HTTPResponse, file: IO[bytes], head: bytes, total: int | None, limit: int, progress: Progress | None
) -> None:
    file.write(head)
    while block := response.read1(_BLOCK):  # what has arrived, so that little is lost when the process dies
        if file.tell() + len(block) > limit:
            raise _TooMuch(f"{response.url} sends more than {readable_size(limit)}")
        file.write(block)
        if progress is not None:
            progress("downloading", file.tell(), total)
    file.flush()
    os.fsync(file.fileno())


def _limit(entry: LockEntry, part: Path, total: int | None) -> int:
    """Bytes that the file may have: what is known of its length, and never all that is left on the disk."""
    known = total or entry.bytes or (2 * entry.about if entry.about else LARGEST)
    return min(known, _length(part) + max(0, shutil.disk_usage(part.parent).free - RESERVE))


def _room_for(entry: LockEntry, total: int | None) -> None:
    need, free = total or entry.bytes or entry.about, shutil.disk_usage(entry.path.parent).free
    if need is not None and need > free:
        raise MissingRequirement(
            f"weights {entry.name!r} need {readable_size(need)}, but {entry.path.parent} has {readable_size(free)} "
            "free; make room or point AV_BENCH_HOME to another disk"
        )


def _validator(response: HTTPResponse) -> str:
    """What proves that a later answer continues the same file: a strong ETag, else the date; empty if neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _resumable(entry: LockEntry, part: Path) -> dict[str, Any]:
    """State of a part that may be continued, else empty: pieces of two versions must never be glued unnoticed."""
    try:
        state = json.loads(entry.beside(".part.json").read_text())
        same = state["url"] == entry.url and _length(part) > 0
        judged = _has_hash(entry) or bool(state["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(state) if same and judged else {}


def _has_hash(entry: LockEntry) -> bool:
    return bool(entry.sha256 or entry.md5 or recorded_sha256(entry))


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
