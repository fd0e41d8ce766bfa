"""What the decoder is asked for and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

Modality = Literal["audio", "video", "text"]
SILENCE_PEAK = 1e-4  # -80 dBFS: sound below this counts as silent


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """Frames an extractor wants: tick rate, pixel size and how the size is reached.

    ``short`` resizes the short side to ``size``; ``center`` also cuts the central ``size`` x ``size``;
    ``squash`` resizes to ``size`` x ``size`` without keeping the aspect. Always bicubic, antialiased, on uint8.
    ``pick``: ``nearest`` shows at each tick what ffmpeg's fps filter shows, ``after`` the first frame at or after it.
    """

    fps: float
    size: int
    mode: Literal["short", "center", "squash"] = "center"
    pick: Literal["nearest", "after"] = "nearest"


@runtime_checkable
class Decoded(Protocol):
    """One media file, decoded once. See ``av_bench.media.decode.DecodedMedia``."""

    path: Path
    digest: str
    sample_rate: int

    def waveform(self, sample_rate: int, seconds: float | None, *, remove_mean: bool = True) -> torch.Tensor:
        """Mono float32 ``(samples,)``: channel mean, file mean removed, resampled, cut to ``seconds``."""

    def channels(self, sample_rate: int, seconds: float | None) -> torch.Tensor:
        """Float32 ``(channels, samples)``: resampled, nothing mixed or removed, cut to ``seconds``."""

    def frames(self, request: VideoRequest) -> torch.Tensor:
        """uint8 ``(frames, 3, height, width)`` for one of the requests the file was decoded for."""
