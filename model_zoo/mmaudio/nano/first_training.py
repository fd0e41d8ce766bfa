"""Vocoder training of the first generation: spectral losses at two resolutions, on mels of real audio or of the VAE."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_zoo.mmaudio.codec.mel import MelConfig, log_mel
from model_zoo.mmaudio.codec.vae import VAE
from model_zoo.mmaudio.nano.codec import NanoCodec
from model_zoo.mmaudio.nano.vocoder import NanoVocoder

RESOLUTIONS = ((128, 32), (512, 128))  # FFT and hop, samples
QUIET = 1e-4  # magnitudes below count little in the logarithm


@dataclass(frozen=True)
class VocoderRecipe:
    """Hyper-parameters of the run, kept in its log."""

    steps: int = 2500
    batch: int = 8
    frames: int = 80  # mel frames per crop
    rate: float = 2e-3
    decoded_from: int = 1000  # first step whose mels went through the VAE
    mel_weight: float = 2.0
    magnitude_weight: float = 1.0  # of the relative error of magnitudes, against that of their logarithms
    holdout: int = 64
    seed: int = 7


def train_vocoder(
    recipe: VocoderRecipe,
    audio: NDArray[np.int16],
    vae: VAE | None,
    device: str = "cpu",
    report: Callable[[str], None] = print,
    save: Callable[[NanoVocoder, int], None] | None = None,
) -> tuple[NanoVocoder, list[dict[str, float]]]:
    """Train on waves ``(n, samples)``; ``vae`` (fused or not, in evaluation mode) decodes mels in the second part."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    vocoder = NanoVocoder().to(device).train()
    optimiser = torch.optim.AdamW(vocoder.parameters(), lr=recipe.rate, betas=(0.8, 0.95), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.05)
    log: list[dict[str, float]] = []
    total, started = 0.0, time.perf_counter()
    for step in range(1, recipe.steps + 1):
        wave, mel = draw(recipe, audio, vae if step >= recipe.decoded_from else None, rng, vocoder.mel, device)
        loss = spectral_loss(vocoder(mel), wave, vocoder.mel, recipe.mel_weight, recipe.magnitude_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(vocoder.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if step % 100 == 0 or step == recipe.steps:
            count = (step - 1) % 100 + 1
            entry = {"step": step, "loss": total / count, "seconds": time.perf_counter() - started}
            log.append({key: round(value, 4) for key, value in entry.items()})
            report(f"vocoder {log[-1]}")
            total, started = 0.0, time.perf_counter()
            if save is not None:
                save(vocoder, step)
    return vocoder.eval(), log


def draw(
    recipe: VocoderRecipe,
    audio: NDArray[np.int16],
    vae: VAE | None,
    rng: np.random.Generator,
    mel: MelConfig,
    device: str,
) -> tuple[Tensor, Tensor]:
    """Crops ``(B, frames hop)`` at a random level, and their mels ``(B, 64, frames)``, from the VAE if given."""
    samples = recipe.frames * mel.hop
    rows = rng.integers(0, len(audio) - recipe.holdout, recipe.batch)
    starts = rng.integers(0, (audio.shape[1] - samples) // mel.hop + 1, recipe.batch) * mel.hop
    crops = np.stack([audio[row, start : start + samples] for row, start in zip(rows, starts, strict=True)])
    wave = torch.from_numpy(crops.astype(np.float32) / 32767).to(device)
    levels = torch.from_numpy(rng.uniform(-6, 3, (recipe.batch, 1)).astype(np.float32)).to(device)
    wave = (wave * 10 ** (levels / 20)).clamp(-1, 1)
    clean = log_mel(wave, mel)
    if vae is None:
        return wave, clean
    with torch.no_grad():
        return wave, reconstruct(vae, clean)


def reconstruct(vae: VAE, mel: Tensor) -> Tensor:
    """A mel after encoding (mean of the posterior) and decoding."""
    out: Tensor = vae.decode(vae.encode(mel).mean)
    return out


def spectral_loss(made: Tensor, real: Tensor, mel: MelConfig, mel_weight: float, magnitude_weight: float) -> Tensor:
    """Errors of magnitudes (relative) and of their logarithms at two resolutions, and of the log-mel."""
    terms: list[Any] = []
    for n_fft, hop in RESOLUTIONS:
        a, b = _magnitude(made, n_fft, hop), _magnitude(real, n_fft, hop)
        relative = (a - b).flatten(1).norm(dim=1).div(b.flatten(1).norm(dim=1) + 1e-3).mean()
        terms += [magnitude_weight * relative, (torch.log(a + QUIET) - torch.log(b + QUIET)).abs().mean()]
    mels = (log_mel(made, mel) - log_mel(real, mel)).abs().mean()
    return torch.stack(terms).mean() + mel_weight * mels


def _magnitude(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, device=wave.device)
    spectrum = torch.stft(wave, n_fft, hop, window=window, center=True, return_complex=True) / n_fft**0.5
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)


TUNE_RECIPE = VocoderRecipe(steps=1000, frames=120, rate=1e-3, magnitude_weight=2.0, decoded_from=1, seed=8)
DECODER_RATE = 3.0  # times the vocoder's
LOUD, SLOPE = -2.5, 0.75  # log-mel level at which the weight of a cell has doubled, and how fast it grows


def loud_error(decoded: Tensor, mel: Tensor) -> Tensor:
    """Mean absolute error of log-mels whose cells weigh more the louder they are."""
    return ((decoded - mel).abs() * (1 + 10 ** (SLOPE * (mel - LOUD)))).mean()


def tune_codec(
    recipe: VocoderRecipe,
    audio: NDArray[np.int16],
    codec: NanoCodec,
    device: str = "cpu",
    report: Callable[[str], None] = print,
    save: Callable[[NanoCodec, int], None] | None = None,
) -> list[dict[str, float]]:
    """Train the decoder for loud sound and the vocoder for what it decodes; the encoder, and the latents, stay.

    The VAE's own loss weighs all cells of a log-mel alike; attacks are loud, short and few, and come out too weak.
    Returns the log.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    codec.eval()
    decoder, vocoder = codec.vae.decoder.train(), codec.vocoder.train()
    rates = [DECODER_RATE * recipe.rate, recipe.rate]
    groups = [{"params": list(m.parameters()), "lr": r} for m, r in zip((decoder, vocoder), rates, strict=True)]
    optimiser = torch.optim.AdamW(groups, betas=(0.8, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=recipe.steps, pct_start=0.1)
    log: list[dict[str, float]] = []
    totals, started = np.zeros(2), time.perf_counter()
    for step in range(1, recipe.steps + 1):
        wave, mel = draw(recipe, audio, None, rng, vocoder.mel, device)
        with torch.no_grad():
            posterior = codec.vae.encode(mel)
            latent = posterior.sample(torch.randn_like(posterior.mean))
        decoded = codec.vae.decode(latent)
        error = loud_error(decoded, mel)
        loss = spectral_loss(vocoder(decoded.detach()), wave, vocoder.mel, recipe.mel_weight, recipe.magnitude_weight)
        optimiser.zero_grad(set_to_none=True)
        (error + loss).backward()  # type: ignore[no-untyped-call]
        for module in (decoder, vocoder):
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        totals += [float(error.detach()), float(loss.detach())]
        if step % 100 == 0 or step == recipe.steps:
            decoder_loss, vocoder_loss = totals / ((step - 1) % 100 + 1)
            entry = {"step": step, "decoder": decoder_loss, "vocoder": vocoder_loss}
            entry["seconds"] = time.perf_counter() - started
            log.append({key: round(float(value), 4) for key, value in entry.items()})
            report(f"codec {log[-1]}")
            totals, started = np.zeros(2), time.perf_counter()
            if save is not None:
                save(codec, step)
    codec.eval()
    return log
