"""VGGish, behind FD-VGG (Hershey et al., ICASSP 2017, arXiv 1609.09430)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from av_bench.contracts import Decoded, Flavour, MediaError, Reason, shortfall
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor
from av_bench.networks.packages import model_file, uninitialised
from av_bench.weights.fill import Weights, load_into, read

RATE = 16_000


class Vggish(BaseExtractor):
    """16 kHz mono -> one embedding of 128 per 0.96 s: the last linear layer, before its ReLU, no PCA."""

    name = "vggish"
    weights_name = "vggish"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, patches, 128); 8 patches for 8 s"}
    batch_size = 16

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> Vggish:
        """Weights: the official flat file of 18 tensors. Both flavours are the same."""
        checkpoint = read(weights, "vggish")
        package = model_file("torchvggish.torchvggish")
        with uninitialised():
            network = package.VGG(package.make_layers(), postprocess=False)
        digest = load_into(network, checkpoint)
        network.embeddings = network.embeddings[:-1]  # the published feature is not rectified
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(samples,)``: the first ``seconds``. MediaError below 0.975 s, the length of one patch."""
        wave = item.waveform(RATE, seconds)
        if len(wave) < frontends.VGGISH_MINIMUM:
            detail = f"{shortfall(len(wave), frontends.VGGISH_MINIMUM, RATE)}; VGGish needs 0.975 s"
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, detail)
        return wave

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, samples)`` -> embedding ``(B, patches, 128)``."""
        assert self.module is not None
        examples = frontends.vggish_examples(batch)
        embedding = self.module(examples.flatten(0, 1)[:, None])
        return {"embedding": embedding.view(*examples.shape[:2], -1)}
