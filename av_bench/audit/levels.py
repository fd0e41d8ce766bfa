"""How much two sounds differ in level, on the media: tells a shifted recording from a phrase played in another key.

The peaks of a phrase that a sequencer plays two semitones higher are those of the phrase, two semitones higher: nothing
in a fingerprint tells it from a copy whose pitch was shifted. The levels around the peaks do. A shift keeps them;
another key has other notes ringing, and the resonances of the instrument stay where they were.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.alignment import Alignment
from av_bench.audit.shapes import FPS, SIZE, Floats
from av_bench.audit.sound import BINS, COLUMNS_PER_S, OCTAVE, RATE, spectrogram
from av_bench.audit.turns import Change
from av_bench.media.stream import Wish, stream

ALIKE = 3.0  # dB: shifted copies of 44 recordings reached 2.6, phrases in another key began at 3.5
_LONGEST_S = 20.0  # of the middle of a stretch
_LATE = tuple(i / 4 for i in range(-6, 7))  # columns by which peaks may have missed the offset
_LOUD = 60.0  # percentile of the levels from which a point counts
_KEY = 0.5  # semitones beyond those that go with the speed


def other_key(change: Change) -> bool:
    """Whether the pitch was changed beyond what the speed does to it."""
    return abs(change.pitch) > _KEY and abs(change.pitch - 12 * math.log2(change.speed)) > _KEY


def level_difference(test: Path, train: Path, found: Alignment) -> float:
    """Mean difference (dB) of the two sounds where either is loud, after undoing the change; infinite when they have
    nothing in common. Raises MediaError."""
    change, half = found.change, min(found.length, _LONGEST_S) / 2
    middle = found.start + found.length / 2
    ours, begin = _levels(test, middle - half, middle + half)
    theirs, first = _levels(train, *(change.speed * (middle + d) + found.offset for d in (-half, half)))
    ours, theirs = _moved(ours, change.pitch * OCTAVE / 12, theirs)
    column = np.arange(theirs.shape[1])
    time = ((first + column / COLUMNS_PER_S - found.offset) / change.speed - begin) * COLUMNS_PER_S
    return min((_apart(ours, theirs, time + late) for late in _LATE), default=math.inf)


def _levels(path: Path, begin: float, end: float) -> tuple[Floats, float]:
    """The spectrogram of a stretch, and the second at which it begins."""
    start = max(0.0, math.floor(begin))
    pieces: list[NDArray[np.float32]] = [np.zeros(1, np.float32)]
    stream(path, Wish(FPS, SIZE, RATE, start, end, picture=False), lambda _: None, pieces.append)
    return spectrogram(np.concatenate(pieces)), start


def _moved(ours: Floats, higher: float, theirs: Floats) -> tuple[Floats, Floats]:
    """Rows of our levels that are ``higher`` by so many bins, beside the rows of theirs that they fall on."""
    rows = np.arange(BINS) + higher
    inside = (rows >= 0) & (rows < BINS - 1)
    low = np.floor(rows[inside]).astype(int)
    part = (rows[inside] - low)[:, None]
    between: Floats = (ours[low] * (1 - part) + ours[low + 1] * part).astype(np.float32)
    return between, theirs[inside]


def _apart(ours: Floats, theirs: Floats, time: NDArray[np.float64]) -> float:
    """Mean difference where either is loud, apart from a constant; ``time`` is the column of ours for each of
    theirs."""
    low = np.floor(time).astype(int)
    inside = (low >= 0) & (low < ours.shape[1] - 1)
    if not inside.any():
        return math.inf
    low, part = low[inside], (time - low)[inside]
    a, b = ours[:, low] * (1 - part) + ours[:, low + 1] * part, theirs[:, inside]
    a, b = a - a.mean(), b - b.mean()
    loud = np.maximum(a, b) > np.percentile(b, _LOUD)
    apart = a - b
    return float(np.abs(apart[loud]).mean()) if loud.any() else math.inf
