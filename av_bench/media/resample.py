"""Windowed-sinc resampling in torch: the filter behind every published audio feature of this field.

Kernel: Hann-windowed sinc, 6 zero crossings on each side, cut-off at 0.99 of the lower Nyquist frequency, one
polyphase branch per output sample of a period; output length ``ceil(samples * new / old)``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import UsageError
from av_bench.runtime.constants import constant

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def _half_width(old: int, new: int) -> int:
    """Input samples on each side that the filter reaches."""
    return math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))


@constant
def _kernel(old: int, new: int) -> NDArray[np.float32]:
    """Polyphase kernel ``(new, 1, taps)``, built in float64 and kept in float32.

    ``old`` and ``new`` are free of common factors. Branch j holds the filter for output time j / new.
    """
    cutoff, half_width = min(old, new) * ROLLOFF, _half_width(old, new)
    taps = np.arange(-half_width, half_width + old, dtype=np.float64) / old
    phases = np.arange(new, dtype=np.float32) / np.float32(new)  # in float32, as in the published filter: bit-exact
    crossings = np.clip((taps[None] - phases[:, None].astype(np.float64)) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(crossings * math.pi / (2 * ZERO_CROSSINGS)) ** 2
    kernel = np.sinc(crossings) * window * (cutoff / old)
    return np.asarray(kernel[:, None, :], dtype=np.float32)


def resample(audio: torch.Tensor, old_rate: int, new_rate: int) -> torch.Tensor:
    """Float32 ``(..., samples)`` at ``old_rate`` Hz -> ``(..., ceil(samples * new / old))`` at ``new_rate`` Hz."""
    if old_rate <= 0 or new_rate <= 0:
        raise UsageError(f"sample rates must be positive, got {old_rate} and {new_rate} Hz")
    if old_rate == new_rate:
        return audio
    divisor = math.gcd(old_rate, new_rate)
    old, new = old_rate // divisor, new_rate // divisor
    kernel, half_width = _kernel(old, new), _half_width(old, new)
    samples = audio.shape[-1]
    flat = audio.reshape(-1, 1, samples)
    padded = torch.nn.functional.pad(flat, (half_width, half_width + old))
    branches = torch.nn.functional.conv1d(padded, kernel.to(audio), stride=old)  # (rows, new, periods)
    out = branches.transpose(1, 2).reshape(flat.shape[0], -1)
    return out[:, : math.ceil(samples * new / old)].reshape(*audio.shape[:-1], -1)
