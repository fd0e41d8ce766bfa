"""MS-CLAP 2023 with HTSAT and GPT-2, behind MS-CLAP (Elizalde et al., ICASSP 2024, arXiv 2309.05767).

The published wrapper reads a file at its own length, lays its channels end to end, and takes a random 7 s of it with
an unseeded generator. Flavour "paper" keeps everything but the dice: it takes the first 7 s, which is one of the
published draws and the only one that never crosses from one channel into the next. Flavour "strict" takes the mono
mix, cut like everything else, in as few evenly spread 7 s windows as cover it, and averages their embeddings. Audio
under 7 s is tiled in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from av_bench.contracts import Decoded, Flavour, MediaError, MissingRequirement, Reason, UsageError
from av_bench.extractors.base import BaseExtractor
from av_bench.extractors.tokens import TokenExtractor
from av_bench.networks.packages import model_file, quiet, uninitialised
from av_bench.weights.fill import Weights, load_into, read

RATE = 44_100
WINDOW = 7 * RATE
POSITIONS = 1024
# The layer's causal masks, which older transformers stored.
UNUSED = r"logit_scale$|caption_encoder\.base\.h\.\d+\.attn\.(masked_)?bias$"


def _package(name: str) -> ModuleType:
    """A model file; the windows and filters that it asks librosa for stand in the weight file."""
    made = {
        "librosa.filters.get_window": lambda _window, length, **_: np.zeros(length),
        "librosa.filters.mel": lambda n_fft, n_mels, **_: np.zeros((n_mels, 1 + n_fft // 2)),
        "librosa.util.pad_center": lambda _window, size: np.zeros(size),
    }
    package: ModuleType = model_file(f"msclap.models.{name}", without=("librosa", "transformers"), names=made)
    return package


def windows(wave: Tensor, count: int) -> Tensor:
    """``(n,)`` -> ``(count, 308700)``: evenly spread starts, the first at 0; shorter audio is tiled."""
    if len(wave) < WINDOW:
        wave = wave.repeat(math.ceil(WINDOW / len(wave)))[:WINDOW]
    starts = [(len(wave) - WINDOW) * i // max(count - 1, 1) for i in range(count)]
    return torch.stack([wave[start : start + WINDOW] for start in starts])


class MsClapAudio(BaseExtractor):
    """44.1 kHz audio -> embedding of 1024 (not normalised, as published)."""

    name = "msclap-audio"
    weights_name = "ms-clap"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 1024)"}
    flavour_matters = True
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> MsClapAudio:
        """Weights: the official file ("model"); the caption encoder is not read.

        STFT and mel matrices are taken from the file: nothing else states them.
        """
        checkpoint = read(weights, "ms-clap")
        package, htsat = _package("clap"), _package("htsat")
        with quiet(), uninitialised(htsat):
            network = nn.Module()
            network.audio_encoder = package.AudioEncoder("HTSAT", 768, 1024, RATE, 1024, 320, 64, 50, 8000, 527)
        return cls(network, load_into(network, checkpoint, ignore=rf"{UNUSED}|caption_encoder\."), device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> Tensor:
        """``(windows, 308700)``; one window in flavour "paper"."""
        if self.flavour == "paper":
            wave, count = item.channels(RATE, None).flatten(), 1
        else:
            wave = item.waveform(RATE, seconds, remove_mean=False)
            count = math.ceil(len(wave) / WINDOW)
        if not len(wave):
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, "no samples")
        return windows(wave, count)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, windows, 308700)`` -> embedding, the mean over windows."""
        assert self.module is not None
        embedding = self.module.get_submodule("audio_encoder")(batch.flatten(0, 1))[0]
        return {"embedding": embedding.view(*batch.shape[:2], -1).mean(dim=1)}


class MsClapText(TokenExtractor):
    """A caption -> embedding of 1024 (not normalised, as published).

    The published wrapper finds the last token by counting ids that are not 0, the padding id; 0 is also "!", so a
    caption with exclamation marks is read too early. Flavour "paper" keeps that, "strict" counts by attention mask.
    """

    name = "msclap-text"
    weights_name = "ms-clap"
    vocabulary = "gpt2"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 1024)"}
    flavour_matters = True

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> MsClapText:
        """Weights: the official file ("model"), which holds GPT-2 as well. Captions also need gpt2's vocabulary."""
        checkpoint = read(weights, "ms-clap")
        package = _package("clap")
        try:
            from transformers import GPT2Config, GPT2Model
        except ImportError as error:
            raise MissingRequirement(f"msclap-text: {error}; pip install 'av-bench[paper]'") from error
        with quiet(), uninitialised():
            network, encoder = nn.Module(), nn.Module()
            encoder.base = GPT2Model(GPT2Config())  # the defaults of the class are gpt2
            encoder.projection = package.Projection(768, 1024)
            network.caption_encoder = encoder
        ignore = rf"{UNUSED}|audio_encoder\."
        extractor = cls(network, load_into(network, checkpoint, ignore=ignore), device, flavour)
        if weights is None:
            extractor.tokenizer()
        return extractor

    def prepare(self, item: str, seconds: float) -> Tensor:
        """int64 ``(2, 77 or more)``: token ids (the caption, then the end-of-text token) and attention mask.

        UsageError for a caption that GPT-2's 1024 positions cannot hold.
        """
        del seconds
        encoded = self.encode(f"{item} <|endoftext|>", cut=False)
        if encoded.shape[1] > POSITIONS:
            raise UsageError(f"msclap-text: {item[:40]!r}... has {encoded.shape[1]} tokens; GPT-2 reads {POSITIONS}")
        return encoded

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, 2, tokens)`` -> embedding."""
        return self.forward_tokens(batch[:, 0], batch[:, 1])

    def forward_tokens(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Token ids and attention mask ``(B, n)`` -> embedding."""
        assert self.module is not None
        encoder = self.module.get_submodule("caption_encoder")
        hidden = encoder.get_submodule("base")(input_ids=ids, attention_mask=mask)[0]
        counted = (ids != 0) if self.flavour == "paper" else mask.bool()
        last = (counted.sum(dim=-1) - 1).clamp(min=0)
        rows = torch.arange(len(ids), device=ids.device)
        return {"embedding": encoder.get_submodule("projection")(hidden[rows, last])}
