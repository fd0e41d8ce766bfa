"""What a re-upload may do to picture and time before it is compared: mirror, turn, invert, play faster, tune.

A ``Change`` says how a test file was made from a training file; undoing it makes the two alike. Turned and mirrored
codes of a picture need no decoding: its cosine coefficients change sign or place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.shapes import Floats, at_times

# name -> (swap rows and columns, then turn left-right, then upside down) that undoes it
TURNS: dict[str, tuple[bool, bool, bool]] = {
    "": (False, False, False),
    "mirrored": (False, True, False),
    "upside down": (False, True, True),
    "mirrored upside down": (False, False, True),
    "rotated by 90 degrees": (True, False, True),
    "rotated by 270 degrees": (True, True, False),
    "mirrored, rotated by 90 degrees": (True, False, False),
    "mirrored, rotated by 270 degrees": (True, True, True),
}
_FINE = tuple(round(0.94 + 0.01 * i, 2) for i in range(13))
SPEEDS = (0.75, 0.8, 0.85, 0.9, *_FINE, 1.1, 1.15, 1.2, 1.25, 4 / 3, 1.5)
PICTURE_SPEEDS = (0.75, 0.8, 0.9, 1.1, 1.25, 1.5)  # codes of a picture forgive 5 % and more
SEMITONES = (-3, -2, -1, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Change:
    """How the test file differs. ``speed``: it plays so much faster (training time = ``speed`` x test time + offset);
    ``pitch``: it sounds so many semitones higher; ``turn``: a key of ``TURNS``; ``negative``: dark and light swapped.
    """

    speed: float = 1.0
    pitch: float = 0.0
    turn: str = ""
    negative: bool = False

    def words(self) -> str:
        """What is changed, for a person; empty for nothing."""
        parts = [self.turn, "negative" if self.negative else ""]
        parts += [f"speed {self.speed:.3g} x"] if abs(self.speed - 1) > 0.004 else []
        parts += [f"pitch {self.pitch:+.1f} semitones"] if abs(self.pitch) > 0.3 else []
        return ", ".join(part for part in parts if part)


NONE = Change()


def sound_changes() -> list[Change]:
    """Speeds with the pitch kept and with the pitch that goes with them, and pitches alone."""
    found = [Change(speed) for speed in SPEEDS]
    found += [Change(s, 12 * math.log2(s)) for s in SPEEDS if abs(12 * math.log2(s)) > 0.25]
    return found + [Change(pitch=float(p)) for p in SEMITONES]


def picture_changes() -> list[Change]:
    """All turns, the negative, and speeds of the picture as it is and mirrored."""
    found = [Change(turn=turn) for turn in TURNS] + [Change(negative=True)]
    return found + [Change(speed, turn=turn) for speed in PICTURE_SPEEDS for turn in ("", "mirrored")]


def window_changes() -> list[Change]:
    """What is undone in a part of a picture: it may be mirrored."""
    return [NONE, Change(turn="mirrored")]


def undone_coefficients(flat: Floats, change: Change) -> Floats:
    """Coefficients ``(frames, 16)`` (4 rows x 4 columns) of a picture as they were before the change."""
    across, mirror, invert = TURNS[change.turn]
    square = flat.reshape(len(flat), 4, 4)
    if across:
        square = square.transpose(0, 2, 1)
    sign = np.array([1, -1, 1, -1], np.float32)
    square = square * (sign if mirror else 1) * (sign[:, None] if invert else 1)
    if change.negative:
        square = -square
    return _slowed(np.ascontiguousarray(square.reshape(len(flat), 16)), change.speed)


def undone_frames(frames: Floats, change: Change) -> Floats:
    """Frames ``(n, size, size)`` as they were before the change."""
    across, mirror, invert = TURNS[change.turn]
    out: NDArray[Any] = frames.transpose(0, 2, 1) if across else frames
    out = out[:, :: -1 if invert else 1, :: -1 if mirror else 1]
    if change.negative:
        out = 255 - out
    return _slowed(np.ascontiguousarray(out, np.float32), change.speed)


def _slowed(rows: Floats, speed: float) -> Floats:
    """Rows at the rate they had before they were played ``speed`` times faster."""
    if speed == 1 or not len(rows):
        return rows
    return at_times(rows, np.arange(math.floor((len(rows) - 1) * speed) + 1) / speed)
