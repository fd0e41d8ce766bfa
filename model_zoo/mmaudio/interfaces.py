"""What sampling and feature extraction ask of a codec and of a conditioner."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from av_bench.contracts import Decoded, VideoRequest


class Codec(Protocol):
    """Between waves and latents. ``latent_len`` covers the seconds; ``decode`` gives at least as many samples."""

    sample_rate: int
    latent_dim: int

    def latent_len(self, seconds: float) -> int:
        """Latent frames of a clip."""

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Waves ``(B, T)`` -> mean and deviation ``(B, N, C)``."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(B, N, C)``, not normalised -> waves ``(B, T)``."""

    def to(self, device: torch.device) -> object:
        """Move the networks."""


class Conditioner(Protocol):
    """Between media and condition tokens. ``requests`` are the frames it wants from the decoder."""

    requests: tuple[VideoRequest, ...]
    fingerprint: str
    device: torch.device

    @property
    def precision(self) -> str:
        """What the networks compute in: "fp32" or "bf16"."""

    def lengths(self, seconds: float) -> tuple[int, int]:
        """Tokens of the clip and of the sync sequence."""

    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        """Clip tokens ``(Lc, Dc)`` and sync tokens ``(Ls, Ds)`` of a stretch; MediaError when it is not filled."""

    def text(self, text: str) -> Tensor:
        """Text tokens ``(Lt, Dt)``."""

    def to(self, device: torch.device) -> object:
        """Move the networks."""
