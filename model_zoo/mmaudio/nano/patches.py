"""The autoencoder of the second generation: a linear map of patches of log-mel, and a network that corrects its result.

A latent frame holds the first principal components of four mel frames. They are found in seconds, they do not compress
loud frames as normalised networks do, and each latent channel is uncorrelated with the others. All components share one
scale, so that each keeps its share of the variance: scaled to equal variance they would count alike in the flow
network's loss, although the first ones carry most of the sound. What the linear map back leaves out, the decoder's
network adds as far as it can be told from the components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.vae import Posterior
from model_zoo.mmaudio.nano.vocoder import ConvNeXt

SPREAD = 0.5  # standard deviation over all latents
DEVIATION = 0.05  # of the posterior


@dataclass(frozen=True)
class PatchConfig:
    """Mel frames per latent, components kept, and the decoder's channels, channels inside a block and blocks."""

    stride: int = 4
    latents: int = 48
    width: int = 128
    inner: int = 256
    blocks: int = 3

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise UsageError(f"patches: all sizes must be positive, got {self}")


class PatchDecoder(nn.Module):
    """Latents ``(B, C, N)`` -> normalised log-mel ``(B, n_mels, stride N)``."""

    def __init__(self, config: PatchConfig, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.linear = nn.Linear(config.latents, config.stride * n_mels, bias=False)
        self.enter = nn.Conv1d(n_mels, config.width, 7, padding=3)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.width, config.inner, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.leave = nn.Conv1d(config.width, n_mels, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, latent: Tensor) -> Tensor:
        """See the class. An untrained decoder is the linear map."""
        patches: Tensor = self.linear(latent.transpose(1, 2))
        mel = patches.reshape(len(patches), -1, self.n_mels).transpose(1, 2)
        x = self.enter(mel)
        for block in self.blocks:
            x = block(x)
        out: Tensor = mel + self.leave(x)
        return out


class Patches(nn.Module):
    """Log-mel to latents and back, as ``VAE`` does it; the statistics of the mel per band are part of the weights."""

    data_mean: Tensor
    data_std: Tensor

    def __init__(self, config: PatchConfig, n_mels: int) -> None:
        super().__init__()
        if config.latents > config.stride * n_mels:
            raise UsageError(f"patches: {config.latents} components of {config.stride * n_mels} values")
        self.config, self.n_mels = config, n_mels
        self.register_buffer("data_mean", torch.zeros(1, n_mels, 1))
        self.register_buffer("data_std", torch.ones(1, n_mels, 1))
        self.encoder = nn.Linear(config.stride * n_mels, config.latents, bias=False)
        self.decoder = PatchDecoder(config, n_mels)

    def encode(self, mel: Tensor) -> Posterior:
        """Log-mel ``(B, n_mels, L)`` -> posterior with ``L / stride`` frames. UsageError for other shapes."""
        stride = self.config.stride
        if mel.ndim != 3 or mel.shape[1] != self.n_mels or not mel.shape[2] or mel.shape[2] % stride:
            wanted = f"(B, {self.n_mels}, a multiple of {stride})"
            raise UsageError(f"patches: expected a mel {wanted}, got {tuple(mel.shape)}")
        mean = self.encoder(self._cut(mel)).float().transpose(1, 2)
        return Posterior(mean, torch.full_like(mean, DEVIATION).log() * 2)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(B, C, N)`` -> log-mel ``(B, n_mels, stride N)``."""
        out: Tensor = self.decoder(latent).float() * self.data_std + self.data_mean
        return out

    def _cut(self, mel: Tensor) -> Tensor:
        """Normalised patches ``(B, L / stride, stride n_mels)``, frame after frame."""
        x = ((mel - self.data_mean) / self.data_std).transpose(1, 2)
        return x.reshape(len(x), -1, self.config.stride * self.n_mels)

    @torch.no_grad()
    def fit(self, mels: Iterable[Tensor]) -> float:
        """Find statistics and components from log-mels ``(n, n_mels, L)``; returns the share of the variance that the
        components hold. The decoder's network stays as it is.

        UsageError for a band that never changes, or too few patches for components of that size.
        """
        parts = [mel.cpu() for mel in mels]
        size, patches = (
            self.config.stride * self.n_mels,
            sum(part[:, 0].numel() for part in parts) // self.config.stride,
        )
        if patches < 2 * size:
            raise UsageError(
                f"patches: {patches} patches are too few for components of {size} values; bring more sound"
            )
        frames = patches * self.config.stride
        mean = torch.stack([part.double().sum((0, 2)) for part in parts]).sum(dim=0) / frames
        squares = torch.stack([(part.double() - mean[:, None]).square().sum((0, 2)) for part in parts])
        std = (squares.sum(dim=0) / frames).sqrt()
        if bool((std < 1e-4).any()):
            raise UsageError(f"patches: band {int((std < 1e-4).nonzero()[0])} never changes; is the data silent?")
        self.data_mean.copy_(mean[None, :, None])
        self.data_std.copy_(std[None, :, None])
        moments = torch.zeros(size, size, dtype=torch.float64)
        for part in parts:
            rows = self._cut(part.to(self.data_mean.device)).flatten(0, 1).double().cpu()
            moments += rows.T @ rows
        values, vectors = torch.linalg.eigh(moments / patches)
        largest, kept = values[-self.config.latents :].flip(0), vectors[:, -self.config.latents :].flip(1)
        scale = largest.mean().sqrt() / SPREAD
        self.encoder.weight.copy_((kept / scale).T)
        self.decoder.linear.weight.copy_(kept * scale)
        return float(largest.sum() / values.sum())
