"""PaSST, the tagger behind FD-PaSST, KL-PaSST and IS-PaSST (Koutini et al., Interspeech 2022, arXiv 2110.05069).

Architecture passt_s_swa_p16_128_ap476 of hear21passt. The published evaluation feeds exactly 10 s: shorter clips are
padded with digital silence, longer ones cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

import torch

from av_bench.contracts import Decoded, Flavour
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor
from av_bench.networks.packages import model_file, quiet, uninitialised
from av_bench.weights.fill import Weights, load_into, read


class Passt(BaseExtractor):
    """32 kHz mono -> embedding (768; mean of class and distillation token) and AudioSet logits (527)."""

    name = "passt"
    weights_name = "passt"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 768)", "logits": "(B, 527)"}
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> Passt:
        """Weights: the official flat file of 159 tensors. Both flavours are the same."""
        checkpoint = read(weights, "passt")
        package = model_file("hear21passt.models.passt", without=("timm",))
        with quiet(), uninitialised(package):
            network = package.get_model("passt_s_swa_p16_128_ap476", pretrained=False)
        package.first_RUN = False  # the package prints every shape of its first forward
        return cls(network, load_into(network, checkpoint), device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(320000,)``: the first ``seconds``, then silence up to 10 s."""
        return frontends.fit(item.waveform(32_000, seconds), frontends.PASST_SAMPLES)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, 320000)`` -> embedding and logits."""
        assert self.module is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1000 frames instead of 998: what the published evaluation does, too
            logits, embedding = self.module(frontends.passt_mel(batch)[:, None])
        return {"embedding": embedding, "logits": logits}
