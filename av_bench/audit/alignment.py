"""Verification: two media side by side at a candidate offset. How well, and how long, do they really agree?

Sound: log-mel spectrograms (10 ms hop). The offset is refined to the hop, then every second of the common part gets the
correlation of its mel patch after each band's own level is taken out: equal recordings agree in their fine structure
whatever their loudness, different recordings do not, even of one class.

Picture: 64 x 64 luminance thumbnails at 8 frames/s. One scale and shift (a crop, a resize) is fitted on a few frames.
Then every frame gets the spatial correlation, and the stretch as a whole the correlation of how 8 x 8 blocks change
over time. Both must hold: the first alone would match two clips of one still scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.fingerprints import THUMB, VIDEO_FPS, resized
from av_bench.audit.index import longest_run

SOUND_RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms
_FRAMES_PER_S = SOUND_RATE / HOP
_SLACK_S = 0.4  # the index knows the offset to about a code
_MIN_SOUND = 0.5  # correlation of one second of sound that counts as equal
_MIN_SOUND_MEAN = 0.7  # the same over the stretch: two series of bangs reach 0.75 for 4 s, copies 0.79 and more
_MIN_FRAME = 0.6  # spatial correlation of a frame that counts as equal
_MIN_MOTION = 0.6  # correlation of the change over time
_SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_BLOCKS = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A verified stretch. ``offset`` (s): time in the training file minus time in the test file; ``start`` and
    ``length`` (s) in the test file; ``confidence``: mean correlation over the stretch, in (0, 1]."""

    offset: float
    start: float
    length: float
    confidence: float


# --------------------------------------------------------------------------- sound


@cache
def _mel_filters(bands: int = 40, size: int = 512, low: float = 100.0, high: float = 5000.0) -> Floats:
    """Triangular filters ``(bands, size / 2 + 1)``, evenly spaced on the mel scale."""
    mel = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.linspace(0, SOUND_RATE / 2, size // 2 + 1)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)).astype(np.float32)


def spectrogram(wave: Floats) -> Floats:
    """Log-mel spectrogram ``(40, frames)`` in dB of mono sound at ``SOUND_RATE``, floored 60 dB below its peak."""
    size = 512
    padded = np.pad(wave, (size // 2, size // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::HOP] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) ** 2
    mel = 10 * np.log10(_mel_filters() @ power.T + 1e-10)
    floored: Floats = np.maximum(mel, mel.max() - 60).astype(np.float32)
    return floored


def align_sound(test: Floats, train: Floats, offset: float, min_seconds: float) -> Alignment | None:
    """Verify a candidate ``offset`` (s) between two spectrograms; None when less than ``min_seconds`` agrees."""
    centre = round(offset * _FRAMES_PER_S)
    slack = round(_SLACK_S * _FRAMES_PER_S)
    coarse = max(range(centre - slack, centre + slack + 1, 4), key=lambda lag: _overall(test, train, lag))
    lag = max(range(coarse - 3, coarse + 4), key=lambda lag: _overall(test, train, lag))
    a, b, start = _common(test, train, lag)
    second = round(_FRAMES_PER_S)
    if a.shape[1] < second:
        return None
    local, silent = _sliding_correlation(a, b, second)
    first, count = longest_run(_bridged((local >= _MIN_SOUND) | silent, second // 2))
    last = first + count - 1
    heard = first + np.flatnonzero(~silent[first : last + 1])
    if len(heard) < second:  # a common silence says nothing
        return None
    confidence = float(local[heard].mean())
    # a window counts from about half common on: where the stretch ends inside the files, half a window is not common
    begin = heard[0] if heard[0] > first or first == 0 else first + second // 2
    end = heard[-1] + second if heard[-1] < last or last == len(local) - 1 else last + second // 2
    length = (end - begin) / _FRAMES_PER_S
    if length < min_seconds or confidence < _MIN_SOUND_MEAN:
        return None
    return Alignment(lag / _FRAMES_PER_S, float(start + begin) / _FRAMES_PER_S, float(length), min(1.0, confidence))


def _common(test: Any, train: Any, lag: int) -> tuple[Any, Any, int]:
    """Columns of both that coincide when training time = test time + lag, and where they start in the test."""
    start = max(0, -lag)
    end = min(test.shape[1], train.shape[1] - lag)
    if end <= start:
        return test[:, :0], train[:, :0], start
    return test[:, start:end], train[:, start + lag : end + lag], start


def _overall(test: Floats, train: Floats, lag: int) -> float:
    """Mean over seconds of the local correlation's positive part: peaks at the true lag even for a partial match."""
    a, b, _ = _common(test, train, lag)
    second = round(_FRAMES_PER_S)
    if a.shape[1] < second:
        return 0.0
    local, _ = _sliding_correlation(a, b, second)
    return float(np.maximum(local, 0)[:: second // 4].sum())


def _sliding_correlation(a: Floats, b: Floats, width: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Correlation of two ``(bands, frames)`` in windows of ``width`` frames, each band's window mean removed; 0 where
    one side is silent. The second array marks the windows in which both are."""

    def windows(x: Floats) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.pad(np.cumsum(x, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
        return total[:, width:] - total[:, :-width]

    sa, sb = windows(a), windows(b)
    product = (windows(a * b) - sa * sb / width).sum(axis=0)
    energy_a = (windows(a * a) - sa * sa / width).sum(axis=0)
    energy_b = (windows(b * b) - sb * sb / width).sum(axis=0)
    least = 1.0 * len(a) * width  # one squared dB per cell: below that there is nothing to compare
    ok = (energy_a > least) & (energy_b > least)
    local = np.where(ok, product / np.sqrt(np.maximum(energy_a * energy_b, 1e-9)), 0.0).astype(np.float32)
    return local, (energy_a <= least) & (energy_b <= least)


def _bridged(mask: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """The mask with gaps of at most ``gap`` between two True closed."""
    out = mask.copy()
    hits = np.flatnonzero(mask)
    for a, b in pairwise(hits):
        if 1 < b - a <= gap + 1:
            out[a:b] = True
    return out


# --------------------------------------------------------------------------- picture


def align_picture(
    test: Floats, train: Floats, offset: float, start: float, length: float, min_seconds: float
) -> Alignment | None:
    """Verify a candidate between two thumbnail stacks ``(frames, 64, 64)``; ``start`` and ``length`` (s) is the
    stretch the codes found. None when less than ``min_seconds`` agrees."""
    probe = (start + length * np.array([0.1, 0.3, 0.5, 0.7, 0.9])) * VIDEO_FPS
    fit = _register(_at(test, probe), _at(train, probe + offset * VIDEO_FPS))
    moved = _moved(train, fit) if fit[0] <= 1 else train
    base = test if fit[0] <= 1 else _moved(test, (1 / fit[0], fit[1], fit[2]))
    best: tuple[float, float] = (-1.0, 0.0)
    inside = np.arange(start, start + length, 1 / VIDEO_FPS) * VIDEO_FPS
    for fine in np.arange(-3, 4) / 3 / VIDEO_FPS:
        score = _motion(_at(base, inside), _at(moved, inside + (offset + fine) * VIDEO_FPS))
        best = max(best, (score, float(fine)))
    offset += best[1]
    first = max(0.0, -offset * VIDEO_FPS)
    last = min(len(base) - 1.0, len(moved) - 1 - offset * VIDEO_FPS)
    if last - first < 1:
        return None
    times = np.arange(np.ceil(first), last + 1e-6)
    a, b = _at(base, times), _at(moved, times + offset * VIDEO_FPS)
    frames = _correlation(a.reshape(len(a), -1), b.reshape(len(b), -1))
    run, count = longest_run(_bridged(frames >= _MIN_FRAME, 2))
    seconds = count / VIDEO_FPS
    if seconds < min_seconds:
        return None
    motion = _motion(a[run : run + count], b[run : run + count])
    if motion < _MIN_MOTION:
        return None
    confidence = min(motion, float(frames[run : run + count].mean()))
    return Alignment(offset, float(times[run]) / VIDEO_FPS, seconds, min(1.0, confidence))


def _at(frames: Floats, times: NDArray[np.float64]) -> Floats:
    """Frames at fractional frame numbers, linear between neighbours, the ends held."""
    t = np.clip(times, 0, len(frames) - 1)
    low = np.floor(t).astype(int)
    high = np.minimum(low + 1, len(frames) - 1)
    share = (t - low)[:, None, None].astype(np.float32)
    blended: Floats = frames[low] * (1 - share) + frames[high] * share
    return blended


def _correlation(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Row-wise correlation; 0 where a row is constant."""
    x, y = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    rows: NDArray[np.float64] = np.where(scale > 1e-3, (x * y).sum(axis=1) / np.maximum(scale, 1e-3), 0.0)
    return rows


def _motion(a: Floats, b: Floats) -> float:
    """Correlation of the change over time of 8 x 8 block means, over all blocks together."""
    n, size = len(a), a.shape[1] // _BLOCKS

    def change(x: Floats) -> Floats:
        blocks = x[:, : size * _BLOCKS, : size * _BLOCKS].reshape(n, _BLOCKS, size, _BLOCKS, size).mean(axis=(2, 4))
        flat: Floats = (blocks - blocks.mean(axis=0)).reshape(1, -1)
        return flat

    return float(_correlation(change(a), change(b))[0])


def _register(a: Floats, b: Floats) -> tuple[float, float, float]:
    """(scale, top, left) that fits b into a: scale <= 1: a shows the part of b at (top, left), scale of b's size;
    scale > 1: b shows a part of a. Chosen by the mean correlation of the frames given, on 32 x 32 pixels."""
    half = THUMB // 2
    small_a, small_b = resized(a, half), resized(b, half)
    best, fit = -2.0, (1.0, 0.0, 0.0)
    for scale in _SCALES:
        size = round(half * scale)
        for swap, (part, whole) in ((False, (small_a, small_b)), (True, (small_b, small_a))):
            scores = _slide(resized(part, size), whole)
            top, left = np.unravel_index(int(np.argmax(scores)), scores.shape)
            if scores[top, left] > best + (0.01 if scale < 1 else 0):
                best, fit = float(scores[top, left]), (1 / scale if swap else scale, 2.0 * top, 2.0 * left)
    return fit


def _slide(part: Floats, whole: Floats) -> NDArray[np.float64]:
    """Mean correlation over frames of ``part (n, s, s)`` with every ``s`` x ``s`` place of ``whole (n, h, h)``."""
    n, size = len(part), part.shape[1]
    x = part.reshape(n, -1) - part.reshape(n, -1).mean(axis=1, keepdims=True)
    places = np.lib.stride_tricks.sliding_window_view(whole, (size, size), axis=(1, 2))
    product = np.einsum("nijkl,nkl->nij", places, x.reshape(n, size, size), optimize=True)
    mean, square = places.mean(axis=(3, 4)), (places * places).mean(axis=(3, 4))
    energy = np.maximum(square - mean * mean, 0) * size * size
    scale = np.sqrt(energy * (x * x).sum(axis=1)[:, None, None])
    score: NDArray[np.float64] = np.where(scale > 1e-3, product / np.maximum(scale, 1e-3), 0.0).mean(axis=0)
    return score


def _moved(frames: Floats, fit: tuple[float, float, float]) -> Floats:
    """The part of the frames that the other side shows, at full thumbnail size."""
    scale, top, left = fit[0], int(fit[1]), int(fit[2])
    size = round(THUMB * scale)
    return frames if size == THUMB else resized(frames[:, top : top + size, left : left + size], THUMB)
