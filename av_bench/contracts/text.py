"""Text from outside: what of it may reach a terminal, a table or a file, and which of it may name a file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

from av_bench.contracts.errors import UsageError

LONGEST_ID = 200  # bytes; with a suffix still a file name everywhere
_BREAKS = "\t\n\v\f\r\x85\u2028\u2029"
_RUN_OF_BREAKS = re.compile(f" *[{_BREAKS}][{_BREAKS} ]*")
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """One line that can be written and shown anywhere: terminal, Markdown, LaTeX, CSV, XML.

    Line breaks and tabs become a space. Control characters, marks that turn the direction of writing, half surrogates
    and bytes of a file name that are not UTF-8 are spelled out (``\\x1b``, ``\\udc80`` as the byte ``\\x80``).
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(_spelled, _RUN_OF_BREAKS.sub(" ", text.strip(_BREAKS)))


def shortened(text: str, longest: int) -> str:
    """``text`` if it has at most ``longest`` characters, else its beginning and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text) - longest:,} more characters)"


def check_id(clip_id: str, where: str) -> None:
    """Refuse ids that cannot be file names inside a folder. A leading ``-`` is fine."""
    bad = not clip_id or clip_id in (".", "..") or "/" in clip_id or "\\" in clip_id or printable(clip_id) != clip_id
    if bad or len(clip_id.encode()) > LONGEST_ID:
        raise UsageError(
            f"{where}: id {shortened(clip_id, LONGEST_ID)!r} cannot be a file name (empty, a path, with control "
            f"characters, or longer than {LONGEST_ID} bytes)"
        )


def leads_out(name: str) -> bool:
    """Whether a path from outside is not a plain path below a folder: empty, absolute, with "..", a drive or NUL."""
    parts = PurePosixPath(name).parts
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive)
    return not parts or absolute or ".." in PureWindowsPath(name).parts or ".." in parts or "\0" in name


def _spelled(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # how Python spells a byte of a file name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
