"""JSON files that only save time: what was found out before, and can be found out again.

The first line is the sha256 of the rest. A file that is absent or damaged says nothing, and one that cannot be written
is not written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from av_bench.runtime.files import write_atomically


def read_note(path: Path) -> dict[str, Any]:
    """What ``write_note`` wrote, {} when that is not there as a whole."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return {}
    content: dict[str, Any] = json.loads(body)
    return content


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Replace a note. Of two writers the last one wins."""
    body = json.dumps(content).encode()
    with contextlib.suppress(OSError):  # a full disk, or a folder that is not ours to write
        write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
