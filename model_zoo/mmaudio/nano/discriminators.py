"""Discriminators of the vocoder's adversarial training: small networks over STFTs of three resolutions.

As in Vocos (Siuzdak 2023, arXiv 2306.00814) and EnCodec (Defossez et al. 2022, arXiv 2210.13438) a discriminator sees
complex spectra; here they are compressed, since impacts are loud for a moment and quiet afterwards. The first layer
takes four bins at once, which makes them cheap enough for a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESOLUTIONS = ((128, 32), (512, 128), (1024, 256))  # FFT and hop, samples
COMPRESSION = 0.3  # exponent of the magnitudes
FLOOR = 1e-5  # of a power, so that silence has a gradient
SLOPE = 0.1  # of the leaky rectifiers


class SpectrumDiscriminator(nn.Module):
    """Pictures of waves -> maps of all layers, the last of which are logits ``(B, 1, bins / 16, frames / 2)``."""

    window: Tensor

    def __init__(self, n_fft: int, hop: int, width: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        channels = (3, width, 2 * width, 3 * width)
        kernels, strides = ((8, 3), (5, 3), (3, 3)), ((4, 1), (2, 2), (2, 1))
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(before, after, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
            )
            for (before, after), kernel, stride in zip(pairwise(channels), kernels, strides, strict=True)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class."""
        maps: list[Tensor] = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            maps.append(x)
        return [*maps, self.last(x)]


def picture(wave: Tensor, window: Tensor, hop: int) -> Tensor:
    """Waves ``(B, T)`` -> real and imaginary part of the compressed spectrum and its magnitude, ``(B, 3, bins, n)``."""
    spectrum = torch.stft(wave, len(window), hop, window=window, center=True, return_complex=True)
    spectrum = spectrum / window.square().sum().sqrt()
    power = spectrum.real.square() + spectrum.imag.square() + FLOOR**2
    scale = power ** ((COMPRESSION - 1) / 2)
    parts = torch.stack([spectrum.real * scale, spectrum.imag * scale, scale * power.sqrt()], dim=1)
    return parts.contiguous(memory_format=torch.channels_last)


class Discriminators(nn.Module):
    """One discriminator per resolution."""

    def __init__(self, width: int, resolutions: Sequence[tuple[int, int]] = RESOLUTIONS) -> None:
        super().__init__()
        self.parts = nn.ModuleList(SpectrumDiscriminator(n_fft, hop, width) for n_fft, hop in resolutions)

    def pictures(self, wave: Tensor) -> list[Tensor]:
        """What each discriminator sees of waves ``(B, T)``."""
        return [picture(wave, part.window, part.hop) for part in self._own()]

    def forward(self, pictures: list[Tensor]) -> list[list[Tensor]]:
        """The maps of each discriminator."""
        return [part(seen) for part, seen in zip(self.parts, pictures, strict=True)]

    def _own(self) -> Iterator[SpectrumDiscriminator]:
        for part in self.parts:
            assert isinstance(part, SpectrumDiscriminator)
            yield part


def feature_loss(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of the maps below the logits, relative to the mean size of the real, detached ones."""
    terms = [
        (a - b).abs().mean() / (b.abs().mean() + 1e-3)
        for ours, theirs in zip(fake, real, strict=True)
        for a, b in zip(ours[:-1], theirs[:-1], strict=True)
    ]
    return torch.stack(terms).mean()
