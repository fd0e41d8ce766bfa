"""The codec of ``mmaudio-nano``: an autoencoder on a log-mel of 10 ms frames, and a vocoder; latents every 40 ms.

The first generation has a small VAE, the second principal components. A file of codec weights says its sizes in its
header; one without a header is of the first generation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from av_bench.schema import build
from av_bench.weights.fill import fill, read
from model_zoo.mmaudio.codec.mel import MelConfig
from model_zoo.mmaudio.codec.vae import VAE, VAEConfig
from model_zoo.mmaudio.flow.load import read_about
from model_zoo.mmaudio.nano.patches import PatchConfig, Patches
from model_zoo.mmaudio.nano.vocoder import NANO_MEL, NanoVocoder, VocoderConfig


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the parts: log-mel, vocoder, and a VAE or patches."""

    mel: MelConfig
    vocoder: VocoderConfig
    vae: VAEConfig | None = None
    patches: PatchConfig | None = None

    def __post_init__(self) -> None:
        if (self.vae is None) == (self.patches is None):
            raise UsageError("nano codec: one of vae and patches, not both")
        if self.vae is not None and self.vae.data_dim != self.mel.n_mels:
            raise UsageError(f"nano codec: VAE of {self.vae.data_dim} bins, mel of {self.mel.n_mels}")

    @property
    def latent_dim(self) -> int:
        """Channels of a latent frame."""
        return self.vae.embed_dim if self.vae is not None else self._patches.latents

    @property
    def stride(self) -> int:
        """Mel frames per latent frame."""
        return self.vae.stride if self.vae is not None else self._patches.stride

    @property
    def _patches(self) -> PatchConfig:
        assert self.patches is not None
        return self.patches

    def autoencoder(self) -> VAE | Patches:
        """A new one of these sizes."""
        return VAE(self.vae) if self.vae is not None else Patches(self._patches, self.mel.n_mels)


FIRST = CodecConfig(
    NANO_MEL,
    VocoderConfig(),
    VAEConfig(data_dim=64, embed_dim=16, hidden=48, ch_mult=(1, 2, 2), num_res_blocks=1, down_levels=(0, 1)),
)
"""The first generation, whose files have no header."""
SECOND = CodecConfig(
    MelConfig(16_000, n_fft=800, hop=160, n_mels=128, high=8000.0, log="10"),
    VocoderConfig(width=224, inner=608, blocks=7, noise=True, relative=True),
    patches=PatchConfig(),
)
"""The second generation, which ships."""


class NanoCodec(nn.Module):
    """Mono waves to latents at 25 per second and back."""

    def __init__(self, config: CodecConfig = FIRST) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.latent_dim = config.mel.sample_rate, config.latent_dim
        self.samples_per_latent = config.mel.hop * config.stride
        self.vae = config.autoencoder()
        self.vocoder = NanoVocoder(config.vocoder, config.mel)

    def fuse(self) -> None:
        """Make it ready for inference only, where that saves work."""
        if isinstance(self.vae, VAE):
            self.vae.fuse()

    def latent_len(self, seconds: float) -> int:
        """Latent frames of a clip: enough to cover it."""
        return -(-round(seconds * self.sample_rate) // self.samples_per_latent)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Waves ``(B, T)`` in [-1, 1], T a multiple of 640 -> mean and deviation of latents, ``(B, T / 640, C)``."""
        from model_zoo.mmaudio.codec.mel import log_mel

        if wave.ndim != 2 or wave.shape[1] % self.samples_per_latent or not wave.shape[1]:
            wanted = f"(B, a multiple of {self.samples_per_latent})"
            raise UsageError(f"nano codec: expected waves {wanted}, got {tuple(wave.shape)}")
        posterior = self.vae.encode(log_mel(wave, self.config.mel))
        return posterior.mean.transpose(1, 2), posterior.std.transpose(1, 2)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(B, N, C)``, not normalised -> waves ``(B, 640 N)`` in [-1, 1]."""
        wave: Tensor = self.vocoder(self.vae.decode(latent.transpose(1, 2)))
        return wave.clamp(-1, 1)


def codec_header(config: CodecConfig) -> dict[str, Any]:
    """What the header of a codec's weight file says (``flow.load.header_of`` makes it one)."""
    return {"codec": asdict(config)}


def codec_config(file: Path) -> CodecConfig:
    """Sizes of the codec in a weight file: its header's, or the first generation's without one.

    UsageError for a header that is wrong, BadWeights for a damaged file, MissingRequirement when it is not there.
    """
    about = read_about(file)
    return build(CodecConfig, about["codec"], f"{file}: codec") if "codec" in about else FIRST


def read_codec(file: Path) -> NanoCodec:
    """The codec of a weight file, of any generation, in evaluation mode. BadWeights for another layout."""
    codec = NanoCodec(codec_config(file))
    state = read(file, file.name)
    fill(codec, state.tensors, state.source, copy=True)
    return codec.eval()
