"""Thumbnails for verification, decoded when they are first asked for; the latest stay, up to so many bytes."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from av_bench.audit import sound
from av_bench.audit.shapes import FPS, SIZE
from av_bench.audit.views import Grey
from av_bench.media.stream import Wish, stream

WHOLE_S = 120.0  # a longer file is looked at in parts
_MARGIN_S, _GRID_S = 30.0, 30.0  # around the stretch that is asked for; parts begin and end on this grid


@dataclass(frozen=True)
class Excerpt:
    """Thumbnails ``(frames, SIZE, SIZE)`` of a file from second ``start`` on."""

    start: float
    frames: Grey


class Excerpts:
    """Excerpts of files by the seconds that are wanted; ``budget`` bytes of the latest are kept."""

    def __init__(self, budget: int) -> None:
        self.budget, self.held = budget, 0
        self._kept: OrderedDict[tuple[Path, float, float], Excerpt] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, seconds: float, begin: float, end: float) -> Excerpt:
        """The part of a file of ``seconds`` around ``begin`` to ``end``. Raises MediaError."""
        key = (path, *_part(seconds, begin, end))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        excerpt = read(*key)  # threads decode side by side; now and then two of them the same file
        with self._lock:
            if key not in self._kept:
                self._kept[key] = excerpt
                self.held += excerpt.frames.nbytes
            while self.held > self.budget and len(self._kept) > 1:
                self.held -= self._kept.popitem(last=False)[1].frames.nbytes
        return excerpt


def _part(seconds: float, begin: float, end: float) -> tuple[float, float]:
    """Beginning and end of the part that is decoded: all of a short file."""
    if seconds <= WHOLE_S:
        return 0.0, math.inf
    first = max(0.0, math.floor((begin - _MARGIN_S) / _GRID_S) * _GRID_S)
    return first, min(math.ceil((end + _MARGIN_S) / _GRID_S) * _GRID_S, first + 4 * WHOLE_S)


def read(path: Path, start: float, end: float) -> Excerpt:
    """Decode a part of a file; its sound is skipped over."""
    frames: list[Grey] = []
    wish = Wish(FPS, SIZE, sound.RATE, start, None if math.isinf(end) else end, sound=False)
    stream(path, wish, frames.append, lambda _: None)
    return Excerpt(start, np.stack(frames) if frames else np.zeros((0, SIZE, SIZE), np.uint8))
