"""Recordings that a training leaves out, by the names an audit gives them.

A list writes a recording as it likes; an audit names it by its id, or as ``<id>_<start in s, six digits>``. Feature
folders keep the names of their own lists, so both are taken apart before they are compared.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from av_bench.contracts import UsageError
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES

log = logging.getLogger(__name__)
_SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES
# AudioSet's files put a Y before the 11 characters of a YouTube id; those may themselves hold "_" and begin with "-"
_YOUTUBE = re.compile(r"Y?(?P<id>[A-Za-z0-9_-]{11})(?:_(?P<start>\d+(?:\.\d+)?))?(?:_(?P<end>\d+(?:\.\d+)?))?")
_HITS = re.compile(r"(?P<id>\d{4}(?:-\d{2}){5}(?:-\d+)?)(?:_denoised)?(?:_thumb)?(?:_[\d.]+)?")
_WINDOW = re.compile(r"(?P<id>.+)_(?P<start>\d{6})")
_LONGEST_S = 500  # a window with a difference above this is written in ms


def parts(name: str) -> tuple[str, int | None, bool]:
    """Id of the recording, start of the window in whole s (None where the name has none), and whether it is YouTube's.

    ``r1nicOVtvkQ``, ``Yr1nicOVtvkQ.wav``, ``r1nicOVtvkQ_000030`` and ``r1nicOVtvkQ_30000_40000`` are one recording.
    """
    stem, dot, suffix = name.rpartition(".")
    name = stem if f"{dot}{suffix.lower()}" in _SUFFIXES else name
    if found := _HITS.fullmatch(name):
        return found["id"], None, False
    if found := _YOUTUBE.fullmatch(name):
        if found["start"] is None:
            return found["id"], None, True
        start = float(found["start"])
        milliseconds = found["end"] is not None and float(found["end"]) - start >= _LONGEST_S
        return found["id"], int(start / 1000 if milliseconds else start), True
    if found := _WINDOW.fullmatch(name):
        return found["id"], int(found["start"]), False
    return name, None, False


class Exclusion:
    """The names to leave out; ``met`` are those that a sample was left out for.

    A bare id names every window of its recording, a window itself alone. A sample of YouTube that does not say which
    window it is goes with any of them: it may be that one.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)
        self.met: set[str] = set()
        self._starts: dict[str, dict[int | None, set[str]]] = {}
        for name in self.names:
            recording, start, _ = parts(name)
            self._starts.setdefault(recording, {}).setdefault(start, set()).add(name)

    def __contains__(self, key: str) -> bool:
        """Whether the sample ``key`` is to be left out."""
        if not self.names:
            return False
        recording, start, youtube = parts(key)
        starts = self._starts.get(recording, {})
        wanted = set(starts) if start is None and youtube else {None, start}
        found = {name for s in wanted for name in starts.get(s, ())}
        self.met |= found
        return bool(found)

    def check(self, examples: Sequence[str]) -> None:
        """After all samples were asked: UsageError when no name is that of any; some that are not are logged.

        Names that fit nothing are most likely written another way, and nothing would be left out. ``examples`` are
        ids of samples, for the message.
        """
        if self.names and not self.met:
            raise UsageError(
                f"none of the {len(self.names)} excluded names (like {min(self.names)!r}) is that of a training sample "
                f"(like {', '.join(map(repr, examples))}): audit against the list these features were made from, or "
                "train without --exclude (data.exclude)"
            )
        if rest := len(self.names - self.met):
            log.warning("%d of %d excluded names are of no training sample", rest, len(self.names))
