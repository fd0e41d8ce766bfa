"""PANNs Cnn14 at 16 kHz, behind FD-PANNs, KL-PANNs and IS (Kong et al., TASLP 2020, arXiv 1912.10211)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from av_bench.contracts import Decoded, Flavour, MediaError, Reason, shortfall
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor
from av_bench.networks.packages import model_file, quiet, uninitialised
from av_bench.weights.fill import Weights, check_stored, load_into, read

RATE, N_FFT, HOP, LOW, HIGH = 16_000, 512, 160, 50.0, 8000.0
MINIMUM = 31 * HOP  # samples: five halvings of the time axis need 32 frames


class Panns(BaseExtractor):
    """16 kHz mono -> embedding (2048, after ReLU) and AudioSet logits (527, before the sigmoid)."""

    name = "panns"
    weights_name = "panns"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 2048)", "logits": "(B, 527)"}
    batch_size = 16

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> Panns:
        """Weights: the official file of 84 tensors under "model". Both flavours are the same.

        The file carries its STFT and mel matrices; the mel matrix is compared with the one computed here, and
        ``frontends.decibel_mel`` (an FFT instead of a convolution) takes the place of both.
        """
        checkpoint = read(weights, "panns")
        package = model_file("panns_inference.models", without=("torchlibrosa", "matplotlib"))
        with quiet(), uninitialised():
            network = package.Cnn14(RATE, N_FFT, HOP, 64, LOW, HIGH, 527)
        digest = load_into(network, checkpoint, ignore=frontends.STORED_FRONT_END)
        bank = frontends.mel_bank(RATE, N_FFT, 64, LOW, HIGH, scale="slaney", unit_area=True)
        check_stored(checkpoint, "logmel_extractor.melW", bank.T)
        network.spectrogram_extractor, network.logmel_extractor = nn.Identity(), nn.Identity()
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(samples,)``: the first ``seconds``, not padded. MediaError below 0.31 s."""
        wave = item.waveform(RATE, seconds)
        if len(wave) < MINIMUM:
            detail = f"{shortfall(len(wave), MINIMUM, RATE)}; PANNs needs 0.31 s"
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, detail)
        return wave

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, samples)`` -> embedding and logits."""
        assert self.module is not None
        mel = frontends.decibel_mel(batch, RATE, N_FFT, HOP, LOW, HIGH)
        embedding = self.module(mel[:, None])["embedding"]
        # The network returns only the sigmoid of its logits; they are one layer away from the embedding.
        return {"embedding": embedding, "logits": self.module.get_submodule("fc_audioset")(embedding)}
