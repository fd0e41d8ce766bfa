"""The spectral loss of the vocoder: an energy distance over magnitudes at three resolutions and log-mels.

Hiss has no phases to be learned, and an error of magnitudes alone is least for a constant one, which hums at the frame
rate. A vocoder with noise is therefore scored by the energy distance (Gritsenko et al. 2020, arXiv 2008.01160): two
draws of its noise are each compared with the real sound, and half of what they differ from each other is subtracted,
so that the loss is least when the noise is as wide as the real one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_zoo.mmaudio.codec.mel import MelConfig, log_mel

RESOLUTIONS = ((64, 16), (256, 64), (1024, 256))  # FFT and hop, samples
QUIET = 1e-4  # magnitudes below count little in the logarithm
LOUD = -2.5  # decimal logarithm of the magnitude at which a cell weighs as much again as without loudness
GROWTH = 0.75  # decades of weight per decade of magnitude


@dataclass(frozen=True)
class Weights:
    """Of the log-mel's error, and of the relative error of magnitudes against that of their logarithms."""

    mel: float
    magnitude: float


def energy_distance(draws: Sequence[Tensor], real: Tensor, mel: MelConfig, weights: Weights) -> Tensor:
    """Mean distance of one or two draws ``(B, T)`` from the real sound, less half of the distance between two."""
    *made, wanted = [spectral_features(wave, mel) for wave in (*draws, real)]
    total = torch.stack([spectral_distance(ours, wanted, wanted, weights) for ours in made]).mean()
    if len(made) == 2:
        total = total - 0.5 * spectral_distance(made[0], made[1], wanted, weights)
    return total


@dataclass(frozen=True)
class SpectralFeatures:
    """Magnitudes at the resolutions of the loss, and the log-mel."""

    magnitudes: tuple[Tensor, ...]
    mel: Tensor


def spectral_features(wave: Tensor, mel: MelConfig) -> SpectralFeatures:
    """What the spectral loss compares, of waves ``(B, T)``."""
    return SpectralFeatures(tuple(_magnitude(wave, *sizes) for sizes in RESOLUTIONS), log_mel(wave, mel))


def spectral_distance(a: SpectralFeatures, b: SpectralFeatures, scale: SpectralFeatures, weights: Weights) -> Tensor:
    """Errors of magnitudes (relative to those of ``scale``) and of their logarithms, and of the log-mel, where cells
    that are loud in ``scale`` weigh more."""
    terms: list[Tensor] = []
    for ours, theirs, size in zip(a.magnitudes, b.magnitudes, scale.magnitudes, strict=True):
        norm = size.flatten(1).norm(dim=1) + 1e-3
        relative = ((ours - theirs).square().flatten(1).sum(dim=1) + 1e-8).sqrt().div(norm).mean()
        logs = (torch.log(ours + QUIET) - torch.log(theirs + QUIET)).abs().mean()
        terms += [weights.magnitude * relative, logs]
    return torch.stack(terms).mean() + weights.mel * ((a.mel - b.mel).abs() * (1 + loudness(scale.mel))).mean()


def _magnitude(wave: Tensor, n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, device=wave.device)
    spectrum = torch.stft(wave, n_fft, hop, window=window, center=True, return_complex=True) / n_fft**0.5
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)


def loudness(mel: Tensor) -> Tensor:
    """Additional weight of the cells of a decimal log-mel, same shape: 1 at ``LOUD``, growing with the level.

    Attacks are loud, short and few, and come out too weak otherwise.
    """
    return torch.pow(10.0, GROWTH * (mel - LOUD))


def loud_error(decoded: Tensor, mel: Tensor) -> Tensor:
    """Mean absolute error of log-mels whose cells weigh more the louder they are."""
    return ((decoded - mel).abs() * (1 + loudness(mel))).mean()
