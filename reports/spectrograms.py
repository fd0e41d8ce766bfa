"""Log-mel spectrograms as pictures, made here with librosa: the strips of reports and figures."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz; strips show what lies below 8 kHz
_FFT, _HOP, _MELS = 1024, 160, 96
RANGE_DB = 70.0  # below the loudest point of all strips that are compared


@dataclass(frozen=True)
class Strip:
    """One spectrogram in dB relative to full scale, ``(mels, frames)``, low frequencies first; 10 ms per frame."""

    levels: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Length in s."""
        return float(self.levels.shape[1] * _HOP / RATE)

    @property
    def loudest(self) -> float:
        """Highest level in dB."""
        return float(self.levels.max())


def strip(wave: NDArray[np.float32]) -> Strip:
    """Mono float32 ``(samples,)`` at 16 kHz -> its spectrogram; shorter than one window: silence is added."""
    import librosa

    if len(wave) < _FFT:
        wave = np.pad(wave, (0, _FFT - len(wave)))
    power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_MELS, fmax=RATE / 2)
    return Strip(np.asarray(10 * np.log10(np.maximum(power, 1e-10)), dtype=np.float32))


def png(found: Strip, loudest: float, width: int = 480, height: int = 72) -> bytes:
    """A PNG of 64 colours; ``loudest`` (dB) is white-hot, ``RANGE_DB`` below it is black."""
    from matplotlib import colormaps
    from PIL import Image

    shade = np.clip((found.levels - (loudest - RANGE_DB)) / RANGE_DB, 0, 1)
    colours = (colormaps["magma"](shade[::-1])[..., :3] * 255).astype(np.uint8)
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BILINEAR)
    sink = io.BytesIO()
    picture.quantize(64).save(sink, format="PNG", optimize=True)
    return sink.getvalue()
