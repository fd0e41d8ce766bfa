"""Errors of log-mels that count loud cells more: attacks are loud, short and few, and come out too weak otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

LOUD = -2.5  # decimal logarithm of the magnitude at which a cell weighs as much again as without loudness
GROWTH = 0.75  # decades of weight per decade of magnitude


def loudness(mel: Tensor) -> Tensor:
    """Additional weight of the cells of a decimal log-mel, same shape: 1 at ``LOUD``, growing with the level."""
    return torch.pow(10.0, GROWTH * (mel - LOUD))


def loud_error(decoded: Tensor, mel: Tensor, weight: float = 1.0) -> Tensor:
    """Absolute errors of cells, those of loud cells enlarged, same shape as the mels."""
    return (decoded - mel).abs() * (1 + weight * loudness(mel))
