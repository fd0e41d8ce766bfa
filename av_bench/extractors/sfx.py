"""aiSFX, behind FD-sfx, KL-sfx and IS-sfx: sound-effect classes of real recordings (``av_bench.networks.sfx``).

The front end is the one the network was trained with, computed by Essentia in the authors' package: level is kept, so
these columns see gain. (The package's librosa front end, offered for convenience, divides by the peak and has bands
and frames the wrong way round for its own blocking; it is not used.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from av_bench.contracts import Decoded, Flavour
from av_bench.extractors.base import BaseExtractor
from av_bench.extractors.frontends import hann, mel_bank
from av_bench.networks.sfx import BANDS, CLASSES, FRAMES, WIDTHS, SfxNet
from av_bench.weights.fill import Weights, load_into, read

RATE, N_FFT, HOP = 44_100, 2048, 1024
STEP = FRAMES // 2  # frames between windows
LARGEST = 9.457798957824707  # the largest value of the authors' training spectrograms, to which they scale


class Sfx(BaseExtractor):
    """44.1 kHz mono -> embeddings of windows of 2.3 s, and one class distribution per clip."""

    name = "sfx"
    weights_name = "sfx"
    shortest = 2.3
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, windows, 512)", "logits": "(B, 78)"}
    small = True
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Weights: the converted file of `av-bench weights pull sfx`. Both flavours are the same."""
        network = SfxNet()
        digest = load_into(network, read(weights, "sfx"), ignore=r"fc\.[1-8]\.")
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> Tensor:
        """``(samples,)`` at 44.1 kHz, without mean removal."""
        return item.waveform(RATE, seconds, remove_mean=False)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, samples)`` -> embedding of each window; logits whose softmax is the windows' mean probability."""
        assert self.module is not None
        windows = windows_of(sfx_mel(batch))
        count = windows.shape[1]
        embedding, logits = self.module(windows.flatten(0, 1))
        per_window = torch.log_softmax(logits, dim=-1).view(-1, count, CLASSES)
        return {"embedding": embedding.view(-1, count, WIDTHS[-1]), "logits": per_window.logsumexp(dim=1)}


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    """96 HTK mel triangles 0-22050 Hz, straight over mel, each with weights that sum to 1."""
    bank = mel_bank(RATE, N_FFT, BANDS, 0.0, RATE / 2, straight_over="mel").double()
    return (bank / bank.sum(dim=1, keepdim=True)).float()


def sfx_mel(wave: Tensor) -> Tensor:
    """``(B, samples)`` -> ``(B, 1 + ceil(samples / 1024), 96)``: log10(1 + 10000 power) over its largest value.

    Frames are centred on multiples of the hop, with zeros outside the signal; symmetric Hann window; samples beyond
    full scale are clipped, as Essentia's loader does.
    """
    samples = wave.shape[-1]
    frames = 1 + -(-samples // HOP)
    padded = pad(wave.clamp(-1.0, 1.0), (HOP, frames * HOP + HOP - samples))
    cut = padded.unfold(-1, N_FFT, HOP)[:, :frames] * hann(N_FFT, periodic=False).to(wave.device)
    spectrum = torch.fft.rfft(cut)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.log10(1e4 * (power @ _bank().to(wave.device).T) + 1) / LARGEST


def windows_of(mel: Tensor) -> Tensor:
    """``(B, T, 96)`` -> ``(B, windows, 100, 96)`` every 50 frames; an incomplete last window is dropped.

    Fewer than 100 frames are filled up with silence to one window.
    """
    mel = pad(mel, (0, 0, 0, max(0, FRAMES - mel.shape[1])))
    return mel.unfold(1, FRAMES, STEP).transpose(2, 3)
