"""The codec of ``mmaudio-nano``: a small VAE on a log-mel of 10 ms frames, and a vocoder; 16 latents every 40 ms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.vae import VAE, VAEConfig
from model_zoo.mmaudio.nano.vocoder import NANO_MEL, NanoVocoder

NANO_VAE = VAEConfig(data_dim=64, embed_dim=16, hidden=48, ch_mult=(1, 2, 2), num_res_blocks=1, down_levels=(0, 1))


class NanoCodec(nn.Module):
    """Mono waves at 16 kHz to latents at 25 per second and back."""

    sample_rate = NANO_MEL.sample_rate
    latent_dim = NANO_VAE.embed_dim
    samples_per_latent = NANO_MEL.hop * NANO_VAE.stride

    def __init__(self) -> None:
        super().__init__()
        self.vae = VAE(NANO_VAE)
        self.vocoder = NanoVocoder()

    def latent_len(self, seconds: float) -> int:
        """Latent frames of a clip: enough to cover it."""
        return -(-round(seconds * self.sample_rate) // self.samples_per_latent)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Waves ``(B, T)`` in [-1, 1], T a multiple of 640 -> mean and deviation of latents, ``(B, T / 640, 16)``."""
        from model_zoo.mmaudio.codec.mel import log_mel

        if wave.ndim != 2 or wave.shape[1] % self.samples_per_latent or not wave.shape[1]:
            wanted = f"(B, a multiple of {self.samples_per_latent})"
            raise UsageError(f"nano codec: expected waves {wanted}, got {tuple(wave.shape)}")
        posterior = self.vae.encode(log_mel(wave, NANO_MEL))
        return posterior.mean.transpose(1, 2), posterior.std.transpose(1, 2)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latents ``(B, N, 16)``, not normalised -> waves ``(B, 640 N)`` in [-1, 1]."""
        wave: Tensor = self.vocoder(self.vae.decode(latent.transpose(1, 2)))
        return wave.clamp(-1, 1)
