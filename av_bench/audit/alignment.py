"""Verification: two media side by side at a candidate offset. How well, and how long, do they really agree?

Sound: log-mel spectrograms (10 ms hop). The offset is refined to the hop, then every second of the common part gets the
correlation of its mel patch after each band's own level is taken out: equal recordings agree in their fine structure
whatever their loudness, different recordings do not, even of one class.

Picture: 64 x 64 luminance thumbnails at 8 frames/s. A crop is fitted on a few frames (``registration``). Then three
correlations over the stretch must hold together: of the frames, of their detail, and of how 8 x 8 blocks change over
time. The first two alone would match two clips of one still scene, the last alone two swings of one kind.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.fingerprints import VIDEO_FPS, resized
from av_bench.audit.index import longest_run
from av_bench.audit.registration import register

SOUND_RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms
_FRAMES_PER_S = SOUND_RATE / HOP
_SLACK_S = 0.4  # the index knows the offset to about a code
_MIN_SOUND = 0.5  # correlation of one second of sound that counts as equal
_MIN_SOUND_MEAN = 0.7  # the same over the stretch: two series of bangs reach 0.75 for 4 s, copies 0.79 and more
_MIN_FRAME = 0.6  # spatial correlation of a frame that counts as equal
_MIN_PICTURE_MEAN, _MIN_PICTURE_PART = 0.65, 0.5  # of (frames, their detail, motion)
_DETAIL = 32  # pixels a side for detail
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
    local, _ = _sliding_correlation(a, b, second, second // 4)
    return float(np.maximum(local, 0).sum())


def _sliding_correlation(a: Floats, b: Floats, width: int, hop: int = 1) -> tuple[Floats, NDArray[np.bool_]]:
    """Correlation of two ``(bands, frames)`` in windows of ``width`` frames, one every ``hop`` (which divides it), each
    band's window mean removed; 0 where one side is silent. The second array marks the windows in which both are."""
    steps = width // hop

    def windows(x: Floats) -> NDArray[np.float64]:
        blocks = x[:, : x.shape[1] // hop * hop].reshape(len(x), -1, hop).sum(axis=2, dtype=np.float64)
        total: NDArray[np.float64] = np.pad(np.cumsum(blocks, axis=1), ((0, 0), (1, 0)))
        return total[:, steps:] - total[:, :-steps]

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
    for a, b in itertools.pairwise(hits):
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
    fit = register(_at(test, probe), _at(train, probe + offset * VIDEO_FPS))
    if fit is None:
        return None
    a, b = fit.apply(test, train)
    inside = np.arange(start, start + length, 1 / VIDEO_FPS) * VIDEO_FPS
    fine = np.arange(-3, 4) / 3 / VIDEO_FPS
    offset += max(fine, key=lambda d: _motion(_at(a, inside), _at(b, inside + (offset + d) * VIDEO_FPS)))
    first = np.ceil(max(0.0, -offset * VIDEO_FPS))
    last = min(len(a) - 1.0, len(b) - 1 - offset * VIDEO_FPS)
    times = np.arange(first, last + 1e-6)
    if len(times) < 2:
        return None
    a, b = _at(a, times), _at(b, times + offset * VIDEO_FPS)
    frames = _correlation(a.reshape(len(a), -1), b.reshape(len(b), -1))
    run, count = longest_run(_bridged(frames >= _MIN_FRAME, 2))
    if count / VIDEO_FPS < min_seconds:
        return None
    part = slice(run, run + count)
    detail = _correlation(_detail(a[part]), _detail(b[part]))
    parts = float(frames[part].mean()), float(detail.mean()), _motion(a[part], b[part])
    confidence = float(np.mean(parts))
    if confidence < _MIN_PICTURE_MEAN or min(parts) < _MIN_PICTURE_PART:
        return None
    return Alignment(float(offset), float(times[run]) / VIDEO_FPS, count / VIDEO_FPS, min(1.0, confidence))


def _detail(frames: Floats) -> Floats:
    """Rows of what is finer than an eighth of the picture: shared lighting and horizon do not count as likeness."""
    small = resized(frames, _DETAIL)
    coarse = resized(small, _BLOCKS)
    k = _DETAIL // _BLOCKS
    fine: Floats = (small - coarse.repeat(k, axis=1).repeat(k, axis=2)).reshape(len(frames), -1)
    return fine


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
