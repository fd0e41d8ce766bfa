"""Onset detections as an extractor, so that they are computed once and kept in the store like any feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from av_bench.contracts import Decoded, Flavour
from av_bench.extractors.base import BaseExtractor
from av_bench.weights.fill import Weights

SAMPLE_RATE = 22050


class Onsets(BaseExtractor):
    """Detected onsets (seconds, confidence, loudness; see ``metrics.onset``) of the first ``seconds`` of the mono mix.

    The published script resamples with soxr inside the detector, so audio is handed over at its own rate.
    """

    name = "onsets"
    outputs: ClassVar[Mapping[str, str]] = {"detections": "(k, 3): seconds, confidence, loudness"}
    flavour_matters = True
    small = True

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Onsets:
        """There is nothing to load."""
        del weights, device
        return cls(None, "none", "cpu", flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(samples + 1,)``: the sample rate, then the mono mix at that rate."""
        audio = item.waveform(item.sample_rate, seconds, remove_mean=False)
        return torch.cat([torch.tensor([float(item.sample_rate)]), audio])

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(1, samples + 1)`` -> detections ``(1, k, 3)`` in float64, whose edge cases are exact; on the CPU."""
        from av_bench.metrics import detect_with_loudness

        (item,) = batch
        heard = detect_with_loudness(item[1:].numpy(), int(item[0]), self.flavour)
        return {"detections": torch.from_numpy(np.stack(heard, axis=1).astype(np.float64))[None]}
