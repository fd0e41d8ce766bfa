"""Verification of a sound candidate on the peaks of both files: how many of them are the same, more than by chance?

Peaks of the test file are moved to where they would be in the training file. The share that meets a peak there is
compared with the shares at other offsets (chance, which is high for rhythmic sounds); the stretch is where it is
above chance. Sound that was added hides peaks and brings others, so half a copy's peaks, or a fifth, may be all there
is: what decides is how far that is from chance, and how many landmarks (pairs of peaks) agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.alignment import Alignment
from av_bench.audit.landmarks import Heard
from av_bench.audit.sound import BINS, COLUMNS_PER_S, OCTAVE, Peaks

CLEAR = 160.0  # votes x deviations from chance of a sound alone at another speed or pitch: look-alikes reached 110
CLEAR_UNCHANGED = 115.0  # ... and at its own: look-alikes reached 77
BESIDE = 60.0  # ... and beside a picture at the same offset
_DEVIATIONS, _VOTES = 6.0, 10  # at least, of each
_OTHERS = tuple(d for d in range(-125, 126, 5) if abs(d) > 8)  # columns to the offsets that show what chance gives
_FEWEST = 5  # peaks of a side in the common part
_FIT_PEAKS, _FIT_S, _FIT_SPEED = 12, 3.0, 0.02  # what a line through time needs; how far it may turn

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def align_sound(test: Peaks, train: Peaks, heard: Heard, min_seconds: float) -> tuple[Alignment, float] | None:
    """The common stretch of a candidate and how clear it is (see ``CLEAR``); None when there is none that long."""
    common = _common(test, train, _fitted(test, train, heard))
    if common is None:
        return None
    found = common.stretch()
    if found is None or found.deviations < _DEVIATIONS or heard.votes < _VOTES or found.spanned < min_seconds:
        return None
    start = (found.begin - common.offset) / common.speed
    length = (found.end - found.begin) / common.speed
    change = replace(heard.change, speed=common.speed)
    offset = common.offset / COLUMNS_PER_S
    aligned = Alignment(offset, start / COLUMNS_PER_S, length / COLUMNS_PER_S, found.share, change)
    return aligned, found.deviations * heard.votes


@dataclass(frozen=True, slots=True)
class _Line:
    """Training column = ``speed`` x test column + ``offset``; bins ``lower`` by so many."""

    speed: float
    offset: float
    lower: float

    def moved(self, peaks: Peaks) -> tuple[Floats, Floats]:
        """Where the peaks would be in the training file."""
        times, bins = peaks.times.astype(np.float64), peaks.bins.astype(np.float64)
        return times * self.speed + self.offset, bins - self.lower


def _fitted(test: Peaks, train: Peaks, heard: Heard) -> _Line:
    """The candidate's line through time, turned a little to where the peaks agree best."""
    line = _Line(heard.change.speed, float(heard.offset), heard.change.pitch * OCTAVE / 12)
    times, bins = line.moved(test)
    late, at = [], []
    for height in (-1, 0, 1):
        order = np.lexsort((train.times, train.bins))
        key = train.bins[order].astype(np.float64) * 1e7 + train.times[order]
        wanted = np.clip(np.rint(bins) + height, 0, BINS) * 1e7 + times
        place = np.searchsorted(key, wanted)
        for near in (np.maximum(place - 1, 0), np.minimum(place, len(key) - 1)):
            apart = key[near] - wanted
            late.append(apart[np.abs(apart) <= 3])
            at.append(times[np.abs(apart) <= 3])
    x, y = np.concatenate(at), np.concatenate(late)
    if len(x) < _FIT_PEAKS:
        return line
    turn, shift = 0.0, float(np.median(y))
    for reach in (2.5, 1.5):
        use = np.abs(y - shift - turn * x) <= reach
        if use.sum() < _FIT_PEAKS or np.ptp(x[use]) < _FIT_S * COLUMNS_PER_S:
            break
        turn, shift = (float(v) for v in np.polyfit(x[use], y[use], 1))
    turn = float(np.clip(turn, -_FIT_SPEED, _FIT_SPEED))
    speed = line.speed * (1 + turn)
    if abs(speed - 1) < 0.002:  # a clock is no more exact than that over a few seconds
        return replace(line, speed=1.0, offset=line.offset + shift + turn * float(np.median(x)))
    return replace(line, speed=speed, offset=line.offset * (1 + turn) + shift)


# --------------------------------------------------------------------------- the common part


@dataclass(frozen=True, slots=True)
class _Stretch:
    """In training columns: first and last common peak, and how far silence reaches around them (``spanned``, s)."""

    begin: float
    end: float
    spanned: float
    share: float
    deviations: float


@dataclass(frozen=True, slots=True)
class _Common:
    """Peaks of both files where they overlap: ``times`` and ``bins`` of the side with fewer, and where the other side
    has peaks, ``field`` (bins + 2, columns + 2) beginning at column ``low``."""

    times: Floats
    bins: Floats
    field: Mask
    low: int
    sign: int  # which way the side with fewer peaks moves when the test file is moved later
    speed: float
    offset: float

    def matched(self, later: int) -> Mask:
        """Which peaks meet one of the other side with the test file moved ``later`` columns."""
        column = np.rint(self.times).astype(np.int64) + self.sign * later - self.low + 1
        row = np.rint(self.bins).astype(np.int64) + 1
        inside = (column >= 0) & (column < self.field.shape[1]) & (row >= 0) & (row < self.field.shape[0])
        out = np.zeros(len(column), bool)
        out[inside] = self.field[row[inside], column[inside]]
        return out

    def chance(self) -> Floats:
        """Shares of peaks matched at other offsets, of those that are still over the other side."""
        shares = []
        for later in _OTHERS:
            column = self.times + self.sign * later - self.low
            inside = int(((column >= 0) & (column < self.field.shape[1] - 2)).sum())
            if 2 * inside >= len(self.times):
                shares.append(self.matched(later).sum() / inside)
        return np.array(shares or [0.1])

    def stretch(self) -> _Stretch | None:
        """Where more peaks agree than by chance."""
        hit, others = self.matched(0), self.chance()
        chance = max(0.02, float(others.mean()))
        part = _densest(hit, chance + 0.1)
        if part is not None:
            share = float(hit[part].mean())
            part = _densest(hit, (2 * chance + share) / 3)
        if part is None:
            return None
        inside = hit[part]
        expected = chance * len(inside)
        spread = max(1.0, np.sqrt(expected), float(others.std()) * np.sqrt(len(hit) * len(inside)))
        share = float(np.clip((inside.sum() - expected) / (len(inside) - expected), 0, 1))
        before = self.times[part.start - 1] if part.start else float(self.low)
        after = self.times[part.stop] if part.stop < len(hit) else float(self.low + self.field.shape[1] - 2)
        begin, end = float(self.times[part.start]), float(self.times[part.stop - 1])
        spanned = (after - before) / COLUMNS_PER_S / self.speed
        return _Stretch(begin, end, spanned, share, float(inside.sum() - expected) / spread)


def _common(test: Peaks, train: Peaks, line: _Line) -> _Common | None:
    """What both files have at the same time; None when that is next to nothing."""
    if not (len(test) and len(train)):
        return None
    times, bins = line.moved(test)
    low, high = max(times[0], float(train.times[0])), min(times[-1], float(train.times[-1]))
    ours = (times >= low) & (times <= high)
    theirs = (train.times >= low) & (train.times <= high)
    counts = int(ours.sum()), int(theirs.sum())
    if min(counts) < _FEWEST:
        return None
    sides = [(times[ours], bins[ours]), (train.times[theirs].astype(float), train.bins[theirs].astype(float))]
    few, many = (0, 1) if counts[0] <= counts[1] else (1, 0)
    first = int(np.floor(low))
    field = np.zeros((BINS + 2, int(np.ceil(high)) - first + 3), bool)
    column, row = np.rint(sides[many][0]).astype(np.int64) - first + 1, np.rint(sides[many][1]).astype(np.int64) + 1
    inside = (row > 0) & (row < BINS + 1)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            field[row[inside] + y, column[inside] + x] = True
    return _Common(*sides[few], field, first, 1 if few == 0 else -1, line.speed, line.offset)


def _densest(hit: Mask, least: float) -> slice | None:
    """The stretch in which hits outweigh the others most, each counted against ``least``."""
    total = np.concatenate([[0.0], np.cumsum(np.where(hit, 1 - least, -least))])
    lowest = np.minimum.accumulate(total)
    end = int(np.argmax(total - lowest))
    if total[end] - lowest[end] <= 0:
        return None
    return slice(int(np.argmin(total[: end + 1])), end)
