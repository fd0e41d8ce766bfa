"""Made recordings for tests of the audit: a camera that wanders over a picture, and sound with a voice of its own.

They stand for real ones: everything moves, and no two moments or recordings are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

Frames = NDArray[np.uint8]
Sound = NDArray[np.float32]

RATE, FPS, HEIGHT, WIDTH = 22_050, 12, 96, 128


def frames(seed: int, seconds: float, height: int = HEIGHT, width: int = WIDTH) -> Frames:
    """``(n, height, width, 3)``: a window that wanders over a textured ground on which spots move."""
    rng = np.random.default_rng(seed)
    count = round(seconds * FPS)
    ground = sum(zoom(rng.random((k, k)), 384 / k, order=1)[:384, :384] / k**0.4 for k in (6, 16, 48))
    ground = (ground - ground.min()) / np.ptp(ground)
    steps = np.cumsum(np.cumsum(rng.normal(size=(count, 2)), axis=0) * 0.25 + rng.normal(size=2), axis=0)
    place = np.abs((steps - steps.min(axis=0)) % 400 - 200)
    out = np.empty((count, height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    spots = rng.uniform(0, 1, (5, 4))
    for number, (top, left) in enumerate(place.astype(int)):
        grey = ground[top : top + height, left : left + width].copy()
        for a, b, speed, light in spots:
            centre = (
                height * (0.5 + 0.4 * np.sin(number / FPS * (1 + 2 * speed) + 9 * a)),
                width * ((b + number * speed / 40) % 1),
            )
            grey += (light - 0.4) * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * (height / 9) ** 2))
        out[number] = (np.clip(grey, 0, 1)[..., None] * (235, 225, 200)).astype(np.uint8)
    return out


def sound(seed: int, seconds: float) -> Sound:
    """``(1, n)``: short tones with overtones at irregular times, and a little noise."""
    rng = np.random.default_rng(1000 + seed)
    out = rng.normal(scale=0.004, size=round(seconds * RATE))
    at = 0.0
    while (at := at + rng.uniform(0.04, 0.22)) < seconds - 0.3:
        length, tone = rng.uniform(0.06, 0.3), 220 * 2 ** rng.uniform(0, 3)
        t = np.arange(round(length * RATE)) / RATE
        note = sum(np.sin(2 * np.pi * k * tone * t) / k for k in (1, 2, 3)) * np.exp(-4 * t / length) * 0.15
        first = round(at * RATE)
        out[first : first + len(note)] += note[: len(out) - first]
    return np.clip(out, -1, 1).astype(np.float32)[None]


def faster(wave: Sound, factor: float) -> Sound:
    """Played ``factor`` times faster, the pitch with it."""
    at = np.arange(int(wave.shape[1] / factor)) * factor
    return np.stack([np.interp(at, np.arange(wave.shape[1]), row) for row in wave]).astype(np.float32)
