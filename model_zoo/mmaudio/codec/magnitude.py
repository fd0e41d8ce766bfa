"""Magnitude-preserving layers of EDM2 in one dimension (Karras et al. 2024, arXiv 2312.02696), as the VAE uses them.

Activations are ``(B, C, L)``. A convolution has no bias and filters of unit norm; sums and activations are scaled so
that uncorrelated unit-variance input gives unit-variance output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_SHARE = 0.3  # weight of the new branch in a magnitude-preserving sum
SILU_GAIN = 0.596  # root mean square of silu(x) for x ~ N(0, 1)
ACTIVATION_LIMIT = 256.0
EPS = 1e-4


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scale to a root mean square of 1 over ``dims``, computed in float32."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    norm = EPS + norm / math.sqrt(math.prod(x.shape[dim] for dim in dims))
    return x / norm.to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU that keeps the magnitude of unit-variance input (EDM2, equation 81)."""
    return F.silu(x) / SILU_GAIN


def mp_sum(a: Tensor, b: Tensor, t: float = RESIDUAL_SHARE) -> Tensor:
    """``(1 - t) a + t b``, scaled to keep the magnitude of uncorrelated inputs (EDM2, equation 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


class MPConv1d(nn.Module):
    """Convolution without bias whose filters have unit norm (EDM2, equation 66); ``(B, C, L)`` in and out.

    In training mode the stored weight itself is set to its normalised form before use (forced weight normalisation).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size))
        self.fused = False

    def unit_weight(self) -> Tensor:
        """The weight with filters of unit norm: the stored one divided by its norm."""
        return normalize(self.weight.float(), (1, 2)) / math.sqrt(self.weight[0].numel())

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Convolve with padding that keeps the length; ``gain`` multiplies the output."""
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight, (1, 2)))
        weight = self.weight if self.fused else self.unit_weight()
        return F.conv1d(x, (weight * gain).to(x.dtype), padding=self.weight.shape[-1] // 2)


class ResBlock(nn.Module):
    """Pixel norm, then two activated convolutions beside the (normalised) input; ``(B, C, L)`` -> ``(B, C', L)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv1 = MPConv1d(in_channels, out_channels, kernel_size)
        self.conv2 = MPConv1d(out_channels, out_channels, kernel_size)
        self.nin_shortcut = MPConv1d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """The block; its output is cut at +-256."""
        x = normalize(x, (1,))
        branch = self.conv2(mp_silu(self.conv1(mp_silu(x))))
        if self.nin_shortcut is not None:
            x = self.nin_shortcut(x)
        return mp_sum(x, branch).clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class AttnBlock(nn.Module):
    """Single-head self-attention over time with normalised queries, keys and values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = MPConv1d(channels, 3 * channels, 1)
        self.proj_out = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> the same shape. The qkv channels interleave: 3 c + (0, 1, 2) are q, k, v of channel c."""
        batch, channels, length = x.shape
        qkv = normalize(self.qkv(x).view(batch, channels, 3, length), (1,))
        q, k, v = qkv.permute(2, 0, 3, 1)[:, :, None]  # each (B, 1, L, C)
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return mp_sum(x, self.proj_out(attended)).clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class Downsample(nn.Module):
    """Halve the frame rate: 1x1 convolution, mean of pairs, 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MPConv1d(channels, channels, 1)
        self.conv2 = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> ``(B, C, L // 2)``."""
        out: Tensor = self.conv2(F.avg_pool1d(self.conv1(x), 2))
        return out


class Upsample(nn.Module):
    """Double the frame rate: repeat every frame, then convolve."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = MPConv1d(channels, channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> ``(B, C, 2 L)``."""
        out: Tensor = self.conv(x.repeat_interleave(2, dim=-1))
        return out


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest level."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, kernel_size)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResBlock(channels, channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> the same shape."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out
