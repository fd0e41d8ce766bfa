"""Media and text to the condition tokens of ``mmaudio-nano``."""

from __future__ import annotations

import hashlib
import math
from typing import Self

import torch
from torch import Tensor

from av_bench.contracts import Decoded, MediaError, Reason, UsageError, VideoRequest
from av_bench.networks.nano import grey
from model_zoo.mmaudio.nano.encoders import LOOK_REQUEST, MOTION_REQUEST, Sight

STRETCH = 8.0  # s that the networks were trained on
SHORTEST = 0.5  # s: one frame at 2 per second


def whole_stretch(seconds: float) -> float:
    """The next whole stretch (s). UsageError below 0.5 s, where there is no frame at 2 per second."""
    if not seconds >= SHORTEST:
        raise UsageError(f"mmaudio-nano makes {SHORTEST:g} s and more, got {seconds:g} s")
    return STRETCH * math.ceil(seconds / STRETCH)


class NanoConditioner:
    """The feature networks behind the interface that sampling and extraction ask for."""

    requests: tuple[VideoRequest, ...] = (MOTION_REQUEST, LOOK_REQUEST)
    precision = "fp32"

    def __init__(self, sight: Sight) -> None:
        self.sight = sight.eval().requires_grad_(False)
        digest = hashlib.sha256()
        for key, value in sorted(sight.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        self.device = torch.device("cpu")
        self.fingerprint = f"nano-sight-{digest.hexdigest()[:16]}"

    def lengths(self, seconds: float) -> tuple[int, int]:
        """Tokens of clip and sync sequence: those of the next whole stretch. UsageError below 0.5 s."""
        whole = whole_stretch(seconds)
        return int(whole * LOOK_REQUEST.fps), int(whole * MOTION_REQUEST.fps)

    @torch.no_grad()
    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        """Clip tokens ``(16, 32)`` and sync tokens ``(200, 32)`` of a stretch of up to 8 s (more: of the next multiple
        of 8 s).

        What a shorter stretch lacks is filled by holding its last frame, so that the networks see the length they were
        trained on and nothing moves after the end. MediaError when the frames do not fill the stretch itself.
        """
        frames = [
            self._stretch(media, request, length, seconds, start)
            for request, length in zip((LOOK_REQUEST, MOTION_REQUEST), self.lengths(seconds), strict=True)
        ]
        clip = self.sight.clip_tokens(frames[0][None].to(self.device))[0].cpu()
        sync = self.sight.sync_tokens(grey(frames[1])[None].to(self.device))[0].cpu()
        return clip, sync

    def _stretch(self, media: Decoded, request: VideoRequest, length: int, seconds: float, start: float) -> Tensor:
        """``length`` frames from ``start``, the last of the stretch repeated."""
        # Down, as the decoder counts frames: a window that ends with the clip must not ask for one more.
        first, count = int(start * request.fps), int(seconds * request.fps)
        frames = media.frames(request)[first : first + count]
        if len(frames) < count:
            raise MediaError(
                media.path,
                Reason.TOO_SHORT_VIDEO,
                f"{len(frames)} of {count} frames at {request.fps:g} per second from {start:g} s",
            )
        return frames if count == length else torch.cat([frames, frames[-1:].expand(length - count, -1, -1, -1)])

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """``(24, 32)``."""
        return self.sight.text_tokens(text).cpu()

    def to(self, device: torch.device) -> Self:
        """Move the networks."""
        self.device = device
        self.sight.to(device)
        return self
