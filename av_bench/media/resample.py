"""Windowed-sinc resampling in torch: the filter behind every published audio feature of this field.

Kernel: Hann-windowed sinc, 6 zero crossings on each side, cut-off at 0.99 of the lower Nyquist frequency, one
polyphase branch per output sample of a period; output length ``ceil(samples * new / old)``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from av_bench.contracts import UsageError

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


@lru_cache(maxsize=32)
def _kernel(old: int, new: int) -> tuple[torch.Tensor, int]:
    """Polyphase kernel ``(new, 1, taps)`` (built in float64, kept in float32) and its half width in input samples.

    ``old`` and ``new`` are free of common factors. Branch j holds the filter for output time j / new.
    """
    cutoff = min(old, new) * ROLLOFF
    half_width = math.ceil(ZERO_CROSSINGS * old / cutoff)
    taps = torch.arange(-half_width, half_width + old, dtype=torch.float64) / old
    phases = (torch.arange(new) / new).double()  # in float32 first, as in the published filter: then bit-exact
    crossings = ((taps[None, :] - phases[:, None]) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(crossings * math.pi / (2 * ZERO_CROSSINGS)) ** 2
    kernel = torch.sinc(crossings) * window * (cutoff / old)
    return kernel[:, None, :].to(torch.float32), half_width


def resample(audio: torch.Tensor, old_rate: int, new_rate: int) -> torch.Tensor:
    """Float32 ``(..., samples)`` at ``old_rate`` Hz -> ``(..., ceil(samples * new / old))`` at ``new_rate`` Hz."""
    if old_rate <= 0 or new_rate <= 0:
        raise UsageError(f"sample rates must be positive, got {old_rate} and {new_rate} Hz")
    if old_rate == new_rate:
        return audio
    divisor = math.gcd(old_rate, new_rate)
    old, new = old_rate // divisor, new_rate // divisor
    kernel, half_width = _kernel(old, new)
    samples = audio.shape[-1]
    flat = audio.reshape(-1, 1, samples)
    padded = torch.nn.functional.pad(flat, (half_width, half_width + old))
    branches = torch.nn.functional.conv1d(padded, kernel.to(audio), stride=old)  # (rows, new, periods)
    out = branches.transpose(1, 2).reshape(flat.shape[0], -1)
    return out[:, : math.ceil(samples * new / old)].reshape(*audio.shape[:-1], -1)
