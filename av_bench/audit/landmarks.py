"""An index of sound by pairs of spectral peaks: which files sound alike somewhere, at which offset, speed and pitch?

A landmark is two peaks not far from each other: the bin of the first, the distance of the second in bins and columns,
19 bits. A query votes for (file, offset) with each landmark it shares with a file. It is asked again for every change
of speed and pitch that is looked for: its peaks are moved, nothing is decoded.

All files lie on one clock, one after another: a landmark is stored by its time on that clock, and what a query's
landmarks agree on is one number, the file's place plus the offset. Votes are counted by the lower bits of that number
first; the few numbers that gather enough are counted exactly.

Memory a second of sound: about 80 landmarks of 4 bytes, 30 peaks of 5 bytes; plus 4 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.sound import BINS, COLUMNS_PER_S, OCTAVE, Peaks
from av_bench.audit.turns import Change
from av_bench.contracts import UsageError

_NEXT, _FAR = 3, 63  # columns between the two peaks of a landmark
_WIDE = 31  # bins between them, at most
_FAN, _FAN_ASKED = 3, 6  # landmarks a peak begins in the index; in a query
_AHEAD = 60  # peaks looked at for them
_KEYS = 1 << 19
_STOP = 64  # a landmark this many times as common as the mean says nothing
_FEWEST = 8  # votes of a candidate
_CANDIDATES = 24  # of a query
_SPAN = _CLOCK = 1 << 32  # columns
_PIECE = 1 << 20  # peaks, or landmarks, that are worked on together
_FEWEST_SLOTS = 14  # bits of a number by which votes are counted first, at least

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heard:
    """A candidate: training time = ``change.speed`` x test time + ``offset``, in columns; ``votes`` landmarks agree."""

    sequence: int
    change: Change
    offset: int
    votes: int


class LandmarkIndex:
    """Landmarks of many files. Add all, ``build``, then ask."""

    def __init__(self) -> None:
        self._new: list[Peaks] = []
        self._lengths: list[int] = []
        self.times = np.zeros(0, np.uint32)
        self.bins = np.zeros(0, np.uint8)
        self._built = False

    def add(self, peaks: Peaks) -> int:
        """Take one file in; returns its number."""
        self._new.append(peaks)
        self._lengths.append(len(peaks))
        self._built = False
        return len(self._lengths) - 1

    def build(self) -> None:
        """Sort the landmarks of all files by key. Raises UsageError when they are too many for one clock."""
        parts = [Peaks(self.times, self.bins), *self._new]
        self.times = np.concatenate([p.times for p in parts])
        self.bins = np.concatenate([p.bins for p in parts])
        self._new = []
        self.first = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        self.begins = self._places()
        packed = self._packed()
        counts = np.zeros(_KEYS + 1, np.int64)
        for start in range(0, len(packed), _PIECE):  # keys are counted piece by piece: no second copy of them all
            keys = (packed[start : start + _PIECE] >> np.uint64(32)).astype(np.int64)
            counts[1:] += np.bincount(keys, minlength=_KEYS)
        self.bounds = np.cumsum(counts)
        self.posts = packed.astype(np.uint32)  # the lower half: when the first peak is
        self._longest = _STOP * (1 + len(self.posts) // _KEYS)
        self._built = True

    def _places(self) -> Ints:
        """Columns at which the files begin on the clock of all; no landmark reaches from one file to the next."""
        filled = np.diff(self.first) > 0
        spans = np.zeros(len(filled), np.int64)
        spans[filled] = self.times[self.first[1:][filled] - 1].astype(np.int64) + 1
        ends = np.cumsum(spans + _FAR + 1)
        if len(ends) and ends[-1] >= _CLOCK:
            hours = ends[-1] / COLUMNS_PER_S / 3600
            raise UsageError(f"{hours:,.0f} hours of sound are too many for one audit; give fewer training folders")
        return ends - spans - _FAR - 1

    def _packed(self) -> NDArray[np.uint64]:
        """Key (upper half) and time (lower half) of every landmark, sorted."""
        packed = [np.zeros(0, np.uint64)]
        start, files = 0, len(self._lengths)
        while start < files:
            stop = int(np.searchsorted(self.first, self.first[start] + _PIECE, "right")) - 1
            stop = min(files, max(stop, start + 1))
            part = slice(self.first[start], self.first[stop])
            clock = self.times[part].astype(np.int64) + np.repeat(self.begins[start:stop], self._lengths[start:stop])
            keys, at = landmarks(clock, self.bins[part].astype(np.int64), _FAN)
            packed.append((keys.astype(np.uint64) << np.uint64(32)) | clock[at].astype(np.uint64))
            start = stop
        whole = np.concatenate(packed)
        whole.sort()
        return whole

    def peaks(self, number: int) -> Peaks:
        """The peaks of a file."""
        part = slice(self.first[number], self.first[number + 1])
        return Peaks(self.times[part], self.bins[part])

    @property
    def nbytes(self) -> int:
        """Bytes held after ``build``."""
        arrays = (self.times, self.bins, self.first, self.begins, self.bounds, self.posts)
        return sum(array.nbytes for array in arrays)

    def query(self, peaks: Peaks, changes: Sequence[Change]) -> list[Heard]:
        """The best change and offset of each file that shares enough landmarks, most votes first."""
        if not self._built:
            self.build()
        best: dict[int, Heard] = {}
        for change in changes:
            for heard in self._voted(peaks, change):
                if heard.sequence not in best or heard.votes > best[heard.sequence].votes:
                    best[heard.sequence] = heard
        return sorted(best.values(), key=lambda h: (-h.votes, h.sequence))[:_CANDIDATES]

    def _voted(self, peaks: Peaks, change: Change) -> list[Heard]:
        times, bins = undone(peaks, change)
        keys, at = landmarks(times, bins, _FAN_ASKED)
        low, size = self.bounds[keys], self.bounds[keys + 1] - self.bounds[keys]
        use = (size > 0) & (size <= self._longest)
        low, size, at = low[use], size[use], at[use]
        if not len(low):
            return []
        inside = np.arange(size.sum()) + np.repeat(low - np.cumsum(size) + size, size)
        clock, asked = self.posts[inside].astype(np.int64), np.repeat(times[at], size)
        crowded = _crowded(clock - asked, _FEWEST)
        clock, asked = clock[crowded], asked[crowded]
        owner = np.searchsorted(self.begins, clock, "right") - 1
        offset = clock - self.begins[owner] - asked
        pairs, votes = np.unique(owner * _SPAN + offset + _SPAN // 2, return_counts=True)
        if not len(pairs):
            return []
        after = np.minimum(np.arange(len(pairs)) + 1, len(pairs) - 1)  # true offsets lie between two columns
        both = votes + np.where(pairs[after] == pairs + 1, votes[after], 0)
        chosen = np.flatnonzero(both >= _FEWEST)
        return [
            Heard(int(p // _SPAN), change, int(p % _SPAN) - _SPAN // 2 + int(2 * later > v), int(v))
            for p, v, later in zip(pairs[chosen], both[chosen], both[chosen] - votes[chosen], strict=True)
        ]


def _crowded(values: Ints, least: int) -> NDArray[np.bool_]:
    """Which values may, with those one above or one below, be ``least``: all that are, and few others."""
    slots = 1 << max(_FEWEST_SLOTS, len(values).bit_length() - 1)
    slot = values & (slots - 1)
    counts = np.bincount(slot, minlength=slots)
    pair = counts + np.roll(counts, -1) >= least
    found: NDArray[np.bool_] = (pair | np.roll(pair, 1))[slot]
    return found


def undone(peaks: Peaks, change: Change) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times and bins of peaks as they were before the change (bins may lie outside the spectrogram)."""
    times = np.rint(peaks.times * change.speed).astype(np.int64)
    bins = np.rint(peaks.bins - change.pitch * OCTAVE / 12).astype(np.int64)
    return times, bins


def landmarks(times: Ints, bins: Ints, fan: int) -> tuple[Ints, Ints]:
    """Keys of the landmarks of peaks sorted by time, and the number of the first peak of each."""
    inside = (bins >= 0) & (bins < BINS)
    begun = np.zeros(len(times), np.int64)
    keys, firsts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, min(_AHEAD, len(times) - 1) + 1):
        first = np.arange(len(times) - step)
        apart, higher = times[step:] - times[:-step], bins[step:] - bins[:-step]
        use = (apart >= _NEXT) & (apart <= _FAR) & (np.abs(higher) <= _WIDE) & inside[:-step] & inside[step:]
        first = first[use & (begun[first] < fan)]
        begun[first] += 1
        keys.append((bins[first] << 12) | ((higher[first] + 32) << 6) | apart[first])
        firsts.append(first)
    return np.concatenate(keys), np.concatenate(firsts)
