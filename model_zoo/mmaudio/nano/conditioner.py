"""Media and text to the condition tokens of ``mmaudio-nano``."""

from __future__ import annotations

import hashlib
from typing import Self

import torch
from torch import Tensor

from av_bench.contracts import Decoded, MediaError, Reason, UsageError, VideoRequest
from model_zoo.mmaudio.config import SYNC_TOKENS
from model_zoo.mmaudio.nano.sight import FRAME_RATE, LOOK_REQUEST, MOTION_REQUEST, Sight
from model_zoo.networks.nano import grey


class NanoConditioner:
    """The feature networks behind the interface that sampling and extraction ask for."""

    requests: tuple[VideoRequest, ...] = (MOTION_REQUEST, LOOK_REQUEST)

    def __init__(self, sight: Sight) -> None:
        self.sight = sight.eval().requires_grad_(False)
        digest = hashlib.sha256()
        for key, value in sorted(sight.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        self.device = torch.device("cpu")
        self.fingerprint = f"nano-sight-{digest.hexdigest()[:16]}"

    def lengths(self, seconds: float) -> tuple[int, int]:
        """Tokens of clip and sync sequence. UsageError for a stretch that is not whole in both."""
        clip, sync = seconds * LOOK_REQUEST.fps, seconds * FRAME_RATE
        if clip < 1 or clip % 1 or sync % SYNC_TOKENS:
            raise UsageError(
                f"mmaudio-nano makes stretches of whole {SYNC_TOKENS / FRAME_RATE:g} s and 0.5 s (8 s is one), "
                f"got {seconds:g} s"
            )
        return int(clip), int(sync)

    @torch.no_grad()
    def video(self, media: Decoded, seconds: float, start: float = 0.0) -> tuple[Tensor, Tensor]:
        """Clip ``(2 s, 32)`` and sync tokens ``(25 s, 32)`` of a stretch; MediaError when the frames do not fill it."""
        counts = self.lengths(seconds)
        frames = []
        for request, count in zip((LOOK_REQUEST, MOTION_REQUEST), counts, strict=True):
            first = round(start * request.fps)
            stretch = media.frames(request)[first : first + count]
            if len(stretch) < count:
                raise MediaError(
                    media.path,
                    Reason.TOO_SHORT_VIDEO,
                    f"{len(stretch)} of {count} frames at {request.fps:g} per second from {start:g} s",
                )
            frames.append(stretch)
        clip = self.sight.clip_tokens(frames[0][None].to(self.device))[0].cpu()
        sync = self.sight.sync_tokens(grey(frames[1])[None].to(self.device))[0].cpu()
        return clip, sync

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """``(24, 32)``."""
        return self.sight.text_tokens(text).cpu()

    def to(self, device: torch.device) -> Self:
        """Move the networks."""
        self.device = device
        self.sight.to(device)
        return self
