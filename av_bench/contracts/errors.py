"""Errors that a user can cause or fix, reason codes of the ledger, and messages for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path


class AvBenchError(Exception):
    """Base of every error a user can cause or fix: the message says what, where, why and what to do."""

    exit_code = 2


class UsageError(AvBenchError):
    """The request itself is off (unknown name, contradictory options, unreadable table)."""


class MissingRequirement(AvBenchError):
    """A package, weight file or device is not there; the message holds the command that gets it."""

    exit_code = 4


class PluginError(AvBenchError):
    """A metric, extractor or model raised something it should not: the message names it, the column and the clip."""

    exit_code = 5


class MetricError(AvBenchError):
    """A metric cannot be computed on these inputs; the message says why. The number stays absent."""


class MediaError(AvBenchError):
    """One media file cannot be used. ``reason`` is the code written to the ledger."""

    def __init__(self, path: Path | str, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {reason.value}: {detail}")
        self.path = Path(path)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[MediaError], tuple[Path, Reason, str]]:
        """An exception is copied to another process by what made it, not by its message."""
        return type(self), (self.path, self.reason, self.detail)


class Reason(StrEnum):
    """Reason codes of the ledger. A clip that carries one of the excluding codes is in no metric of the row."""

    MISSING_FILE = "missing-file"
    MISSING_SAMPLE = "missing-sample"
    EXTRA_SAMPLE = "extra-sample"
    DUPLICATE_STEM = "duplicate-stem"
    UNREADABLE = "unreadable"
    CHANGED_WHILE_READ = "changed-while-read"
    OUT_OF_MEMORY = "out-of-memory"
    EMPTY = "empty"
    NO_AUDIO = "no-audio"
    NO_VIDEO = "no-video"
    NO_TEXT = "no-text"
    TOO_SHORT_AUDIO = "too-short-audio"
    TOO_SHORT_VIDEO = "too-short-video"
    NOT_FINITE = "not-finite"
    GENERATOR_FAILED = "generator-failed"
    BAD_FEATURES = "bad-features"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    PATH_ESCAPE = "path-escape"
    WRONG_RATE = "wrong-rate"
    WRONG_LENGTH = "wrong-length"
    # flags: the clip is scored, and the ledger says so
    SILENT = "silent"
    CUT = "cut"
    CLIPPED = "clipped"
    ABOVE_FULL_SCALE = "above-full-scale"
    LOUDNESS_CHANGED = "loudness-changed"
    LEFT_OUT = "left-out"  # a file of a folder that belongs to no clip, though a recording may be in it

    @property
    def excludes(self) -> bool:
        """True when a clip with this code is left out of every metric."""
        return self not in _FLAGS


_FLAGS = frozenset(
    {
        Reason.SILENT,
        Reason.CUT,
        Reason.CLIPPED,
        Reason.ABOVE_FULL_SCALE,
        Reason.LOUDNESS_CHANGED,
        Reason.EXTRA_SAMPLE,
        Reason.LEFT_OUT,
    }
)


def shortfall(samples: int, needed: int, rate: int) -> str:
    """How much audio there is and how much is needed, precise enough to show one missing sample."""
    return f"{samples / rate:.4f} of {needed / rate:g} s of audio, {needed - samples} samples at {rate} Hz are missing"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine's memory is used up; torch says so with a RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def unknown_name(kind: str, name: str, available: Iterable[str]) -> str:
    """One-line message for a name that is not among ``available``: the nearest one, then all of them."""
    known = list(available)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Available: {', '.join(known) or 'none'}"


@contextmanager
def plugin_boundary(what: str) -> Iterator[None]:
    """Turn an unexpected exception into PluginError with ``what`` (metric, extractor or model, and where) in front.

    Errors of this package, of the system and of memory pass as they are.
    """
    try:
        yield
    except (AvBenchError, OSError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or is_out_of_memory(error):  # the caller may try with less
            raise
        raise PluginError(f"{what}: {type(error).__name__}: {error}") from error
