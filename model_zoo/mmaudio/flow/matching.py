"""Conditional flow matching along straight lines (Lipman et al., arXiv 2210.02747; MMAudio, section 3.1 and eq. 1, 2).

Noise sits at t = 0, data at t = 1, ``x_t = (1 - t) x0 + t x1``; the network predicts the velocity ``x1 - x0``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from av_bench.contracts import clip_seed


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The state at ``t`` (B,) between noise ``x0`` and data ``x1``, both ``(B, N, C)``."""
    at = t[:, None, None]
    return (1 - at) * x0 + at * x1


def target(x0: Tensor, x1: Tensor) -> Tensor:
    """The velocity, the same everywhere on the line."""
    return x1 - x0


def loss_per_sample(velocity: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over frames and channels, ``(B,)``."""
    return (velocity - wanted).square().mean(dim=(1, 2))


def noise(shape: tuple[int, ...], seed: int, clip_id: str, sample: int = 0) -> Tensor:
    """float32 noise of one sample, drawn on the CPU from (seed, clip id, k) alone."""
    generator = torch.Generator().manual_seed(clip_seed(seed, clip_id, sample))
    return torch.randn(shape, generator=generator)
