"""The fingerprint of a picture: a perceptual hash of its motion.

Of every view (``views``) of a thumbnail the 4 x 4 lowest cosine coefficients are kept. A 64-bit code covers 16 frames
(2 s): the signs of the frequencies 1 to 4 in time of those 16. The constant in time is left out, so a logo, a still
background or a brightness change moves few bits, and what is hashed is the motion. Where nothing moves there is no
code: still pictures match everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.shapes import FPS, Floats, cosines
from av_bench.audit.views import Box, boxes

WINDOW = 16  # frames of a code
SEGMENT = 240  # frames whose views are found together
_SHORT = 16  # frames: a last piece shorter than this keeps the views of the one before
_STILL = 0.06  # grey levels (of 255) of motion below which codec noise would be hashed (a still picture: up to 0.03)
_UNITS = 64.0  # of a stored coefficient, to a grey level

Codes = NDArray[np.uint64]


@dataclass(frozen=True)
class Picture:
    """The views of a file: ``flat`` (views, frames, 16) int16 coefficients in 1/64 grey level, zero where a view is not
    there; ``where`` (segments, views, 4) uint8 the box of each (top, bottom, left, right), all zero likewise."""

    flat: NDArray[np.int16]
    where: NDArray[np.uint8]

    def __len__(self) -> int:
        return int(self.flat.shape[0])

    @property
    def frames(self) -> int:
        """Frames of each view."""
        return int(self.flat.shape[1])

    def coefficients(self, view: int) -> Floats:
        """``(frames, 16)`` of a view, in grey levels."""
        out: Floats = self.flat[view].astype(np.float32) / _UNITS
        return out

    def box(self, view: int, seconds: float) -> Box:
        """The box of a view at a time of the file."""
        segment = min(max(int(seconds * FPS) // SEGMENT, 0), len(self.where) - 1)
        top, bottom, left, right = (int(x) for x in self.where[segment, view])
        return Box(top, bottom, left, right) if bottom > top else Box()


def empty() -> Picture:
    """What a file without a picture has."""
    return Picture(np.zeros((0, 0, 16), np.int16), np.zeros((0, 0, 4), np.uint8))


class Collector:
    """Takes thumbnails one by one and keeps their coefficients; memory of a segment's thumbnails only."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.uint8]] = []
        self._flat: list[list[Floats]] = []
        self._where: list[list[Box]] = []

    def push(self, thumbnail: NDArray[np.uint8]) -> None:
        """Take the next one."""
        self._waiting.append(thumbnail)
        if len(self._waiting) == SEGMENT + _SHORT:  # what is left for the next segment is never too short for one
            self._segment(SEGMENT)

    def result(self) -> Picture:
        """All views of all that was pushed."""
        if self._waiting:
            self._segment(len(self._waiting))
        if not self._flat:
            return empty()
        count = max(map(len, self._where))
        flat = np.concatenate([_padded(segment, count) for segment in self._flat], axis=1)
        where = np.zeros((len(self._where), count, 4), np.uint8)
        for row, found in zip(where, self._where, strict=True):
            row[: len(found)] = [(b.top, b.bottom, b.left, b.right) for b in found]
        return Picture(flat, where)

    def _segment(self, length: int) -> None:
        frames = np.stack(self._waiting[:length])
        self._waiting = self._waiting[length:]
        views = boxes(frames)
        self._flat.append([lowest(frames, box) for box in views])
        self._where.append(views)


def lowest(frames: NDArray[np.uint8], box: Box) -> Floats:
    """The 4 x 4 lowest cosine coefficients of a box, ``(frames, 16)``, in grey levels."""
    part = box.cut(frames).astype(np.float32)
    square = cosines(box.height, 0, 4) @ part @ cosines(box.width, 0, 4).T
    out: Floats = square.reshape(len(frames), 16) / np.sqrt(np.float32(box.height * box.width))
    return out


def _padded(segment: Sequence[Floats], count: int) -> NDArray[np.int16]:
    flat = np.zeros((count, len(segment[0]), 16), np.int16)
    flat[: len(segment)] = np.clip(np.round(np.stack(segment) * _UNITS), -32767, 32767)
    return flat


def agreement(a: Floats, b: Floats) -> float:
    """Correlation of what changes in two runs of coefficients ``(frames, 16)``; 0 where nothing does."""
    x, y = (flat - flat.mean(axis=0) for flat in (a, b))
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def codes(flat: Floats, weak_bits: int = 3) -> tuple[Codes, NDArray[np.bool_], NDArray[np.uint8]]:
    """Codes ``(m,)`` of coefficients ``(frames, 16)``, their mask, and the weakest bits of each, ``(m, weak_bits)``;
    m = frames - 15."""
    count = len(flat) - WINDOW + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros((0, weak_bits), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(flat, WINDOW, axis=0)  # (m, 16, WINDOW)
    values = np.tensordot(windows, cosines(WINDOW, 1, 4), (2, 1)).transpose(0, 2, 1).reshape(count, 64)
    values /= np.sqrt(np.float32(WINDOW))
    found = np.packbits(values > 0, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)
    weak = np.zeros((count, 0), np.uint8)
    if weak_bits:
        weak = np.argsort(np.abs(values), axis=1)[:, :weak_bits].astype(np.uint8)
    return found, np.sqrt((values**2).sum(axis=1)) > _STILL, weak
