"""Small pictures that move: painted once with antialiased shapes, then stamped at any place and angle.

A sprite keeps twice the resolution of the frame and is smoothed to one pixel, so that picking the nearest texel
places it to half a pixel without jagged edges. Texels are packed RGBA (premultiplied) in one uint32 each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter

Floats = NDArray[np.float32]
Packed = NDArray[np.uint32]
EVERY_OTHER = np.uint32(0x00FF00FF)
FINE = 2  # texels per pixel


@dataclass(frozen=True, eq=False)  # a sprite is only equal to itself
class Sprite:
    """Packed texels ``(height, width)`` of ``FINE`` per pixel, and the texel that lies on the stamped point."""

    texels: Packed
    anchor_u: float
    anchor_v: float


class Canvas:
    """A patch of the world to paint on: ``u`` right, ``v`` down, in frame widths from the sprite's anchor."""

    def __init__(self, left: float, top: float, right: float, bottom: float, scale: float) -> None:
        fine = scale * FINE
        margin = 3
        width = int(np.ceil((right - left) * fine)) + 2 * margin
        height = int(np.ceil((bottom - top) * fine)) + 2 * margin
        self.scale = scale
        self.anchor_u, self.anchor_v = margin - left * fine, margin - top * fine
        u = (np.arange(width) + 0.5 - self.anchor_u) / fine
        v = (np.arange(height) + 0.5 - self.anchor_v) / fine
        self.u, self.v = (a.astype(np.float32) for a in np.meshgrid(u, v))
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.alpha = np.zeros((height, width), np.float32)

    def paint(self, distance: Floats, colour: Floats | Sequence[float], alpha: Floats | float = 1.0) -> None:
        """Lays ``colour`` (0..1, one or one per texel) over where ``distance`` (frame widths) is negative."""
        cover = np.clip(0.5 - distance * self.scale, 0, 1) * np.float32(1) * alpha
        cover = cover.astype(np.float32)
        self.rgb *= (1 - cover)[..., None]
        self.rgb += cover[..., None] * np.clip(np.asarray(colour, np.float32), 0, 1)
        self.alpha += cover * (1 - self.alpha)

    def sprite(self, light: Sequence[float] = (1.0, 1.0, 1.0)) -> Sprite:
        """The finished sprite under a light colour."""
        rgba = np.concatenate([self.rgb * np.asarray(light, np.float32), self.alpha[..., None]], axis=2)
        rgba[..., :3] = np.minimum(rgba[..., :3], rgba[..., 3:])
        rgba = uniform_filter(rgba, size=(FINE, FINE, 1), mode="constant")
        packed = np.ascontiguousarray(np.rint(rgba * 255).astype(np.uint8)).view("<u4")[..., 0]
        packed[0] = packed[-1] = 0
        packed[:, 0] = packed[:, -1] = 0
        return Sprite(packed, self.anchor_u, self.anchor_v)


def stamp(image: Packed, sprite: Sprite, x: float, y: float, angle: float = 0.0, opacity: float = 1.0) -> None:
    """Draws a sprite onto packed ``image`` (height, width), its anchor at pixel (x, y), turned by ``angle`` radians."""
    height, width = sprite.texels.shape
    cos, sin = math.cos(angle), math.sin(angle)
    left_u, right_u = -sprite.anchor_u / FINE, (width - sprite.anchor_u) / FINE
    top_v, bottom_v = -sprite.anchor_v / FINE, (height - sprite.anchor_v) / FINE
    xs = [u * cos - v * sin + x for u in (left_u, right_u) for v in (top_v, bottom_v)]
    ys = [u * sin + v * cos + y for u in (left_u, right_u) for v in (top_v, bottom_v)]
    left, right = max(0, int(min(xs))), min(image.shape[1], int(max(xs)) + 1)
    top, bottom = max(0, int(min(ys))), min(image.shape[0], int(max(ys)) + 1)
    if left >= right or top >= bottom:
        return
    dx = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)) * np.float32(FINE)
    dy = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y))[:, None] * np.float32(FINE)
    columns = dx * np.float32(cos) + (dy * np.float32(sin) + np.float32(sprite.anchor_u))
    rows = dy * np.float32(cos) + (np.float32(sprite.anchor_v) - dx * np.float32(sin))
    # the outermost texels are clear, so that whatever falls outside may be moved onto them
    np.minimum(np.maximum(columns, 0, out=columns), width - 1, out=columns)
    np.minimum(np.maximum(rows, 0, out=rows), height - 1, out=rows)
    texels = sprite.texels.take(rows.astype(np.int32) * np.int32(width) + columns.astype(np.int32))
    blend(image[top:bottom, left:right], texels, opacity)


def blend(region: Packed, over: Packed, opacity: float = 1.0) -> None:
    """Lays premultiplied texels over ``region`` in place, two colour channels per 32-bit product."""
    if opacity < 1.0:
        over = _scaled(over, np.uint32(round(opacity * 256)))
    alpha = over >> np.uint32(24)
    over = over + _scaled(region, np.uint32(256) - alpha - (alpha >> np.uint32(7)))
    region[...] = over


def _scaled(texels: Packed, weight: Packed | np.uint32) -> Packed:
    """Every channel times ``weight`` / 256."""
    odd = ((texels >> np.uint32(8)) & EVERY_OTHER) * weight
    even = ((texels & EVERY_OTHER) * weight) >> np.uint32(8)
    out: Packed = (odd & ~EVERY_OTHER) | (even & EVERY_OTHER)
    return out


def pack(rgb: NDArray[np.uint8]) -> Packed:
    """``(height, width, 3)`` uint8 -> packed opaque texels ``(height, width)``."""
    rgba = np.full((*rgb.shape[:2], 4), 255, np.uint8)
    rgba[..., :3] = rgb
    return rgba.view("<u4")[..., 0]


def unpack(image: Packed) -> NDArray[np.uint8]:
    """Packed texels -> a view ``(height, width, 3)`` of their colours."""
    return image.view(np.uint8).reshape(*image.shape, 4)[..., :3]


# --------------------------------------------------------------------------- shapes: signed distances


def circle(u: Floats, v: Floats, x: float, y: float, radius: float) -> Floats:
    """Distance to a disc; negative inside."""
    out: Floats = (np.hypot(u - x, v - y) - radius).astype(np.float32)
    return out


def ellipse(u: Floats, v: Floats, x: float, y: float, rx: float, ry: float) -> Floats:
    """Distance to an ellipse, right to first order near its edge."""
    k = np.hypot((u - x) / rx, (v - y) / ry)
    slope = np.hypot((u - x) / rx**2, (v - y) / ry**2) / np.maximum(k, 1e-4)
    out: Floats = ((k - 1) / np.maximum(slope, 1e-4)).astype(np.float32)
    return out


def box(u: Floats, v: Floats, x: float, y: float, half_width: float, half_height: float, corner: float = 0.0) -> Floats:
    """Distance to a rectangle with rounded corners."""
    a, b = np.abs(u - x) - half_width + corner, np.abs(v - y) - half_height + corner
    outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0))
    out: Floats = (outside + np.minimum(np.maximum(a, b), 0) - corner).astype(np.float32)
    return out


def polygon(u: Floats, v: Floats, corners: Sequence[tuple[float, float]]) -> Floats:
    """Distance to a convex polygon with corners in clockwise order on the screen."""
    distance = np.full(u.shape, -np.inf, np.float32)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = float(np.hypot(x1 - x0, y1 - y0))
        distance = np.maximum(distance, ((u - x0) * (y1 - y0) - (v - y0) * (x1 - x0)) / length)
    return distance.astype(np.float32)


def noise(rng: np.random.Generator, u: Floats, v: Floats, cell_u: float, cell_v: float) -> Floats:
    """Smooth random field in 0..1 with these cell sizes, the same at every resolution."""
    lattice = rng.random((64, 64), np.float32)
    points = np.stack([v / cell_v, u / cell_u]).astype(np.float32)
    out: Floats = map_coordinates(lattice, points, order=1, mode="grid-wrap", output=np.float32)
    return out
