"""What the eight materials look like, and walls and floors: colour fields over the world."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protocols.impacts.sprites import noise

Floats = NDArray[np.float32]
Paint = Callable[[Floats, Floats, float, np.random.Generator], Floats]

# How much of the background is hidden, and how strong the shine is.
OPACITY = {"glass": 0.5}
GLOSS = {"metal": 0.9, "glass": 1.0, "ceramic": 0.85, "plastic": 0.6}

METALS = ((0.62, 0.66, 0.70), (0.80, 0.64, 0.30), (0.76, 0.45, 0.30))
GLASSES = ((0.70, 0.90, 0.92), (0.62, 0.85, 0.70), (0.65, 0.75, 0.95))
PLASTICS = ((0.88, 0.14, 0.14), (0.10, 0.35, 0.88), (0.98, 0.78, 0.08), (0.10, 0.65, 0.28), (0.95, 0.45, 0.05))
RUBBERS = ((0.13, 0.13, 0.15), (0.26, 0.11, 0.11), (0.10, 0.17, 0.14))
STONES = ((0.52, 0.51, 0.50), (0.60, 0.55, 0.48), (0.46, 0.42, 0.44))


def _mix(base: tuple[float, ...], shade: Floats) -> Floats:
    return np.asarray(base, np.float32) * shade[..., None]


def _wood(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    light, dark = np.array([0.87, 0.68, 0.44]), np.array([0.50, 0.31, 0.17])
    base = light + (dark - light) * tint
    bend = noise(rng, u, v, 0.12, 0.05)
    rings = np.sin(2 * np.pi * (v * 34 + 1.6 * bend))
    streaks = noise(rng, u, v, 0.09, 0.0045) - 0.5
    return _mix(tuple(base), 0.95 + 0.16 * rings + 0.3 * streaks)


def _metal(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    base = METALS[int(tint * 2.999)]
    brushed = noise(rng, u, v, 0.2, 0.005) - 0.5
    bands = 0.30 * np.sin(v * 40 + u * 9 + 6 * tint) + 0.55 * np.exp(-(((u * 0.7 + v + 0.03) / 0.022) ** 2))
    return _mix(base, 0.85 + bands + 0.18 * brushed)


def _glass(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    base = GLASSES[int(tint * 2.999)]
    streak = np.exp(-(((u + v * 0.8 + 0.03) / 0.012) ** 2)) + 0.6 * np.exp(-(((u + v * 0.8 - 0.015) / 0.006) ** 2))
    return _mix(base, 0.95 + 0.5 * streak.astype(np.float32) + 0.06 * noise(rng, u, v, 0.1, 0.1))


def _ceramic(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    glaze = _mix((0.96, 0.94, 0.89), 0.97 + 0.05 * noise(rng, u, v, 0.06, 0.06))
    paint = np.array(((0.12, 0.25, 0.62), (0.62, 0.18, 0.12), (0.10, 0.42, 0.36))[int(tint * 2.999)], np.float32)
    wave = np.abs(v - 0.012 * np.sin(u * 90)) < 0.006
    line = np.abs(np.abs(v) - 0.028) < 0.003
    dots = np.hypot((u + 0.0175) % 0.035 - 0.0175, np.abs(v) - 0.018) < 0.004
    marks = (wave | line | dots)[..., None].astype(np.float32)
    out: Floats = (glaze * (1 - marks) + paint * marks).astype(np.float32)
    return out


def _plastic(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    del rng
    shine = 0.5 * np.exp(-(((v + 0.03) / 0.014) ** 2)) + 0.0 * u
    flat = _mix(PLASTICS[int(tint * 4.999)], np.ones_like(u))
    out: Floats = (flat + 0.35 * shine[..., None]).astype(np.float32)
    return out


def _rubber(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    studs = np.hypot((u % 0.026) - 0.013, (v % 0.026) - 0.013)
    shade = 1.0 + 0.55 * (studs < 0.007) - 0.3 * ((studs >= 0.007) & (studs < 0.010))
    return _mix(RUBBERS[int(tint * 2.999)], (shade + 0.25 * (noise(rng, u, v, 0.01, 0.01) - 0.5)).astype(np.float32))


def _stone(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    rough = noise(rng, u, v, 0.04, 0.03) - 0.5 + 0.6 * (noise(rng, u, v, 0.015, 0.015) - 0.5)
    grains = noise(rng, u, v, 0.006, 0.006)
    shade = 1.0 + 0.35 * rough - 0.45 * (grains > 0.72) + 0.5 * (grains < 0.22)
    return _mix(STONES[int(tint * 2.999)], shade.astype(np.float32))


def _cardboard(u: Floats, v: Floats, tint: float, rng: np.random.Generator) -> Floats:
    base = (0.74 - 0.08 * tint, 0.58 - 0.08 * tint, 0.40 - 0.06 * tint)
    flutes = 0.05 * np.sin(2 * np.pi * u / 0.011)
    board = _mix(base, (1.0 + flutes + 0.10 * (noise(rng, u, v, 0.05, 0.05) - 0.5)).astype(np.float32))
    tape = (np.abs(u) < 0.024)[..., None].astype(np.float32) * np.float32(0.75)
    print_mark = ((np.abs(u - 0.06) < 0.02) & (np.abs(v - 0.02) < 0.008))[..., None]
    board = np.where(print_mark, board * np.float32(0.45), board)
    out: Floats = (board * (1 - tape) + tape * np.array([0.90, 0.82, 0.62], np.float32)).astype(np.float32)
    return out


SURFACES: dict[str, Paint] = {
    "wood": _wood, "metal": _metal, "glass": _glass, "ceramic": _ceramic,
    "plastic": _plastic, "rubber": _rubber, "stone": _stone, "cardboard": _cardboard,
}  # fmt: skip


# --------------------------------------------------------------------------- background


def wall(kind: str, hue: float, tone: float, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Wall colours (..., 3) over world coordinates in frame widths."""
    base = colorsys.hsv_to_rgb(hue, 0.28, tone)
    shade = np.ones_like(x)
    if kind == "stripes":
        shade += 0.08 * (np.sin(2 * np.pi * x / 0.11) > 0)
    elif kind == "bricks":
        row = np.floor(y / 0.06)
        shift = (x + 0.06 * (row % 2)) % 0.12
        shade -= 0.22 * ((y % 0.06 < 0.005) | (shift < 0.005))
    elif kind == "plaster":
        shade += 0.16 * (noise(rng, x, y, 0.05, 0.04) - 0.5) + 0.10 * (noise(rng, x, y, 0.012, 0.012) - 0.5)
    elif kind == "panels":
        shade -= 0.16 * (np.abs(x % 0.3 - 0.15) < 0.004) + 0.0 * y
    return _mix(base, shade.astype(np.float32))


def floor(kind: str, tone: float, warmth: float, x: Floats, depth: Floats, rng: np.random.Generator) -> Floats:
    """Floor colours (..., 3) over floor coordinates: ``x`` across, ``depth`` away from the camera."""
    base = (tone * (1 + 0.06 * warmth), tone, tone * (1 - 0.06 * warmth))
    shade = np.ones_like(x)
    if kind == "tiles":
        odd = (np.floor(x / 0.35) + np.floor(depth / 0.35)) % 2
        shade += 0.16 * (odd - 0.5)
    elif kind == "concrete":
        shade += 0.25 * (noise(rng, x, depth, 0.25, 0.3) - 0.5) + 0.12 * (noise(rng, x, depth, 0.03, 0.04) - 0.5)
    elif kind == "terrazzo":
        chips = noise(rng, x, depth, 0.025, 0.04)
        shade += 0.22 * (chips > 0.75) - 0.25 * (chips < 0.2)
    return _mix(base, shade.astype(np.float32))
