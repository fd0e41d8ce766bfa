"""The two onset detectors behind :mod:`av_bench.metrics.onset`: the published one and ours.

Conventions: mono float32 audio in, times in seconds (ascending) and confidences out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av_bench.metrics.checks import FloatArray

Signal = NDArray[np.float32]

PAPER_RATE = 22050  # Hz
PAPER_SECONDS = 8
PAPER_DELTA = 0.3  # threshold above the local mean of the onset strength, which is scaled to 0..1
PAPER_REACH = 1102  # samples, 0.05 s: where the confidence of a peak is looked up
PAPER_APART = 0.05 * PAPER_RATE  # samples: a weaker neighbour this close is dropped

STRICT_RATE = 22050  # Hz
HOP = 64  # samples, 2.9 ms
WINDOW = 512  # samples, 23 ms
PAST = 8  # frames, 23 ms: a frame is compared with the loudest of the frames 12 to 35 ms earlier
GAP = 4  # frames between a frame and its past, so that their windows overlap less
BANDS = np.array([0, 300, 700, 1200, 1900, 2800, 3900, 5200, 6800, 8700, 11025])  # Hz; narrow bands make noise jump
FLOOR_DB = -60.0  # dB below the clip's loudest band frame: quieter is silence
RISE_DB = 4.0  # mean rise over the bands that makes an onset; stationary noise stays below 2.4
APART = 0.05  # seconds: of two peaks closer than this the lower is dropped


def _resample(signal: Signal, sample_rate: int, rate: int) -> Signal:
    if sample_rate == rate:
        return signal
    import librosa

    resampled: Signal = librosa.resample(signal, orig_sr=sample_rate, target_sr=rate, res_type="soxr_hq")
    return resampled


# --------------------------------------------------------------------------- paper


def detect_paper(signal: Signal, sample_rate: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Published detector: times ``(k,)`` seconds, confidence ``(k,)``, loudness ``(k,)`` at the onset sample."""
    import librosa

    wave = _resample(signal, sample_rate, PAPER_RATE)[: PAPER_SECONDS * PAPER_RATE]
    found = librosa.onset.onset_detect(y=wave, sr=PAPER_RATE, units="samples", delta=PAPER_DELTA)
    onsets = np.asarray(found, dtype=np.int64)
    onsets = onsets[onsets < len(wave)]
    curve = (wave - wave.min()) / (wave.max() - wave.min() + 1e-6)
    onsets, confidence = thin_paper(onsets, window_maxima(curve, onsets))
    return onsets / PAPER_RATE, confidence.astype(np.float64), curve[onsets].astype(np.float64)


def window_maxima(curve: NDArray[np.floating], onsets: NDArray[np.int64]) -> NDArray[np.floating]:
    """Largest value of ``curve`` in ``[onset - 1102, onset + 1102)`` for every onset, in samples."""
    return np.array([curve[max(o - PAPER_REACH, 0) : o + PAPER_REACH].max() for o in onsets], dtype=curve.dtype)


def thin_paper(
    onsets: NDArray[np.int64], confidence: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Drop weaker neighbours the published way; ascending onsets and their confidence.

    The original removes from a list while walking it, so the element after each removed one is not looked at and may
    survive. The published numbers contain that.
    """
    remaining = [int(o) for o in onsets]
    kept: list[int] = []
    for i in np.argsort(confidence)[::-1]:
        strongest = int(onsets[i])
        if strongest not in remaining:
            continue
        kept.append(strongest)
        remaining.remove(strongest)
        place = 0
        while place < len(remaining):
            if abs(remaining[place] - strongest) < PAPER_APART:
                del remaining[place]
            place += 1
    keep = np.isin(onsets, kept)
    return onsets[keep], confidence[keep]


# --------------------------------------------------------------------------- strict


def detect_strict(signal: Signal, sample_rate: int) -> tuple[FloatArray, FloatArray]:
    """Detector for +-50 ms scoring: times ``(k,)`` seconds and the rise ``(k,)`` in dB.

    Spectral flux in ten broad bands: the mean over bands of how many dB a frame rises above the loudest frame shortly
    before. Levels count relative to the clip, so gain changes nothing; broad bands keep stationary noise below the
    threshold. Each peak is then moved to the steepest point of the waveform's energy, to about a millisecond.
    What starts within the first 25 ms has nothing to rise from and is not seen.
    """
    wave = _resample(signal, sample_rate, STRICT_RATE).astype(np.float64)
    loudest = np.abs(wave).max()
    if loudest == 0.0 or len(wave) < WINDOW:
        return np.zeros(0), np.zeros(0)
    wave /= loudest
    rise = _band_rise(wave)
    peaks = _peaks(rise)
    times = np.array([_steepest(wave, WINDOW // 2 + int(p) * HOP) for p in peaks]) / STRICT_RATE
    order = np.argsort(times, kind="stable")
    return times[order].astype(np.float64), rise[peaks][order]


def _band_rise(wave: FloatArray) -> FloatArray:
    """Mean rise in dB over the bands, one value per frame; frame f is centred on sample WINDOW / 2 + f * HOP.

    ``wave`` ``(t,)`` holds at least one window. No padding: an artificial edge would sound like an onset.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    edges = np.rint(BANDS * WINDOW / STRICT_RATE).astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    level = 10.0 * np.log10(np.maximum(bands / max(bands.max(), 1e-300), 10.0 ** (FLOOR_DB / 10.0)))
    past = np.pad(level, ((GAP + PAST, 0), (0, 0)), mode="edge")
    before = np.lib.stride_tricks.sliding_window_view(past, PAST + 1, axis=0)[: len(level)].max(axis=-1)
    rise: FloatArray = np.maximum(level - before, 0.0).mean(axis=1)
    return rise


def _peaks(rise: FloatArray) -> NDArray[np.int64]:
    """Frames whose rise reaches RISE_DB and is the highest within APART seconds."""
    reach = round(APART * STRICT_RATE / HOP)
    padded = np.pad(rise, reach, constant_values=-np.inf)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    peaks = np.flatnonzero((rise >= highest) & (rise >= RISE_DB))
    apart = np.diff(peaks, prepend=-reach - 1) > reach  # a flat top counts once
    return peaks[apart]


def _steepest(wave: FloatArray, centre: int) -> int:
    """Sample near ``centre`` where the energy of the differenced waveform grows most, 2 ms after over 2 ms before."""
    span = STRICT_RATE // 500
    start, stop = max(centre - WINDOW, span), min(centre + WINDOW // 2, len(wave) - span - 1)
    if stop <= start:
        return centre
    energy = np.concatenate([[0.0], np.cumsum(np.diff(wave[start - span : stop + span + 1]) ** 2)])
    blocks = energy[span:] - energy[:-span]
    after, before = blocks[span:], blocks[:-span]
    return start + int(np.argmax((after + 1e-12) / (before + 1e-3 * blocks.max() + 1e-12)))
