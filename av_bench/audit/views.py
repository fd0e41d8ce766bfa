"""Parts of a picture that may be the whole of another one: without borders, where it moves, windows in it.

All boxes are found on thumbnails of a stretch of time, ``(frames, SIZE, SIZE)`` grey levels, and are whole pixels of
them. Black borders are dark to a sharp edge. A window (picture-in-picture, a picture on blurred borders, one on a
still background) has straight edges that stay where they are, and what moves on one side of them has nothing to do
with what moves on the other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.shapes import SIZE

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]

WINDOWS = 6  # windows looked at, at most
_SAME = 0.85  # boxes that have so much of their area in common are one
_BLACK = 24
_CENTRE = 0.85
_MOVES = 2.0  # grey levels of standard deviation that count as movement
_LINES = 7  # straight edges a direction that windows are built from
_LEAST = 24  # pixels: the smallest side of a window
_LENGTH = 20  # pixels: the shortest straight edge
_WEAKEST, _LIKELY = 0.10, 0.15  # every edge of a window; their mean with the weakest
_NOISE = 4.0  # squared grey levels: what compression moves in still places


@dataclass(frozen=True, slots=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends not included."""

    top: int = 0
    bottom: int = SIZE
    left: int = 0
    right: int = SIZE

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def cut(self, frames: NDArray[np.generic]) -> NDArray[np.generic]:
        """The part of ``(n, SIZE, SIZE)``."""
        return frames[:, self.top : self.bottom, self.left : self.right]


def boxes(frames: Grey) -> list[Box]:
    """The views of a stretch: without black borders; its centre; where it moves (if that is less); windows."""
    whole = inside_black(frames)
    found = [whole, centre(whole)]
    active = moving(frames)
    if active is not None and _overlap(active, whole) < _SAME:
        found.append(active)
    for box in windows(frames):
        if all(_overlap(box, other) < _SAME for other in found):
            found.append(box)
    return found


def centre(box: Box) -> Box:
    """The central part of a box: what a cropped copy shows."""
    y, x = (round(side * (1 - _CENTRE) / 2) for side in (box.height, box.width))
    return Box(box.top + y, box.bottom - y, box.left + x, box.right - x)


def _overlap(a: Box, b: Box) -> float:
    """Common area over the area of both."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    common = max(0, height) * max(0, width)
    return common / (a.height * a.width + b.height * b.width - common)


# --------------------------------------------------------------------------- borders


def inside_black(frames: Grey) -> Box:
    """The picture without black borders."""
    brightest = frames.max(axis=0)
    top, bottom = _bright(brightest.max(axis=1))
    left, right = _bright(brightest.max(axis=0))
    return Box(top, bottom, left, right)


def _bright(brightest: Grey) -> tuple[int, int]:
    """First and last + 1 line inside black borders. A border is black to a sharp edge; a dark scene has none."""
    bright = np.flatnonzero(brightest > _BLACK)
    if len(bright) < SIZE // 3:
        return 0, SIZE
    first, last = int(bright[0]), int(bright[-1])
    sharp = 2 * _BLACK  # within two lines of the edge
    top = first if first and brightest[first : first + 3].max() > sharp else 0
    bottom = last + 1 if last < SIZE - 1 and brightest[last - 2 : last + 1].max() > sharp else SIZE
    return top, bottom


def moving(frames: Grey) -> Box | None:
    """The smallest box around what moves; None when next to nothing does."""
    moves = frames.std(axis=0, dtype=np.float32) > _MOVES
    rows, columns = (np.flatnonzero(moves.mean(axis=axis) > 0.03) for axis in (1, 0))
    if len(rows) < _LEAST or len(columns) < _LEAST:
        return None
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


# --------------------------------------------------------------------------- windows


def windows(frames: Grey) -> list[Box]:
    """Boxes with straight edges that stay, the clearest first, at most ``WINDOWS``."""
    across, down = _edges(frames)
    xs = [0, *(line + 1 for line in _straight(across.T)), SIZE]
    ys = [0, *(line + 1 for line in _straight(down)), SIZE]
    sums = (
        np.pad(np.cumsum(_wide(across, 1), axis=0), ((1, 0), (0, 0))),
        np.pad(np.cumsum(_wide(down, 0), axis=1), ((0, 0), (1, 0))),
    )
    found: list[tuple[float, Box]] = []
    for left, right in itertools.combinations(sorted(xs), 2):
        for top, bottom in itertools.combinations(sorted(ys), 2):
            box = Box(top, bottom, left, right)
            if min(box.height, box.width) >= _LEAST and (clear := _clearness(box, *sums)) >= _LIKELY:
                found.append((clear, box))
    chosen: list[Box] = []
    for _, box in sorted(found, key=lambda pair: -pair[0]):
        if all(_overlap(box, other) < _SAME for other in chosen):
            chosen.append(box)
        if len(chosen) == WINDOWS:
            break
    return chosen


def _clearness(box: Box, across: Floats, down: Floats) -> float:
    """How clear the edges of a box are that do not lie on the edge of the picture; 0 with fewer than two of them."""
    xs, ys = ([n for n in ends if 0 < n < SIZE] for ends in ((box.left, box.right), (box.top, box.bottom)))
    edges = [(across[box.bottom, x - 1] - across[box.top, x - 1]) / box.height for x in xs]
    edges += [(down[y - 1, box.right] - down[y - 1, box.left]) / box.width for y in ys]
    if len(edges) < 2 or min(edges) < _WEAKEST:
        return 0.0
    return float(0.5 * min(edges) + 0.5 * np.mean(edges)) + 0.02 * len(edges)


def _edges(frames: Grey) -> tuple[Floats, Floats]:
    """How sharply movement changes across every line between two columns ``(SIZE, SIZE - 1)``, and two rows: one minus
    the correlation in time of the two neighbours, less what it is two and three pixels away."""
    change = frames.astype(np.float32)
    change -= change.mean(axis=0)
    energy = np.einsum("tij,tij->ij", change, change) + _NOISE * len(change)
    noise = _NOISE * len(change)

    def unlike(a: tuple[slice, ...], b: tuple[slice, ...]) -> Floats:
        both = np.einsum("tij,tij->ij", change[a], change[b]) + noise
        out: Floats = 1 - both / np.sqrt(energy[a[1:]] * energy[b[1:]])
        return out

    every, low, high = slice(None), slice(None, -1), slice(1, None)
    across = unlike((every, every, low), (every, every, high))
    down = unlike((every, low, every), (every, high, every))
    return _standing_out(across, 1), _standing_out(down, 0)


def _standing_out(lines: Floats, axis: int) -> Floats:
    near = np.max([_shifted(lines, axis, by) for by in (-3, -2, 2, 3)], axis=0)
    out: Floats = np.clip(np.maximum(lines, 0) - near, 0, 1)
    return out


def _wide(lines: Floats, axis: int) -> Floats:
    """An edge that strays by a pixel counts, for less."""
    out: Floats = np.maximum(lines, 0.7 * np.maximum(_shifted(lines, axis, -1), _shifted(lines, axis, 1)))
    return out


def _shifted(lines: Floats, axis: int, by: int) -> Floats:
    """The lines ``by`` further on, the ends repeated."""
    places = np.clip(np.arange(lines.shape[axis]) + by, 0, lines.shape[axis] - 1)
    return np.take(lines, places, axis)


def _straight(lines: Floats) -> list[int]:
    """Numbers of the clearest lines (rows of ``lines``), no two side by side."""
    total = np.pad(np.cumsum(lines, axis=1), ((0, 0), (1, 0)))
    best = ((total[:, _LENGTH:] - total[:, :-_LENGTH]) / _LENGTH).max(axis=1)
    chosen: list[int] = []
    for line in np.argsort(-best):
        if best[line] < _WEAKEST or len(chosen) == _LINES:
            break
        if all(abs(int(line) - other) > 1 for other in chosen):
            chosen.append(int(line))
    return chosen
