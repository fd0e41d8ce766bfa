"""The model: a tone whose pitch is drawn for each sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch

from av_bench.contracts import Clip, ClipSet, Generated, Generator, UsageError, clip_seed

RATE = 16_000


class Tone(Generator):
    """A tone within an octave above ``base`` Hz."""

    name = "example-tone"
    options: ClassVar[Mapping[str, str]] = {"base": "lowest frequency in Hz (default 220)"}

    def __init__(self, base: float = 220.0) -> None:
        if not 20 <= base <= 3000:
            raise UsageError(f"model {self.name}: base must lie between 20 and 3000 Hz, got {base:g}")
        self.base, self.seconds, self.sample_rate = base, 0.0, RATE

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Called once with the whole set; refuse here what cannot work."""
        del clips, seed
        self.seconds = seconds

    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """One sample per clip and k; everything random comes from ``clip_seed`` alone."""
        time = torch.arange(round(self.seconds * RATE)) / RATE
        for clip in clips:
            for k in range(samples):
                random = torch.Generator().manual_seed(clip_seed(seed, clip.id, k))
                pitch = self.base * 2 ** float(torch.rand((), generator=random))
                yield Generated(clip.id, k, 0.5 * torch.sin(2 * math.pi * pitch * time)[None], RATE)
