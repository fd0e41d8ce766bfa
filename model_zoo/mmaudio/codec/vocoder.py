"""BigVGAN, the vocoder of MMAudio: log-mel in, wave out (Lee et al. 2023, arXiv 2206.04658).

Transposed convolutions raise the rate to the wave's; after each, three residual blocks of dilated convolutions run
side by side and are averaged. Every activation is a snake with its own amplitude, computed at twice the rate between
low-pass filters so that the harmonics it makes do not alias. Parameter names are those of the published files; weight
normalisation, in either spelling of it, is folded into the weights when they are loaded. Inference only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from av_bench.contracts import UsageError
from av_bench.weights import BadWeights
from av_bench.weights.fill import Weights, fill, read

TAPS = 12  # of the filters around an activation
KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)


@dataclass(frozen=True)
class VocoderConfig:
    """Sizes of a BigVGAN: ``rates`` multiply to the mel's hop; ``channels`` are halved at each of them."""

    n_mels: int
    rates: tuple[int, ...]
    channels: int = 1536
    tanh: bool = True  # how the wave is kept in [-1, 1]: tanh, or cutting
    last_bias: bool = True


VOCODERS = {
    "16k": VocoderConfig(80, rates=(4, 4, 2, 2, 2, 2)),
    "44k": VocoderConfig(128, rates=(8, 4, 2, 2, 2, 2), tanh=False, last_bias=False),
}
"""Make-An-Audio 2's BigVGAN at 16 kHz, and bigvgan_v2_44khz_128band_512x (paper, appendix F)."""

ENTRIES = {"16k": "mmaudio-vocoder-16k", "44k": "bigvgan-v2-44k"}


def low_pass() -> Tensor:
    """Half-band filter ``(1, 1, 12)``: a sinc of cut-off 1/4 under a Kaiser window of 21 dB or more, with sum 1.

    The window's shape follows Kaiser's formulas for a transition band of 0.3 times the sampling rate on each side.
    """
    attenuation = 2.285 * (TAPS // 2 - 1) * torch.pi * 4 * 0.3 + 7.95
    beta = 0.1102 * (attenuation - 8.7) if attenuation > 50 else 0.5842 * (attenuation - 21) ** 0.4
    beta += 0.0 if attenuation > 50 else 0.07886 * (attenuation - 21)
    time = torch.arange(TAPS) - (TAPS - 1) / 2
    taps = torch.kaiser_window(TAPS, periodic=False, beta=beta) * torch.sinc(time / 2)
    return (taps / taps.sum())[None, None]


class Snake(nn.Module):
    """``x + sin^2(a x) / b`` with ``a``, ``b`` per channel, stored as logarithms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> the same shape."""
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(x * alpha).square() / (beta + 1e-9)


class Filter(nn.Module):
    """Holder of a filter's taps, under the published name."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", low_pass())


class LowPass(nn.Module):
    """Another level of the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = Filter()


class AntiAliased(nn.Module):
    """A snake at twice the rate: up, activate, down. ``(B, C, L)`` -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = Snake(channels)
        self.upsample = Filter()
        self.downsample = LowPass()

    def forward(self, x: Tensor) -> Tensor:
        """Edges are repeated outwards, so that a constant stays one."""
        up, down = self.upsample.filter, self.downsample.lowpass.filter
        channels, edge = x.shape[1], TAPS // 2 - 1
        x = F.pad(x, (edge, edge), mode="replicate")
        x = 2 * F.conv_transpose1d(x, up.expand(channels, -1, -1), stride=2, groups=channels)
        cut = 2 * edge + TAPS // 2 - 1
        x = self.act(x[..., cut:-cut])
        x = F.pad(x, (edge, edge + 1), mode="replicate")
        return F.conv1d(x, down.expand(channels, -1, -1), stride=2, groups=channels)


class ResidualBlock(nn.Module):
    """Three times: activation, dilated convolution, activation, convolution, added to the input."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel // 2)) for d in DILATIONS
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in DILATIONS)
        self.activations = nn.ModuleList(AntiAliased(channels) for _ in range(2 * len(DILATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, L)`` -> the same shape."""
        for i, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            inner = dilated(self.activations[2 * i](x))
            x = x + plain(self.activations[2 * i + 1](inner))
        return x


class BigVGAN(nn.Module):
    """Log-mel ``(B, n_mels, L)`` -> wave ``(B, L * hop)`` in [-1, 1]."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels // 2**i for i in range(len(config.rates) + 1)]
        self.conv_pre = nn.Conv1d(config.n_mels, widths[0], 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ModuleList([nn.ConvTranspose1d(widths[i], widths[i + 1], 2 * rate, rate, padding=rate // 2)])
            for i, rate in enumerate(config.rates)
        )
        self.resblocks = nn.ModuleList(ResidualBlock(width, kernel) for width in widths[1:] for kernel in KERNELS)
        self.activation_post = AntiAliased(widths[-1])
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3, bias=config.last_bias)

    def forward(self, mel: Tensor) -> Tensor:
        """UsageError when ``mel`` is not ``(B, n_mels, L)``."""
        if mel.ndim != 3 or mel.shape[1] != self.config.n_mels or not mel.shape[2]:
            raise UsageError(f"vocoder: expected a mel (B, {self.config.n_mels}, L), got {tuple(mel.shape)}")
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up[0](x)  # type: ignore[index]
            blocks = self.resblocks[i * len(KERNELS) : (i + 1) * len(KERNELS)]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        x = self.conv_post(self.activation_post(x))[:, 0]
        return torch.tanh(x) if self.config.tanh else x.clamp(-1, 1)


_MAGNITUDE = re.compile(r"(.+)\.(?:weight_g|parametrizations\.weight\.original0)$")


def fold_weight_norm(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights ``g v / ||v||`` (norm per first index) in place of their two parts; whatever has no parts stays as it is.

    BadWeights when a magnitude has no direction beside it.
    """
    folded = dict(tensors)
    for key in tensors:
        match = _MAGNITUDE.match(key)
        if match:
            partner = key.replace("weight_g", "weight_v").replace("original0", "original1")
            if partner not in tensors:
                raise BadWeights(f"{where}: {key} is there, {partner} is missing; the file is not complete")
            direction = folded.pop(partner).float()
            norm = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
            folded[f"{match[1]}.weight"] = direction * (folded.pop(key).float() / norm)
    return folded


def load_vocoder(rate: str, source: Weights = None) -> BigVGAN:
    """The vocoder of ``"16k"`` or ``"44k"`` with the weights of a file, a mapping, or the lock file's entry."""
    if rate not in VOCODERS:
        raise UsageError(f"no vocoder is known for {rate!r}; known are {', '.join(VOCODERS)}")
    state = read(source, ENTRIES[rate])
    with torch.device("meta"):
        vocoder = BigVGAN(VOCODERS[rate])
    fill(vocoder, fold_weight_norm(state.tensors, state.source), state.source)
    return vocoder.eval().requires_grad_(False)
