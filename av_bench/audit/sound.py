"""The fingerprint of sound: where its spectrogram peaks.

Peaks of a spectrogram with logarithmic frequency (24 bins an octave, a column every 23 ms) stay where they are when
other sound is added, unless that is louder just there; a change of pitch moves them all by as many bins, a change of
tempo stretches their times. At most ``A_SECOND`` are kept of each second, those that stand out most.
After A. Wang, "An industrial-strength audio search algorithm" (ISMIR 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

Floats = NDArray[np.float32]

RATE = 11025  # Hz
HOP = 256  # samples between columns
COLUMNS_PER_S = RATE / HOP
OCTAVE = 24  # bins
BINS = 111  # 200 Hz to 4.8 kHz
A_SECOND = 30
_SIZE = 1024  # samples of a column
_LOWEST = 200.0  # Hz
_QUIET = 1e-3  # full scale: below -60 dB there is no sound to recognise
_RANGE = 70.0  # dB below the loudest of a segment
_NEAR = (4, 6)  # bins and columns in which a peak is the highest
_STANDS_OUT = 6.0  # dB above its surroundings of an octave and a second
_SEGMENT, _EDGE = 40 * 256, 64  # columns that are worked on together, and those looked at on either side


@dataclass(frozen=True)
class Peaks:
    """Peaks sorted by time: ``times`` (n,) uint32 columns, ``bins`` (n,) uint8."""

    times: NDArray[np.uint32]
    bins: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.times)


def none() -> Peaks:
    """What silence has."""
    return Peaks(np.zeros(0, np.uint32), np.zeros(0, np.uint8))


class Collector:
    """Takes sound piece by piece and keeps its peaks; memory of a segment only."""

    def __init__(self) -> None:
        self._waiting: list[Floats] = []
        self._samples = 0  # of those waiting
        self._column = 0  # of the file, the first of those waiting
        self._found: list[Peaks] = []

    def push(self, sound: Floats) -> None:
        """Take mono sound at ``RATE``."""
        self._waiting.append(sound)
        self._samples += len(sound)
        if self._samples >= (_SEGMENT + 2 * _EDGE) * HOP + _SIZE:
            self._segment(last=False)

    def result(self) -> Peaks:
        """The peaks of all that was pushed."""
        if self._samples:
            self._segment(last=True)
        parts = [p for p in self._found if len(p)]
        if not parts:
            return none()
        return Peaks(np.concatenate([p.times for p in parts]), np.concatenate([p.bins for p in parts]))

    def _segment(self, last: bool) -> None:
        """Peaks of the columns whose neighbourhoods are complete; the others stay for the next time."""
        wave = np.concatenate(self._waiting)
        first = _EDGE if self._column else 0
        columns = spectrogram(wave)
        end = columns.shape[1] if last else first + _SEGMENT
        found = peaks(columns)
        inside = (found.times >= first) & (found.times < end)
        times = found.times[inside].astype(np.int64) + self._column
        self._found.append(Peaks(times.astype(np.uint32), found.bins[inside]))
        rest = end - _EDGE
        self._waiting, self._samples = [wave[rest * HOP :]], max(0, len(wave) - rest * HOP)
        self._column += rest
        if last:
            self._waiting, self._samples = [], 0


@cache
def _filters() -> Floats:
    """Triangles ``(BINS, _SIZE / 2 + 1)`` on logarithmic frequency, none narrower than a bin of the transform."""
    frequency = np.fft.rfftfreq(_SIZE, 1 / RATE)
    centres = _LOWEST * 2 ** (np.arange(-1, BINS + 1) / OCTAVE)
    below = np.minimum(centres[:-2], centres[1:-1] - frequency[1])[:, None]
    above = np.maximum(centres[2:], centres[1:-1] + frequency[1])[:, None]
    middle = centres[1:-1, None]
    rise, fall = (frequency - below) / (middle - below), (above - frequency) / (above - middle)
    weights = np.maximum(0, np.minimum(rise, fall))
    rounded: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return rounded


def spectrogram(wave: Floats) -> Floats:
    """Level ``(BINS, columns)`` in dB; column i is centred on sample ``i * HOP``. Silence is a constant."""
    padded = np.pad(wave, (_SIZE // 2, _SIZE // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SIZE)[::HOP]
    window = np.hanning(_SIZE).astype(np.float32)
    power = np.empty((_SIZE // 2 + 1, len(frames)), np.float32)
    for start in range(0, len(frames), 512):  # bounded memory
        part = np.fft.rfft(frames[start : start + 512] * window, axis=1)
        power[:, start : start + 512] = (part.real**2 + part.imag**2).T
    level = 10 * np.log10(_filters() @ power + 1e-9)
    silence = 20 * np.log10(_QUIET * window.sum() / 2) - 20
    out: Floats = np.maximum(level, max(level.max(initial=silence) - _RANGE, silence)).astype(np.float32)
    return out


def peaks(level: Floats) -> Peaks:
    """The highest points of a spectrogram, at most ``A_SECOND`` a second."""
    if level.shape[1] == 0:
        return none()
    above = level - uniform_filter(level, (OCTAVE + 1, round(COLUMNS_PER_S)))
    highest = level == maximum_filter(level, (2 * _NEAR[0] + 1, 2 * _NEAR[1] + 1))
    bins, times = np.nonzero(highest & (above > _STANDS_OUT))
    order = np.lexsort((-above[bins, times], (times / COLUMNS_PER_S).astype(int)))
    second = (times[order] / COLUMNS_PER_S).astype(int)
    rank = np.arange(len(order)) - np.searchsorted(second, second)
    kept = order[rank < A_SECOND]
    kept = kept[np.lexsort((bins[kept], times[kept]))]
    return Peaks(times[kept].astype(np.uint32), bins[kept].astype(np.uint8))
