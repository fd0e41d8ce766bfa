"""Log-mel spectrograms of MMAudio: what the VAE compresses and the vocoder turns back into sound.

Magnitude (not power) of a periodic Hann STFT without centring: the wave is reflected by ``(n_fft - hop) / 2`` on both
sides instead, so that ``samples / hop`` frames come out. Slaney mels of unit area, floor 1e-5, then a logarithm
(paper, Table A5; the base of the logarithm and the floor are not in the paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from av_bench.contracts import MetricError, UsageError
from av_bench.runtime.constants import constant

FLOOR = 1e-5  # under the logarithm
MAGNITUDE_EPS = 1e-9  # inside the square root: the gradient at silence stays finite


@dataclass(frozen=True)
class MelConfig:
    """Parameters of a log-mel. ``high`` in Hz; ``log`` is the base of the logarithm, 10 or e."""

    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    low: float = 0.0
    high: float = 8000.0
    log: Literal["10", "e"] = "10"

    def __post_init__(self) -> None:
        if self.hop <= 0 or self.n_fft < self.hop or (self.n_fft - self.hop) % 2 or self.n_mels <= 0:
            raise UsageError(
                f"mel: n_fft {self.n_fft}, hop {self.hop}, {self.n_mels} mels cannot work: n_fft - hop must be even "
                "and not negative, the others positive"
            )
        if not 0 <= self.low < self.high <= self.sample_rate / 2:
            raise UsageError(f"mel: {self.low}-{self.high} Hz does not fit into 0-{self.sample_rate / 2} Hz")
        if self.log not in ("10", "e"):
            raise UsageError(f"mel: unknown logarithm {self.log!r}; known are '10' and 'e'")


MELS = {
    "16k": MelConfig(16_000, n_fft=1024, hop=256, n_mels=80, high=8000.0, log="10"),
    "44k": MelConfig(44_100, n_fft=2048, hop=512, n_mels=128, high=22_050.0, log="e"),
}
"""The two front ends of the paper (Table A5)."""


def _slaney(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mel to Hz on the scale of Slaney's Auditory Toolbox: 15 mel per kHz up to 1 kHz, 27 per factor of 6.4 above."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * (math.log(6.4) / 27)))


def _to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


@constant
def mel_bank(config: MelConfig) -> NDArray[np.float32]:
    """Slaney mel filters, float32 ``(n_mels, n_fft // 2 + 1)``: triangles over Hz, scaled to unit area per Hz."""
    low, high = _to_mel(config.low), _to_mel(config.high)
    edges = _slaney(np.linspace(low, high, config.n_mels + 2))[:, None]
    bins = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.maximum(np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)), 0)
    return (triangles * 2 / (right - left)).astype(np.float32)


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Float32 waves in [-1, 1], ``(B, samples)`` -> log-mel ``(B, n_mels, samples // hop)``; values beyond 1 are cut.

    Differentiable. MetricError for waves with fewer samples than the reflected edge needs, UsageError for other shapes.
    """
    edge = (config.n_fft - config.hop) // 2
    if wave.ndim != 2:
        raise UsageError(f"log_mel: expected waves (B, samples), got {tuple(wave.shape)}")
    if wave.shape[-1] <= max(edge, config.hop - 1):
        raise MetricError(
            f"log_mel: {wave.shape[-1]} samples are too few, at least {max(edge + 1, config.hop)} are needed"
        )
    window, bank = torch.hann_window(config.n_fft, device=wave.device), mel_bank(config).to(wave.device)
    with torch.autocast(wave.device.type, enabled=False):  # always float32
        padded = F.pad(wave.float().clamp(-1, 1)[:, None], (edge, edge), mode="reflect")[:, 0]
        spectrum = torch.stft(padded, config.n_fft, config.hop, window=window, center=False, return_complex=True)
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + MAGNITUDE_EPS)
        mel = (bank @ magnitude).clamp(min=FLOOR)
        return torch.log10(mel) if config.log == "10" else torch.log(mel)
