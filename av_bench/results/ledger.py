"""The ledger of a run: one JSON line per event, append-only, never ended by a character, a torn line or a full disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from av_bench.contracts import Reason, UsageError, printable, shortened
from av_bench.rows import LARGEST_TABLE
from av_bench.schema import parse_json, read_text

LONGEST_DETAIL = 2000  # characters of a reason: children may print megabytes


class Ledger:
    """Appends to ``ledger.jsonl``. A line that a kill tore is ended first, so that the next one stays whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def write(self, *lines: Mapping[str, object]) -> None:
        """Append lines at once. OSError names the file."""
        text = "".join([f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines])
        payload = text.encode("utf8", "backslashreplace")
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
                if torn(self.path):
                    payload = b"\n" + payload
            if self._file.write(payload) != len(payload):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file; the next ``write`` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def entry(clip: str, stage: str, reason: Reason | None, detail: str, more: dict[str, object]) -> dict[str, object]:
    """A line as it is written: the reason's text printable and not longer than a reader can use."""
    status = "ok" if reason is None else ("excluded" if reason.excludes else "flagged")
    line: dict[str, object] = {"clip": clip, "stage": stage, "status": status}
    if reason is not None:
        line |= {"reason": reason.value, "detail": shortened(printable(detail), LONGEST_DETAIL)}
    return line | more


def read_ledger(path: Path, stage: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, entry) of every whole entry. Lines that a kill tore are left out: what they were about was done again.

    With ``stage`` only the entries of that stage; the lines of others are not even parsed, and a run that was started
    many times has many of them.

    UsageError when the file is not a ledger at all: not text, or without a single entry in its lines.
    """
    if not path.is_file():
        return
    text = read_text(path, LARGEST_TABLE)
    found, wanted = False, f'"{stage}"' if stage else ""
    for number, written in enumerate(text.split("\n"), 1):
        line = _entry(written) if not found or wanted in written else None
        if line is not None:
            found = True
            if stage in ("", line["stage"]):
                yield number, line
    if not found and text.count("\n") > 1:
        raise UsageError(f"{path}: no line of it is a ledger's; remove it, or choose another --out")


def torn(path: Path) -> bool:
    """Whether a file ends in the middle of a line."""
    with path.open("rb") as handle:
        if handle.seek(0, os.SEEK_END) == 0:
            return False
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) != b"\n"


def _entry(written: str) -> dict[str, Any] | None:
    if not written.strip():
        return None
    try:
        line = parse_json(written, "ledger")
    except UsageError:
        return None
    if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in ("clip", "stage", "status")):
        return None
    return line
