"""The published codec of MMAudio: log-mel and VAE towards latents, VAE and BigVGAN back to waves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from av_bench.weights.fill import Weights, fill, read
from model_zoo.mmaudio.codec.mel import MELS, log_mel
from model_zoo.mmaudio.codec.vae import VAE, VAES
from model_zoo.mmaudio.codec.vocoder import load_vocoder
from model_zoo.mmaudio.config import Rate, audio_samples

ENTRIES = {"16k": "mmaudio-vae-16k", "44k": "mmaudio-vae-44k"}


def load_vae(rate: str, source: Weights = None) -> VAE:
    """The VAE of ``"16k"`` or ``"44k"`` with raw weights of a file, a mapping, or the lock file's entry; not fused."""
    if rate not in VAES:
        raise UsageError(f"no VAE is known for {rate!r}; known are {', '.join(VAES)}")
    state = read(source, ENTRIES[rate])
    with torch.device("meta"):
        vae = VAE(VAES[rate])
    fill(vae, state.tensors, state.source)
    return vae.eval()


class OfficialCodec(nn.Module):
    """Mono waves at 16 or 44.1 kHz to latents (31.25 per second with 20 channels, 43.07 with 40) and back.

    ``vae`` and ``vocoder`` are weight files or mappings; None takes the files of the lock file, and
    MissingRequirement says how to get them. With ``decodes`` False there is no vocoder, and its file is not needed.
    """

    def __init__(self, rate: Rate, vae: Weights = None, vocoder: Weights = None, *, decodes: bool = True) -> None:
        super().__init__()
        if rate not in MELS:
            raise UsageError(f"no codec is known for {rate!r}; known are {', '.join(MELS)}")
        self.rate, self.mel = rate, MELS[rate]
        self.vae = load_vae(rate, vae).fuse()
        self.vocoder = load_vocoder(rate, vocoder) if decodes else None
        self.sample_rate = self.mel.sample_rate
        self.latent_dim = self.vae.config.embed_dim
        self.samples_per_latent = self.mel.hop * self.vae.config.stride

    def latent_len(self, seconds: float) -> int:
        """Latent frames of a clip: enough to cover it (8 s: 250 and 345)."""
        return audio_samples(self.rate, seconds) // self.samples_per_latent

    @torch.no_grad()
    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Waves ``(B, T)`` in [-1, 1], T a multiple of ``samples_per_latent`` -> mean and deviation, ``(B, N, C)``."""
        if wave.ndim != 2 or not wave.shape[1] or wave.shape[1] % self.samples_per_latent:
            wanted = f"(B, a multiple of {self.samples_per_latent})"
            raise UsageError(f"codec {self.rate}: expected waves {wanted}, got {tuple(wave.shape)}")
        posterior = self.vae.encode(log_mel(wave, self.mel))
        return posterior.mean.transpose(1, 2), posterior.std.transpose(1, 2)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(B, N, C)``, not normalised -> waves ``(B, N * samples_per_latent)`` in [-1, 1]."""
        if latent.ndim != 3 or latent.shape[2] != self.latent_dim:
            wanted = f"(B, N, {self.latent_dim})"
            raise UsageError(f"codec {self.rate}: expected latents {wanted}, got {tuple(latent.shape)}")
        if self.vocoder is None:
            raise UsageError(f"codec {self.rate}: it was built to encode only")
        wave: Tensor = self.vocoder(self.vae.decode(latent.float().transpose(1, 2)))
        return wave
