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
_LARGEST_KERNEL = 1 << 26  # numbers; rates without a common factor (44101 and 16000 Hz) would need gigabytes
_BLOCK = 1 << 16  # outputs computed at once without a kernel


def _half_width(old: int, new: int) -> int:
    """Input samples on each side that the filter reaches."""
    return math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))


@constant
def _kernel(old: int, new: int) -> NDArray[np.float32]:
    """Polyphase kernel ``(new, 1, taps)``, built in float64 and kept in float32.

    ``old`` and ``new`` are free of common factors. Branch j holds the filter for output time j / new.
    """
    half_width = _half_width(old, new)
    taps = np.arange(-half_width, half_width + old, dtype=np.float64) / old
    return _filter(taps[None], old, new)[:, None, :]


def _filter(taps: NDArray[np.float64], old: int, new: int) -> NDArray[np.float32]:
    """The filter of every branch ``(new, taps)`` at ``taps``, in s, the same for all or ``(new, taps)``."""
    cutoff = min(old, new) * ROLLOFF
    phases = np.arange(new, dtype=np.float32) / np.float32(new)  # in float32, as in the published filter: bit-exact
    crossings = np.clip((taps - phases[:, None].astype(np.float64)) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(crossings * math.pi / (2 * ZERO_CROSSINGS)) ** 2
    return np.asarray(np.sinc(crossings) * window * (cutoff / old), dtype=np.float32)


def _without_kernel(flat: torch.Tensor, old: int, new: int, samples: int) -> torch.Tensor:
    """``(rows, n)`` -> ``(rows, samples)``: only the taps of each branch that are not 0, block by block."""
    half_width = _half_width(old, new)
    first = np.arange(new, dtype=np.int64) * old // new - half_width  # input sample of each branch's first tap
    taps = first[:, None] + np.arange(2 * half_width + 2)
    weights = torch.from_numpy(_filter(taps / old, old, new)).to(flat)
    padded = torch.nn.functional.pad(flat, (half_width, half_width + old + 2))
    starts, reach = torch.from_numpy(first + half_width), torch.arange(taps.shape[1])
    out = []
    for start in range(0, samples, _BLOCK):
        ticks = torch.arange(start, min(start + _BLOCK, samples))
        period, branch = ticks // new, ticks % new
        index = (period * old + starts[branch])[:, None] + reach
        out.append((padded[:, index] * weights[branch]).sum(dim=-1))
    return torch.cat(out, dim=-1)


def resample(audio: torch.Tensor, old_rate: int, new_rate: int) -> torch.Tensor:
    """Float32 ``(..., samples)`` at ``old_rate`` Hz -> ``(..., ceil(samples * new / old))`` at ``new_rate`` Hz."""
    if old_rate <= 0 or new_rate <= 0:
        raise UsageError(f"sample rates must be positive, got {old_rate} and {new_rate} Hz")
    if old_rate == new_rate:
        return audio
    divisor = math.gcd(old_rate, new_rate)
    old, new = old_rate // divisor, new_rate // divisor
    half_width, samples = _half_width(old, new), audio.shape[-1]
    length = math.ceil(samples * new / old)
    flat = audio.reshape(-1, 1, samples)
    if new * (old + 2 * half_width) > _LARGEST_KERNEL and length:
        return _without_kernel(flat[:, 0], old, new, length).reshape(*audio.shape[:-1], -1)
    kernel = _kernel(old, new)
    padded = torch.nn.functional.pad(flat, (half_width, half_width + old))
    branches = torch.nn.functional.conv1d(padded, kernel.to(audio), stride=old)  # (rows, new, periods)
    out = branches.transpose(1, 2).reshape(flat.shape[0], -1)
    return out[:, :length].reshape(*audio.shape[:-1], -1)
