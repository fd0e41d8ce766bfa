"""Front ends of the paper's audio networks: waveform in, log-mel out, batched torch on the input's device.

Every function takes float32 waveforms with the samples last and keeps leading axes. Filter banks and windows are
computed in float64 from their definitions and rounded once.

Two things tell the mel banks of this field apart besides their mel scale: whether the triangles are straight lines
over Hz (librosa, torchaudio) or over mel (HTK, Kaldi, VGGish), and whether they are scaled to unit area (Slaney).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_bench.runtime.constants import constant

Floats = NDArray[np.float64]
Scale = Literal["htk", "slaney"]
FLOAT_EPS = 1.1920928955078125e-07  # Kaldi's floor under the logarithm

VGGISH_MINIMUM = 15_600  # samples: 96 frames
IMAGEBIND_FRAMES = 204
SYNCHFORMER_SEGMENT, SYNCHFORMER_STEP = 10_240, 5_120  # samples: 0.64 s every 0.32 s
PASST_SAMPLES = 320_000
STORED_FRONT_END = r"(audio_branch\.)?(spectrogram|logmel)_extractor\."  # STFT and mel matrices in weight files


# --------------------------------------------------------------------------- parts


def _to_mel(hertz: Floats, scale: Scale) -> Floats:
    if scale == "htk":
        return np.asarray(1127.0 * np.log1p(hertz / 700.0))
    # Slaney's Auditory Toolbox: linear below 1 kHz (3 mel per 200 Hz), 27 mel per factor of 6.4 above.
    above = 15 + 27 * np.log(np.maximum(hertz, 1.0) / 1000) / math.log(6.4)
    return np.where(hertz < 1000.0, hertz * 3 / 200, above)


def _to_hertz(mel: Floats, scale: Scale) -> Floats:
    if scale == "htk":
        return np.asarray(700.0 * np.expm1(mel / 1127.0))
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


@constant
def mel_bank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    low: float,
    high: float,
    *,
    scale: Scale = "htk",
    straight_over: Literal["hertz", "mel"] = "hertz",
    unit_area: bool = False,
) -> NDArray[np.float32]:
    """Triangular filters float32 ``(n_mels, n_fft // 2 + 1)``, edges equally spaced in mel from low to high Hz."""
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    low_mel, high_mel = _to_mel(np.array([low, high]), scale)
    edges_mel = np.linspace(low_mel, high_mel, n_mels + 2)
    edges_hertz = _to_hertz(edges_mel, scale)
    points, edges = (bins, edges_hertz) if straight_over == "hertz" else (_to_mel(bins, scale), edges_mel)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (points - left) / (centre - left)
    falling = (right - points) / (right - centre)
    bank = np.maximum(np.minimum(rising, falling), 0)
    if unit_area:
        bank = bank * (2 / (edges_hertz[2:] - edges_hertz[:-2]))[:, None]
    return bank.astype(np.float32)


@constant
def hann(length: int, *, periodic: bool) -> NDArray[np.float32]:
    """Hann window float32 ``(length,)``; the symmetric one (periodic=False) ends on zero at both sides."""
    turn = 2 * np.pi * np.arange(length) / (length if periodic else length - 1)
    return (0.5 - 0.5 * np.cos(turn)).astype(np.float32)


def stft_power(wave: Tensor, n_fft: int, window: Tensor, hop: int) -> Tensor:
    """Power spectrogram ``(B, n_fft // 2 + 1, 1 + samples // hop)`` of ``(B, samples)``: centred, reflected edges.

    A window shorter than ``n_fft`` is centred in it.
    """
    spectrum = torch.stft(
        wave, n_fft, hop, len(window), window.to(wave.device), center=True, pad_mode="reflect", return_complex=True
    )
    return spectrum.real.square() + spectrum.imag.square()


# --------------------------------------------------------------------------- networks


def decibel_mel(wave: Tensor, sample_rate: int, n_fft: int, hop: int, low: float, high: float) -> Tensor:
    """PANNs and LAION-CLAP: ``(B, samples)`` -> 64 Slaney mels of unit area in dB, ``(B, 1 + samples // hop, 64)``.

    10 log10(max(power, 1e-10)) with no reference level and no ceiling. PANNs 16 kHz: n_fft 512, hop 160, 50-8000 Hz;
    LAION-CLAP 48 kHz: n_fft 1024, hop 480, 50-14000 Hz.
    """
    power = stft_power(wave, n_fft, hann(n_fft, periodic=True), hop)
    bank = mel_bank(sample_rate, n_fft, 64, low, high, scale="slaney", unit_area=True).to(wave.device)
    return 10 * torch.log10((power.transpose(1, 2) @ bank.T).clamp(min=1e-10))


def vggish_examples(wave: Tensor) -> Tensor:
    """VGGish: 16 kHz ``(B, samples)`` -> ``(B, patches, 96, 64)``, patches of 0.96 s without overlap.

    Magnitude (not power) of 400-sample frames zero-padded to 512, 64 HTK mels 125-7500 Hz, ln(mel + 0.01); the
    incomplete last patch is dropped. At least 15,600 samples are needed for one patch.
    """
    frames = wave.unfold(-1, 400, 160) * hann(400, periodic=True).to(wave.device)
    magnitude = torch.fft.rfft(frames, 512).abs()
    bank = mel_bank(16_000, 512, 64, 125.0, 7500.0, straight_over="mel").to(wave.device)
    return torch.log(magnitude @ bank.T + 0.01).unfold(1, 96, 96).transpose(2, 3)


def passt_mel(wave: Tensor) -> Tensor:
    """PaSST: 32 kHz ``(B, samples)`` -> ``(B, 128, frames)``; 320,000 samples give 1000 frames.

    Pre-emphasis 0.97 (one sample shorter), n_fft 1024, symmetric 800-sample window, hop 320, 128 Kaldi mels
    0-15000 Hz, ln(x + 1e-5), then (x + 4.5) / 5.
    """
    emphasised = wave[:, 1:] - 0.97 * wave[:, :-1]
    power = stft_power(emphasised, 1024, hann(800, periodic=False), 320)
    bank = mel_bank(32_000, 1024, 128, 0.0, 15_000.0, straight_over="mel").to(wave.device)
    return (torch.log(bank @ power + 1e-5) + 4.5) / 5


def synchformer_mel(wave: Tensor) -> Tensor:
    """Synchformer: 16 kHz ``(B, samples)`` -> ``(B, segments, 1, 128, 66)``, every segment on its own.

    Segments of 10,240 samples every 5,120; n_fft 1024, 400-sample window, hop 160, 128 HTK mels 0-8000 Hz,
    ln(x + 1e-6). The 65 frames are padded to 66 with the value 0 before normalisation, as the network was trained:
    the last frame is a constant, not silence.
    """
    segments = wave.unfold(-1, SYNCHFORMER_SEGMENT, SYNCHFORMER_STEP)
    power = stft_power(segments.flatten(0, 1), 1024, hann(400, periodic=True), 160)
    bank = mel_bank(16_000, 1024, 128, 0.0, 8000.0).to(wave.device)
    mel = torch.nn.functional.pad(torch.log(bank @ power + 1e-6), (0, 1))
    mel = (mel + 4.2677393) / (2 * 4.5689974)
    return mel.view(*segments.shape[:2], 1, *mel.shape[1:])


def kaldi_fbank(wave: Tensor) -> Tensor:
    """Kaldi filter bank at 16 kHz: ``(B, samples)`` -> ``(B, 1 + (samples - 400) // 160, 128)``.

    25/10 ms frames inside the signal, per-frame mean removal, pre-emphasis 0.97 inside the frame (the first sample is
    its own predecessor), symmetric Hann window, 512-point power spectrum, 128 mels 20-8000 Hz, log with floor
    ``FLOAT_EPS``; no dither, no energy.
    """
    frames = wave.unfold(-1, 400, 160)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - 0.97 * previous) * hann(400, periodic=False).to(wave.device)
    spectrum = torch.fft.rfft(frames, 512)
    power = spectrum.real.square() + spectrum.imag.square()
    bank = mel_bank(16_000, 512, 128, 20.0, 8000.0, straight_over="mel").to(wave.device)
    return torch.log((power @ bank.T).clamp(min=FLOAT_EPS))


def imagebind_mel(clips: Tensor) -> Tensor:
    """ImageBind: centred 16 kHz clips ``(B, up to 32,000 samples)`` -> ``(B, 1, 128, 204)``.

    198 frames are padded to 204 with 0 in the log domain, then (x + 4.268) / 9.138: the padding reads 0.467.
    """
    mel = kaldi_fbank(clips).transpose(1, 2)
    mel = torch.nn.functional.pad(mel, (0, IMAGEBIND_FRAMES - mel.shape[-1]))
    return ((mel + 4.268) / 9.138)[:, None]


# --------------------------------------------------------------------------- framing and cropping


def fit(wave: Tensor, samples: int, *, repeat: bool = False) -> Tensor:
    """``(n,)`` cut, or padded with zeros at the end, to ``samples``; ``repeat`` first tiles it as often as fits."""
    if repeat and 0 < len(wave) < samples:
        wave = wave.repeat(samples // len(wave))
    return torch.nn.functional.pad(wave[:samples], (0, max(0, samples - len(wave))))


def spatial_crops(frames: Tensor, size: int = 224) -> Tensor:
    """``(n, 3, h, w)``, short side ``size`` -> ``(3, n, 3, size, size)``: start, centre and end of the long side."""
    height, width = frames.shape[-2:]
    tops, lefts = ((0, math.ceil((side - size) / 2), side - size) for side in (height, width))
    return torch.stack([frames[..., y : y + size, x : x + size] for y, x in zip(tops, lefts, strict=True)])
