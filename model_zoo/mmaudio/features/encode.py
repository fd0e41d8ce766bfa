"""Training features of media, made with a codec and a conditioner (`av-bench features`)."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Protocol

import torch

from av_bench.contracts import Decoded, MediaError, Reason, UsageError
from av_bench.media.decode import DecodedMedia, decode
from model_zoo.mmaudio.interfaces import Codec, Conditioner

SILENCE = 1e-6  # peak below which the published code refuses a crop
PEAK = 0.95  # crops are scaled to this peak for training (published code)


class TrainingCodec(Codec, Protocol):
    """A codec that also says how many samples a latent frame stands for."""

    samples_per_latent: int


class MediaFeatures:
    """An ``Encoder`` for ``units.extract`` made of the networks that sampling uses.

    ``seconds`` is the length of a training clip; ``window`` what the codec needs for it, whole latent frames.
    """

    def __init__(
        self, codec: TrainingCodec, conditioner: Conditioner, seconds: float = 8.0, device: str = "cpu"
    ) -> None:
        if not 0 < seconds < math.inf:
            raise UsageError(f"extraction: the length of a training clip must be a positive number, got {seconds}")
        self.codec, self.conditioner, self.seconds = codec, conditioner, seconds
        self.device = torch.device(device)
        self.samples = codec.latent_len(seconds) * codec.samples_per_latent
        self.window = self.samples / codec.sample_rate
        self.codec.to(self.device)
        self.conditioner.to(self.device)
        self.fingerprint = f"{_weights_digest(codec)}-{conditioner.fingerprint}-{seconds:g}"

    @torch.no_grad()
    def text(self, text: str) -> torch.Tensor:
        """Features (Lt, Dt) of a text."""
        return self.conditioner.text(text)

    def read(self, path: Path, video: bool) -> DecodedMedia:
        """The whole sound, and with ``video`` the frames of the first seconds."""
        return decode(path, self.conditioner.requests if video else (), self.seconds if video else None)

    @torch.no_grad()
    def latents(self, media: Decoded, start: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and deviation (N, C) of a crop: mono, scaled to a peak of 0.95.

        MediaError when the recording ends before the crop does, or the crop is silent.
        """
        whole = media.waveform(self.codec.sample_rate, None, remove_mean=False)
        wave = whole[round(start * self.codec.sample_rate) :][: self.samples]
        if len(wave) < self.samples:
            detail = f"{len(wave)} samples from {start:.2f} s at {self.codec.sample_rate} Hz, {self.samples} are needed"
            raise MediaError(media.path, Reason.TOO_SHORT_AUDIO, detail)
        peak = float(wave.abs().max())
        if peak <= SILENCE:
            raise MediaError(media.path, Reason.SILENT, f"silent after {start:.2f} s")
        mean, std = self.codec.encode((wave * (PEAK / peak))[None].to(self.device))
        return mean[0].float().cpu(), std[0].float().cpu()

    @torch.no_grad()
    def video(self, media: Decoded) -> tuple[torch.Tensor, torch.Tensor]:
        """Visual (Lc, Dc) and synchronisation (Ls, Ds) features of the first seconds."""
        return self.conditioner.video(media, self.seconds)


def _weights_digest(codec: Codec) -> str:
    """16 hex digits that change with the codec's class and weights."""
    digest = hashlib.sha256(type(codec).__name__.encode())
    if isinstance(codec, torch.nn.Module):
        for key, value in sorted(codec.state_dict().items()):
            digest.update(key.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
