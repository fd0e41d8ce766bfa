"""Extractors of the embedded networks (``av_bench.networks.nano``): weights ship with the package.

They were trained on set ``impacts`` only. Input is the mono mix at 16 kHz, without mean removal, cut to 8 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from av_bench.contracts import Decoded, Flavour, MissingRequirement, Modality, VideoRequest
from av_bench.extractors.base import BaseExtractor, BasePairExtractor
from av_bench.networks import nano
from av_bench.weights.fill import Weights, fill, read, weights_hash

WEIGHTS = Path(nano.__file__).parent / "weights"
SECONDS = 8.0


def _file(name: str) -> Path:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise MissingRequirement(
            f"{path} is missing from the installation; train it again with `av-bench train {name}`"
        )
    return path


def _load(module: nn.Module, weights: Weights, name: str, prefix: str) -> tuple[nn.Module, str]:
    """Fill ``module`` with the tensors below ``prefix`` of the network file; strict."""
    state = read(_file(name) if weights is None else weights, name).below(prefix)
    fill(module, state.tensors, state.source, copy=True)
    return module, nano_hash(weights, name)


def nano_hash(weights: Weights, name: str) -> str:
    """sha256 of embedded or given weights."""
    if weights is None:
        return hashlib.sha256(_file(name).read_bytes()).hexdigest()
    return weights_hash(weights, name)


class _Nano(BaseExtractor):
    """Shared: which file, which part of it."""

    file: ClassVar[str]
    prefix: ClassVar[str] = ""
    network: ClassVar[type[nn.Module]]
    shortest = SECONDS
    small = True
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Build and load; the flavour changes nothing."""
        module, digest = _load(cls.network(), weights, cls.file, cls.prefix)
        return cls(module, digest, device, flavour)

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the file, without building."""
        return nano_hash(weights, cls.file)

    def prepare(self, item: Any, seconds: float) -> torch.Tensor:  # noqa: ANN401 - a subclass narrows it
        """Mono 16 kHz ``(128000,)``."""
        self.check_seconds(seconds)
        decoded: Decoded = item
        return decoded.waveform(nano.SAMPLE_RATE, SECONDS, remove_mean=False)

    def run_network(self, batch: torch.Tensor) -> torch.Tensor:
        """The module on a batch."""
        assert self.module is not None
        found: torch.Tensor = self.module(batch)
        return found


class NanoTagger(_Nano):
    """Sound classes of `impacts` (nano): embedding and logits of FD-nano, KL-nano, IS-nano."""

    name = "nano-tagger"
    file = "nano-tagger"
    network = nano.Tagger
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 64)", "logits": "(B, 24)"}

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, 128000)`` -> embedding, logits."""
        assert self.module is not None
        embedding, logits = self.module(batch)
        return {"embedding": embedding, "logits": logits}


class NanoBindAudio(_Nano):
    """Audio tower of Bind-nano."""

    name = "nano-bind-audio"
    file = "nano-bind"
    prefix = "audio."
    network = nano.AudioTower
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 64)"}

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, 128000)`` -> embedding."""
        return {"embedding": self.run_network(batch)}


class NanoBindVideo(_Nano):
    """Video tower of Bind-nano: 2 frames per second, 64 x 64."""

    name = "nano-bind-video"
    file = "nano-bind"
    prefix = "video."
    network = nano.VideoTower
    modality: ClassVar[Modality] = "video"
    video_request = VideoRequest(2.0, 64, "center")
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 64)"}

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """uint8 ``(16, 3, 64, 64)``."""
        self.check_seconds(seconds)
        return item.frames(self.video_request)[: int(2 * SECONDS)]

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 frames -> embedding."""
        return {"embedding": self.run_network(batch.float() / 255.0)}


class NanoBindText(_Nano):
    """Text tower of Bind-nano: hashed words."""

    name = "nano-bind-text"
    file = "nano-bind"
    prefix = "text."
    network = nano.TextTower
    shortest = 0.0
    modality: ClassVar[Modality] = "text"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 64)"}

    def prepare(self, item: str, seconds: float) -> torch.Tensor:
        """Word ids ``(32,)``."""
        del seconds
        return nano.hashed_words(item)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Word ids -> embedding."""
        return {"embedding": self.run_network(batch)}


class NanoSyncAudio(_Nano):
    """Audio tower of DeSync-nano."""

    name = "nano-sync-audio"
    file = "nano-sync"
    prefix = "audio."
    network = nano.SyncAudio
    outputs: ClassVar[Mapping[str, str]] = {"tokens": "(B, 200, 64)"}

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, 128000)`` -> tokens."""
        return {"tokens": self.run_network(batch)}


class NanoSyncVideo(_Nano):
    """Video tower of DeSync-nano: 25 frames per second, 48 x 48, grey."""

    name = "nano-sync-video"
    file = "nano-sync"
    prefix = "video."
    network = nano.SyncVideo
    modality: ClassVar[Modality] = "video"
    video_request = VideoRequest(25.0, 48, "center")
    outputs: ClassVar[Mapping[str, str]] = {"tokens": "(B, 200, 64)"}

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """uint8 grey ``(200, 48, 48)``."""
        self.check_seconds(seconds)
        return nano.grey(item.frames(self.video_request)[: int(nano.FRAME_RATE * SECONDS)])

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 grey frames -> tokens."""
        return {"tokens": self.run_network(batch.float() / 255.0)}


class NanoSync(BasePairExtractor):
    """Offset head of DeSync-nano: 21 classes from -2 to 2 s, first and last 4.8 s."""

    name = "nano-sync"
    video = "nano-sync-video"
    audio = "nano-sync-audio"
    small = True
    outputs: ClassVar[Mapping[str, str]] = {"logits": "(B, 2, 21)"}

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Build and load."""
        del flavour
        module, digest = _load(nano.SyncHead(), weights, cls.name, "head.")
        return cls(module, digest, device)

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the file, without building."""
        return nano_hash(weights, cls.name)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tokens ``(B, 200, 64)`` twice -> logits ``(B, 2, 21)``."""
        crops = [self.module(v, a) for v, a in zip(nano.two_crops(video), nano.two_crops(audio), strict=True)]
        return {"logits": torch.stack(crops, dim=1)}
