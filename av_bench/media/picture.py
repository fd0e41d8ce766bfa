"""The picture of one file while it is decoded: the frames that are due at the ticks of a request, resized.

Frame picking at a tick rate follows ffmpeg's ``fps`` filter with rounding "near": tick n shows the last frame whose
time rounds (half away from zero) to at most n ticks. At 0.5 ticks/s and 25 frames/s that is the frame at 0.96 s.

A request with ``pick="after"`` shows the first frame at or after a tick instead, ticks and times in floating point as
the published demo of MMAudio counts them: a tick that lies a rounding error above a frame's time takes the next frame.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from av_bench.contracts import VideoRequest
from av_bench.media.headers import ONE_THREAD

_RESIZE_CHUNK = 16  # frames resized at once ...
_RESIZE_BYTES = 64 << 20  # ... unless they take more than this
_LARGEST = 1 << 24  # pixels of a picture before it is cropped; one of 4000 x 2 would become 448,000 x 224


class Picker:
    """Emulates the fps filter for one request and resizes what it picks.

    ``count`` is the number of ticks wanted, None for all. A frame of another size than the one before is resized by
    itself; all come out in the size of the first.
    """

    def __init__(self, request: VideoRequest, count: int | None) -> None:
        self.request = request
        self.count = count
        self.fps = Fraction(request.fps).limit_denominator(1001)
        self.tick = 0
        self.previous: VideoFrame | None = None
        self._due = 0.0  # s, of the next tick, for ``pick="after"``
        self._to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
        self._waiting: list[NDArray[np.uint8]] = []
        self._ready: list[torch.Tensor] = []
        self._last: tuple[VideoFrame, NDArray[np.uint8]] | None = None

    @property
    def done(self) -> bool:
        """Whether all ticks have their frame."""
        return self.count is not None and self.tick >= self.count

    def push(self, time: Fraction, frame: VideoFrame) -> None:
        """Take a frame that is shown from ``time`` (s) on."""
        if self.done:
            return
        if self.request.pick == "after":
            while not self.done and float(time) >= self._due:
                self._wait(self._array(frame))
                self.tick += 1
                self._due += 1 / self.request.fps
            self.previous = frame
            return
        due = _round_half_up(time * self.fps)
        if self.previous is None:
            self.previous = frame  # ticks before the first frame show the first frame
        self._emit_until(due)
        self.previous = frame

    def finish(self, end: float | None) -> None:
        """Show the last frame until ``end`` (s): ticks after the last frame have no other one."""
        if end is not None and self.previous is not None:
            self._emit_until(_round_half_up(Fraction(end).limit_denominator(1_000_000) * self.fps))
        self._flush()

    def _emit_until(self, tick: int) -> None:
        while self.previous is not None and self.tick < tick and not self.done:
            self._wait(self._array(self.previous))
            self.tick += 1

    def _wait(self, array: NDArray[np.uint8]) -> None:
        if self._waiting and self._waiting[-1].shape != array.shape:
            self._flush()
        self._waiting.append(array)
        largest = max(array.nbytes, 3 * math.prod(_target(array.shape[:2], self.request)))
        if len(self._waiting) == _RESIZE_CHUNK or len(self._waiting) * largest > _RESIZE_BYTES:
            self._flush()

    def _array(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if self._last is None or self._last[0] is not frame:
            array: NDArray[Any] = self._to_rgb.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
            turns = round(frame.rotation / 90) % 4
            self._last = (frame, np.rot90(array, turns) if turns else array)
        return self._last[1]

    def _flush(self) -> None:
        if self._waiting:
            batch = torch.from_numpy(np.stack(self._waiting)).permute(0, 3, 1, 2)
            target = tuple(self._ready[0].shape[-2:]) if self._ready else None
            self._ready.append(resize(batch, self.request, target))
            self._waiting = []

    def stack(self) -> torch.Tensor:
        """uint8 ``(ticks, 3, height, width)``."""
        return torch.cat(self._ready) if self._ready else torch.zeros((0, 3, 0, 0), dtype=torch.uint8)


def resize(frames: torch.Tensor, request: VideoRequest, result: tuple[int, ...] | None = None) -> torch.Tensor:
    """uint8 ``(n, 3, h, w)`` -> the request's size, bicubic with antialiasing, on uint8.

    ``result`` is the size (h, w) that must come out: frames of another aspect, which "short" would give another width,
    are stretched to it.
    """
    height, width = frames.shape[-2:]
    size, target = request.size, _target((height, width), request)
    if request.mode == "short" and result is not None:
        target = (result[0], result[1])
    if math.prod(target) > _LARGEST:
        raise ValueError(f"a picture of {width} x {height} is too long to be resized")
    if target != (height, width):
        frames = torch.nn.functional.interpolate(frames, target, mode="bicubic", antialias=True, align_corners=False)
    if request.mode == "center":
        top, left = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
        frames = frames[..., top : top + size, left : left + size]
    return frames.contiguous()


def _target(shape: tuple[int, ...], request: VideoRequest) -> tuple[int, int]:
    """Height and width of a picture of ``shape`` before it is cropped."""
    (height, width), size = shape, request.size
    if request.mode == "squash":
        return size, size
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))
