"""Rotary positions (RoFormer, arXiv 2104.09864) with a frequency scale, so that streams of different rates align.

Adjacent channels (2i, 2i + 1) form a pair that turns by ``position * scale * theta ** (-2i / d)`` (MMAudio, 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0


def rotations(length: int, dim: int, scale: float = 1.0) -> Tensor:
    """float32 ``(1, length, dim / 2, 2, 2)``: one rotation matrix per position and channel pair."""
    frequencies = scale * THETA ** (-torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies)
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([cosine, -sine, sine, cosine], dim=-1).view(1, length, dim // 2, 2, 2)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn ``(B, heads, length, dim)`` by ``rotations``; computed in float32, returned in x's type."""
    first, second = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    (a, b), (c, d) = (row.unbind(-1) for row in rotation[:, None].unbind(-2))
    turned = torch.stack([a * first + b * second, c * first + d * second], dim=-1)
    return turned.flatten(-2).to(x.dtype)
