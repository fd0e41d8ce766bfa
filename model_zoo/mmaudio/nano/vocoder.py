"""The vocoder of ``mmaudio-nano``: log-mel to sound by an inverse STFT whose magnitudes and phases a network predicts.

The network is a stack of ConvNeXt blocks at the mel's frame rate (Vocos, Siuzdak 2023, arXiv 2306.00814): no
upsampling layers, so a second of sound costs a few hundred million operations and a CPU is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.mmaudio.codec.mel import MelConfig

NANO_MEL = MelConfig(16_000, n_fft=640, hop=160, n_mels=64, high=8000.0, log="10")
LOUDEST = 5.0  # limit of the logarithm of a magnitude


@dataclass(frozen=True)
class VocoderConfig:
    """Channels, channels inside a block, number of blocks."""

    width: int = 160
    inner: int = 320
    blocks: int = 4


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
    """Log-mel ``(B, 64, L)`` -> waves ``(B, 160 L)`` at 16 kHz, in about [-1, 1]."""

    window: Tensor

    def __init__(self, config: VocoderConfig | None = None, mel: MelConfig = NANO_MEL) -> None:
        super().__init__()
        config = config or VocoderConfig()
        self.mel = mel
        self.enter = nn.Conv1d(mel.n_mels, config.width, 7, padding=3)
        self.enter_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            ConvNeXt(config.width, config.inner, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.leave_norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, 3 * (mel.n_fft // 2 + 1))
        nn.init.constant_(self.leave.bias[: mel.n_fft // 2 + 1], -4.0)  # start near the level of quiet sound
        self.register_buffer("window", torch.hann_window(mel.n_fft), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """See the class. Frame i is centred on sample 160 (i + 1/2), as in ``mel.log_mel``."""
        x = self.enter(mel / 2 + 1)
        x = self.enter_norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        out = self.leave(self.leave_norm(x.transpose(1, 2))).transpose(1, 2)
        level, cosine, sine = out.chunk(3, dim=1)
        # cosine and sine share one length, so that a phase has no jump where an angle would have
        length = torch.sqrt(cosine.square() + sine.square() + 1e-6)
        magnitude = torch.exp(level.clamp(max=LOUDEST)) / length
        return self.synthesise(torch.complex(magnitude * cosine, magnitude * sine))

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Overlap-add of ``(B, bins, L)`` spectra -> ``(B, hop L)``; the edges that the mel adds are cut."""
        hop, parts = self.mel.hop, self.mel.n_fft // self.mel.hop
        frames = torch.fft.irfft(spectrum, n=self.mel.n_fft, dim=1) * self.window[:, None]
        summed = _overlapped(frames.unflatten(1, (parts, hop)))
        squares = self.window.square().view(1, parts, hop, 1).expand(1, -1, -1, spectrum.shape[-1])
        edge = (self.mel.n_fft - hop) // 2
        inside = slice(edge, edge + spectrum.shape[-1] * hop)
        return summed[:, inside] / _overlapped(squares)[:, inside].clamp(min=1e-3)


def _overlapped(frames: Tensor) -> Tensor:
    """Frames in parts of one hop, ``(B, parts, hop, L)`` -> their overlapping sum ``(B, hop (L + parts - 1))``."""
    parts = frames.shape[1]
    total = sum(F.pad(frames[:, part], (part, parts - 1 - part)) for part in range(parts))
    assert isinstance(total, Tensor)
    return total.transpose(1, 2).flatten(1)
