"""The fingerprint of one media file: peaks of its sound, coefficients of its picture. Read once, as a stream.

Both are small (about 8 kB for 10 s) and hold enough to ask for changed copies (other speed, other pitch, mirrored,
turned) without decoding again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from av_bench.audit import picture, sound
from av_bench.audit.picture import Picture
from av_bench.audit.shapes import FPS, SIZE
from av_bench.audit.sound import Peaks
from av_bench.media.stream import Wish, stream

WISH = Wish(FPS, SIZE, sound.RATE)


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a file; ``seconds`` is the length of (sound, picture), 0 where there is no such stream;
    ``shape`` is the width and height of a frame as coded."""

    sound: Peaks
    picture: Picture
    seconds: tuple[float, float]
    shape: tuple[int, int] = (0, 0)

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.shape[0] * self.shape[1]

    @property
    def aspect(self) -> float:
        """Width over height of a frame."""
        return self.shape[0] / self.shape[1] if self.pixels else 1.0

    def pack(self) -> dict[str, Any]:
        """As arrays, for the store."""
        return {
            "times": self.sound.times,
            "bins": self.sound.bins,
            "flat": self.picture.flat,
            "where": self.picture.where,
            "seconds": np.array([*self.seconds, *self.shape], np.float64),
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, Any]) -> Fingerprint:
        """From the arrays of ``pack``."""
        heard, seen, width, height = (float(x) for x in arrays["seconds"])
        peaks = Peaks(np.asarray(arrays["times"]), np.asarray(arrays["bins"]))
        views = Picture(np.asarray(arrays["flat"]), np.asarray(arrays["where"]))
        return cls(peaks, views, (heard, seen), (int(width), int(height)))


def fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of a file. Raises MediaError; a stream that is not there gives an empty part."""
    seen, heard = picture.Collector(), sound.Collector()
    read = stream(path, WISH, seen.push, heard.push)
    views = seen.result()
    return Fingerprint(heard.result(), views, (read.audio_seconds, views.frames / FPS), (read.width, read.height))
