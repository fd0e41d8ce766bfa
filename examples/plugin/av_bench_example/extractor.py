"""The extractor: from audio to its spectral centroid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from av_bench.contracts import Decoded, Extractor, Flavour, MediaError, Reason
from av_bench.weights.fill import Weights

RATE, WINDOW = 16_000, 512


class SpectralCentroid(Extractor):
    """Mean and spread of the spectral centroid of the mono mix, in kHz."""

    name = "example-centroid"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 2): mean and standard deviation over frames, kHz"}
    front_end_version = 1  # raise it whenever the numbers change: stored features of before are then not used again

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Nothing is loaded; an extractor with weights also writes ``weights_hash_of``."""
        return cls(None, cls.weights_hash_of(weights), device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(samples,)`` at 16 kHz. MediaError leaves the clip out, with its reason, instead of guessing."""
        wave = item.waveform(RATE, seconds)
        if len(wave) < WINDOW:
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, f"{len(wave)} samples, {WINDOW} are needed")
        return wave

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, samples)`` -> the declared outputs."""
        window = torch.hann_window(WINDOW, device=batch.device)
        power = torch.stft(batch, WINDOW, window=window, return_complex=True).abs().square()  # (B, bins, frames)
        khz = torch.linspace(0.0, RATE / 2000, power.shape[1], device=batch.device)
        centroid = (power * khz[:, None]).sum(dim=1) / power.sum(dim=1).clamp(min=1e-12)
        return {"embedding": torch.stack([centroid.mean(dim=1), centroid.std(dim=1)], dim=1)}
