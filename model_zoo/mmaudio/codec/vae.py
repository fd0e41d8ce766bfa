"""MMAudio's VAE: 1-D over time with mel bins as channels, built from magnitude-preserving layers.

The design follows Make-An-Audio 2's convolutional autoencoder with one halving of the frame rate (paper, appendix F);
convolution, activation, sum and normalisation are the magnitude-preserving ones of EDM2. Parameter names are those of
the published files, whose convolution weights are raw: a layer normalises its weight whenever it is used, and
``VAE.fuse`` does so once for inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.magnitude import Downsample, Middle, MPConv1d, ResBlock, Upsample, mp_silu


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of a VAE: ``data_dim`` mel bins in, ``embed_dim`` latent channels, ``hidden`` channels at the top level.

    Level i has ``hidden * ch_mult[i]`` channels and ``num_res_blocks`` blocks (one more in the decoder); the frame
    rate halves after each level of ``down_levels``. Kernel sizes are odd.
    """

    data_dim: int
    embed_dim: int
    hidden: int
    ch_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    down_levels: tuple[int, ...] = (0,)
    kernel_size: int = 3

    def __post_init__(self) -> None:
        sizes = (self.data_dim, self.embed_dim, self.hidden, self.num_res_blocks, *self.ch_mult)
        if not self.ch_mult or min(sizes) < 1 or self.kernel_size % 2 == 0:
            raise UsageError(f"VAE: sizes must be positive and the kernel size odd, got {self}")
        if any(not 0 <= level < len(self.ch_mult) - 1 for level in self.down_levels):
            raise UsageError(f"VAE: down_levels {self.down_levels} must be from 0 to {len(self.ch_mult) - 2}")

    @property
    def stride(self) -> int:
        """Mel frames per latent frame."""
        return 1 << len(self.down_levels)


VAES = {
    "16k": VAEConfig(data_dim=80, embed_dim=20, hidden=384),
    "44k": VAEConfig(data_dim=128, embed_dim=40, hidden=512),
}
"""The two VAEs of the paper (appendix F): 171,657,218 and 305,479,682 parameters."""


def _level(channels: list[int], kernel_size: int, **resampling: nn.Module) -> nn.ModuleDict:
    blocks = nn.ModuleList(ResBlock(before, after, kernel_size) for before, after in pairwise(channels))
    return nn.ModuleDict({"block": blocks, **resampling})


class Encoder(nn.Module):
    """Normalised mel ``(B, data_dim, L)`` -> moments ``(B, 2 embed_dim, L / stride)``."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width, kernel = [config.hidden * m for m in config.ch_mult], config.kernel_size
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = MPConv1d(config.data_dim, config.hidden, kernel)
        self.down = nn.ModuleList()
        for level, (before, after) in enumerate(zip([config.hidden, *width[:-1]], width, strict=True)):
            extra = {"downsample": Downsample(after)} if level in config.down_levels else {}
            self.down.append(_level([before] + [after] * config.num_res_blocks, kernel, **extra))
        self.mid = Middle(width[-1], kernel)
        self.conv_out = MPConv1d(width[-1], 2 * config.embed_dim, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Levels from top to bottom, the middle, the moments."""
        x = self.conv_in(x)
        for level in self.down:
            x = _run(level, x, "downsample")
        out: Tensor = self.conv_out(mp_silu(self.mid(x)), gain=1 + self.learnable_gain)
        return out


class Decoder(nn.Module):
    """Latent ``(B, embed_dim, N)`` -> normalised mel ``(B, data_dim, N * stride)``."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width, kernel = [config.hidden * m for m in config.ch_mult], config.kernel_size
        self.learnable_gain = nn.Parameter(torch.zeros(()))
        self.conv_in = MPConv1d(config.embed_dim, width[-1], kernel)
        self.mid = Middle(width[-1], kernel)
        self.up = nn.ModuleList()
        for level, (before, after) in enumerate(zip([*width[1:], width[-1]], width, strict=True)):
            extra = {"upsample": Upsample(after, kernel)} if level - 1 in config.down_levels else {}
            self.up.append(_level([before] + [after] * (config.num_res_blocks + 1), kernel, **extra))
        self.conv_out = MPConv1d(width[0], config.data_dim, kernel)

    def forward(self, z: Tensor) -> Tensor:
        """The middle, levels from bottom to top, the mel."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = _run(level, x, "upsample")
        out: Tensor = self.conv_out(mp_silu(x), gain=1 + self.learnable_gain)
        return out


def _run(level: Any, x: Tensor, resampling: str) -> Tensor:  # noqa: ANN401 - modules by name have no type
    for block in level["block"]:
        x = block(x)
    return level[resampling](x) if resampling in level else x


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian of the latent: ``mean`` and ``logvar``, each ``(B, embed_dim, N)``."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """``mean + std * noise``; the caller draws the noise."""
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """Divergence from N(0, 1) in nats, summed over channels and frames, ``(B,)``."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).sum((1, 2))


class VAE(nn.Module):
    """Log-mel to latent and back; the statistics of the mel per bin are part of the weights."""

    data_mean: Tensor
    data_std: Tensor

    def __init__(self, config: VAEConfig, data_mean: Tensor | None = None, data_std: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        for name, value in (("data_mean", data_mean), ("data_std", data_std)):
            if value is None:
                value = torch.full((config.data_dim,), math.nan)  # must come with the weights
            self.register_buffer(name, value.detach().float().reshape(1, config.data_dim, 1))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.fused = False

    def encode(self, mel: Tensor) -> Posterior:
        """Log-mel ``(B, data_dim, L)`` -> posterior with ``L / stride`` frames. UsageError for other shapes."""
        bins, stride = self.config.data_dim, self.config.stride
        if mel.ndim != 3 or mel.shape[1] != bins or not mel.shape[2] or mel.shape[2] % stride:
            wanted = f"(B, {bins}, a multiple of {stride})"
            raise UsageError(f"VAE: expected a mel {wanted}, got {tuple(mel.shape)}")
        mean, logvar = self.encoder((mel - self.data_mean) / self.data_std).float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, z: Tensor) -> Tensor:
        """Latent ``(B, embed_dim, N)`` -> log-mel ``(B, data_dim, N * stride)``."""
        out: Tensor = self.decoder(z).float() * self.data_std + self.data_mean
        return out

    def fuse(self) -> Self:
        """Store the normalised weights for inference: same output, less work. Such a network is not for training."""
        if not self.fused:
            self.eval().requires_grad_(False)
            for module in self.modules():
                if isinstance(module, MPConv1d):
                    module.weight.data = module.unit_weight()  # not in place: the caller may own the raw tensor
                    module.fused = True
            self.fused = True
        return self

    def train(self, mode: bool = True) -> Self:
        """Training mode; UsageError after ``fuse``, which lost the raw weights."""
        if mode and self.fused:
            raise UsageError("VAE: fused for inference; build it again and load the raw weights to train")
        return super().train(mode)
