"""Any duration: long clips are generated in overlapping windows of the length the network was trained on.

At every step each window gets its own velocity from its own stretch of the video; where windows overlap the velocities
are cross-faded (MultiDiffusion, Bar-Tal et al., ICML 2023, with linear weights). One noise covers the whole clip, so
there is no seam to hide afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from av_bench.contracts import UsageError


@dataclass(frozen=True)
class Windows:
    """``starts`` in seconds, ``first`` in latent frames; a window has ``seconds`` and ``frames``; ``total`` frames."""

    starts: tuple[float, ...]
    first: tuple[int, ...]
    seconds: float
    frames: int
    total: int

    def __len__(self) -> int:
        return len(self.starts)

    def split(self, x: Tensor) -> Tensor:
        """``(B, total, C)`` -> ``(B * windows, frames, C)``, the windows of one clip together."""
        if len(self) == 1:
            return x
        parts = torch.stack([x[:, i : i + self.frames] for i in self.first], dim=1)
        return parts.flatten(0, 1)

    def merge(self, parts: Tensor, weights: Tensor) -> Tensor:
        """Inverse of ``split``, cross-faded with ``weights`` on the device of ``parts``."""
        if len(self) == 1:
            return parts
        rows = parts.reshape(-1, len(self), self.frames, parts.shape[-1])
        out = parts.new_zeros(len(rows), self.total, parts.shape[-1])
        for k, start in enumerate(self.first):
            out[:, start : start + self.frames] += rows[:, k] * weights[k, :, None]
        return out

    def weights(self) -> Tensor:
        """``(windows, frames)`` float32: hats that add up to 1 on every frame."""
        ramp = torch.arange(1, self.frames + 1, dtype=torch.float64)
        hat = torch.minimum(ramp, ramp.flip(0))
        total = torch.zeros(self.total, dtype=torch.float64)
        for start in self.first:
            total[start : start + self.frames] += hat
        return torch.stack([hat / total[start : start + self.frames] for start in self.first]).float()


def plan(seconds: float, window: float, overlap: float, frames: int, total: int) -> Windows:
    """Windows over ``seconds`` = ``total`` latent frames; ``frames`` are those of one window.

    Starts are whole seconds, so that they fall on frames of every rate, and the last window ends with the clip. A
    clip of at most ``window`` seconds is one window. UsageError unless 1 <= overlap < window.
    """
    if seconds <= window:
        return Windows((0.0,), (0,), seconds, total, total)
    if not 1 <= overlap <= window - 1:
        raise UsageError(f"windows of {window:g} s can overlap by 1 to {window - 1:g} s, got {overlap:g} s")
    rate = total / seconds
    step, last = int(window - overlap), seconds - window
    starts = [float(s) for s in range(0, int(last) + 1, step)]
    if starts[-1] < last:
        starts.append(last)
    first = [min(round(s * rate), total - frames) for s in starts]
    first[-1] = total - frames
    return Windows(tuple(starts), tuple(first), window, frames, total)
