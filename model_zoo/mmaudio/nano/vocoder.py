"""The vocoder of ``mmaudio-nano``: log-mel to sound by an inverse STFT whose magnitudes and phases a network predicts.

The network is a stack of ConvNeXt blocks at the mel's frame rate (Vocos, Siuzdak 2023, arXiv 2306.00814): no
upsampling layers, so a second of sound costs a few hundred million operations and a CPU is enough.

With ``noise`` it also says how much noise each cell of the spectrum holds. That noise is drawn, not predicted: hiss has
no phases that could be learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.mel import MelConfig, mel_bank

NANO_MEL = MelConfig(16_000, n_fft=640, hop=160, n_mels=64, high=8000.0, log="10")
LOUDEST = 5.0  # limit of the logarithm of a magnitude
QUIET_START = -4.0  # logarithm of the magnitudes of an untrained network: the level of quiet sound
RELATIVE_START = (-1.0, -0.2)  # the same of what is predicted and of noise, where levels are relative
NOISE_SEED = 20_231_126  # of the noise in decoding: equal mels give equal sound


@dataclass(frozen=True)
class VocoderConfig:
    """Channels, channels inside a block, number of blocks, samples of the inverse STFT's window, and noise or none.

    ``relative``: the network answers with levels relative to the mel's. Its norms take the level of a frame away, so
    that otherwise loud attacks come out too weak.
    """

    width: int = 160
    inner: int = 320
    blocks: int = 4
    window: int = 640
    noise: bool = False
    relative: bool = False


class ConvNeXt(nn.Module):
    """Depthwise convolution over 7 frames, norm, two pointwise layers, scaled, beside the input; ``(B, C, L)``."""

    def __init__(self, width: int, inner: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        branch = self.narrow(F.gelu(self.widen(self.norm(self.depthwise(x).transpose(1, 2)))))
        out: Tensor = x + (self.scale * branch).transpose(1, 2)
        return out


class NanoVocoder(nn.Module):
    """Log-mel ``(B, n_mels, L)`` -> waves ``(B, hop L)``, in about [-1, 1]; hop samples per mel frame."""

    window: Tensor
    spread: Tensor

    def __init__(self, config: VocoderConfig | None = None, mel: MelConfig = NANO_MEL) -> None:
        super().__init__()
        config = config or VocoderConfig()
        if config.window % mel.hop or (config.window - mel.hop) % 2:
            raise UsageError(f"vocoder: a window of {config.window} is no even overlap of hops of {mel.hop}")
        self.config, self.mel, self.bins = config, mel, config.window // 2 + 1
        self.enter = nn.Conv1d(mel.n_mels, config.width, 7, padding=3)
        self.enter_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.width, config.inner, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.leave_norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, (3 + config.noise) * self.bins)
        start = RELATIVE_START if config.relative else (QUIET_START, QUIET_START)
        nn.init.constant_(self.leave.bias[: self.bins], start[0])
        nn.init.constant_(self.leave.bias[3 * self.bins :], start[1])
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)
        if config.relative:
            if mel.log != "10":
                raise UsageError(f"vocoder: relative levels need a mel with logarithm '10', not {mel.log!r}")
            self.register_buffer("spread", level_matrix(mel, config.window), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """See the class. Frame i is centred on sample hop (i + 1/2), as in ``mel.log_mel``."""
        spectrum, level = self.predict(mel)
        return self.synthesise(spectrum if level is None else spectrum + level * self.draw(mel.shape[-1]))

    def predict(self, mel: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log-mel ``(B, n_mels, L)`` -> complex spectra ``(B, bins, L)`` and the level of their noise, same shape."""
        x = self.enter(mel / 2 + 1)
        x = self.enter_norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        out = self.leave(self.leave_norm(x.transpose(1, 2))).transpose(1, 2).float()
        level, cosine, sine, *noise = out.split(self.bins, dim=1)
        if self.config.relative:
            base = self.level(mel)
            level, noise = level + base, [part + base for part in noise]
        # cosine and sine share one length, so that a phase has no jump where an angle would have
        length = torch.sqrt(cosine.square() + sine.square() + 1e-6)
        magnitude = torch.exp(level.clamp(max=LOUDEST)) / length
        spectrum = torch.complex(magnitude * cosine, magnitude * sine)
        return spectrum, torch.exp(noise[0].clamp(max=LOUDEST)) if noise else None

    def level(self, mel: Tensor) -> Tensor:
        """Logarithm of the magnitudes ``(B, bins, L)`` that a spectrum with this mel has where it is smooth."""
        with torch.autocast(mel.device.type, enabled=False):
            size, window = self.mel.n_fft, self.config.window
            scale = math.log(self.mel.sample_rate / size * window / size)
            return math.log(10) * (self.spread @ mel.float()) + scale

    def draw(self, frames: int, generator: torch.Generator | None = None, count: int = 1) -> Tensor:
        """Spectra of white noise, ``(count, bins, frames)``, of unit variance: the STFT of one wave, so that
        neighbouring frames agree. From a fixed seed without a ``generator``.
        """
        if generator is None:
            generator = torch.Generator().manual_seed(NOISE_SEED)
        hop, size = self.mel.hop, self.config.window
        wave = torch.randn(count, (frames - 1) * hop + size, generator=generator).to(self.window.device)
        spectra = torch.stft(wave, size, hop, window=self.window, center=False, return_complex=True)
        return spectra / self.window.square().sum().sqrt()

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Overlap-add of ``(B, bins, L)`` spectra -> ``(B, hop L)``; the edges that the windows add are cut."""
        size, hop = self.config.window, self.mel.hop
        parts = size // hop
        frames = torch.fft.irfft(spectrum, n=size, dim=1) * self.window[:, None]
        summed = _overlapped(frames.unflatten(1, (parts, hop)))
        squares = self.window.square().view(1, parts, hop, 1).expand(1, -1, -1, spectrum.shape[-1])
        edge = (size - hop) // 2
        inside = slice(edge, edge + spectrum.shape[-1] * hop)
        return summed[:, inside] / _overlapped(squares)[:, inside].clamp(min=1e-3)


def level_matrix(mel: MelConfig, window: int) -> Tensor:
    """Matrix ``(window / 2 + 1, n_mels)`` that interpolates between the centres of bands, flat outside."""
    bank = mel_bank(mel)
    hertz = torch.linspace(0, mel.sample_rate / 2, bank.shape[1])
    centres = (bank @ hertz) / bank.sum(dim=1)
    bins = torch.linspace(0, mel.sample_rate / 2, window // 2 + 1).clamp(float(centres[0]), float(centres[-1]))
    right = torch.searchsorted(centres, bins).clamp(1, mel.n_mels - 1)
    share = (bins - centres[right - 1]) / (centres[right] - centres[right - 1])
    matrix = torch.zeros(len(bins), mel.n_mels)
    matrix.scatter_(1, right[:, None], share[:, None])
    return matrix.scatter_(1, right[:, None] - 1, 1 - share[:, None])


def _overlapped(frames: Tensor) -> Tensor:
    """Frames in parts of one hop, ``(B, parts, hop, L)`` -> their overlapping sum ``(B, hop (L + parts - 1))``."""
    parts = frames.shape[1]
    total = sum(F.pad(frames[:, part], (part, parts - 1 - part)) for part in range(parts))
    assert isinstance(total, Tensor)
    return total.transpose(1, 2).flatten(1)
