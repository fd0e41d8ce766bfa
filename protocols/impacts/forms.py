"""The shapes of objects and movers: how each is painted as a sprite and where it is touched.

Lengths are frame widths. ``u`` runs right and ``v`` down from the sprite's anchor.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.impacts.scene import Scene
from protocols.impacts.sprites import Canvas, Sprite, box, circle, ellipse, polygon
from protocols.impacts.streams import stream
from protocols.impacts.textures import GLOSS, OPACITY, SURFACES

Floats = NDArray[np.float32]
GROUND = 0.27  # where things stand, down from the middle of the frame
HOOK = -0.75  # where hanging things hang from
HANDLE = 0.42
HEAD_SIZES = (0.040, 0.036, 0.034, 0.030)  # half height of the mallet's head, soft to hard
HEAD_COLOURS = ((0.93, 0.90, 0.80), (0.45, 0.22, 0.12), (0.62, 0.42, 0.22), (0.72, 0.74, 0.78))


@dataclass(frozen=True)
class Target:
    """The object that is hit: its sprite, where the anchor stands, the place of contact, and whether it hangs."""

    sprite: Sprite
    x: float
    y: float
    contact_x: float
    contact_y: float
    hangs: bool


def light(scene: Scene) -> tuple[float, float, float]:
    """Colour of the light."""
    return scene.brightness * (1 + 0.08 * scene.warmth), scene.brightness, scene.brightness * (1 - 0.08 * scene.warmth)


def surface(canvas: Canvas, scene: Scene, distance: Floats, lift: float = 1.0, x: float = 0.0, y: float = 0.0) -> None:
    """Paints the scene's material inside ``distance`` with shaded edges, light from one side, and shine."""
    rng = stream(scene.seed, "picture.surface")
    along, across = canvas.u - np.float32(x), canvas.v - np.float32(y)
    if scene.form == "tube":  # it hangs upright: grain and bands follow its length
        along, across = across, along
    rgb = SURFACES[scene.material](along, across, scene.tint, rng)
    side = 1 + 0.9 * scene.light_side * canvas.u - 0.5 * canvas.v
    edge = np.exp(-np.maximum(-distance, 0) / 0.006)
    opacity = OPACITY.get(scene.material, 1.0)
    gloss = GLOSS.get(scene.material, 0.0)
    if opacity < 1:  # glass: dark rim, bright line inside it, clear middle
        rim = np.exp(-(((-distance - 0.009) / 0.004) ** 2))
        shaded = rgb * (lift * side * (1 - 0.55 * edge))[..., None] + 0.5 * rim[..., None]
        canvas.paint(distance, shaded, np.clip(opacity + 0.45 * edge + 0.4 * rim + (rgb.max(axis=2) > 1) * 0.4, 0, 1))
    else:
        shaded = rgb * (lift * side * (1 - 0.35 * edge))[..., None]
        canvas.paint(distance, shaded + 0.12 * gloss * edge[..., None] * (canvas.v < y)[..., None])


def target(scene: Scene, scale: float) -> Target:
    """The struck object or the slab, for a camera of ``scale`` pixels per frame width."""
    painter = {"block": _block, "bar": _block, "slab": _block, "bowl": _bowl, "disc": _hanging, "tube": _hanging}
    return painter[scene.form](scene, scale)


def _block(scene: Scene, scale: float) -> Target:
    """A block, bar or slab: front face, top face, and feet under bar and slab."""
    s = scene.size
    half, height, depth, feet = {
        "block": (0.15 * s, 0.13 * s, 0.13 * s, 0.0),
        "bar": (0.22 * s, 0.045 * s, 0.08 * s, 0.05),
        "slab": (0.08 + 0.22 * s, 0.05 * s, 0.22, 0.03),
    }[scene.form]
    depth *= 0.3 + 0.45 * scene.view
    inset = 0.25 * depth
    canvas = Canvas(-half - 0.02, -feet - height - depth - 0.02, half + 0.02, 0.02, scale)
    for x in (-0.6 * half, 0.6 * half):
        if feet:
            canvas.paint(box(canvas.u, canvas.v, x, -feet / 2, 0.02, feet / 2 + 0.004, 0.003), (0.2, 0.2, 0.22))
    top = -feet - height
    corners = [(-half, top), (-half + inset, top - depth), (half - inset, top - depth), (half, top)]
    surface(canvas, scene, polygon(canvas.u, canvas.v, corners), 1.15, 0.0, top - depth / 2)
    middle = top + height / 2
    surface(canvas, scene, box(canvas.u, canvas.v, 0, middle, half, height / 2, 0.004), 0.68, 0.0, middle)
    place = scene.tracks[0].x * half if scene.kind == "strike" else 0.0
    return Target(canvas.sprite(light(scene)), 0.0, GROUND, place, GROUND + top - depth / 2, False)


def _bowl(scene: Scene, scale: float) -> Target:
    """A bowl that stands open upwards and is struck on its rim."""
    half, height = 0.15 * scene.size, 0.14 * scene.size
    rim = half * (0.12 + 0.2 * scene.view)
    canvas = Canvas(-half - 0.02, -height - rim - 0.02, half + 0.02, 0.02, scale)
    u, v = canvas.u, canvas.v
    canvas.paint(box(u, v, 0, -0.008, 0.4 * half, 0.010, 0.004), (0.25, 0.24, 0.23))
    outside = np.maximum(ellipse(u, v, 0, -height, half, height - 0.008), -height - v)
    surface(canvas, scene, outside.astype(np.float32), 0.9, 0.0, -0.55 * height)
    surface(canvas, scene, ellipse(u, v, 0, -height, half, rim), 1.15, 0.0, -height)
    canvas.paint(ellipse(u, v, 0, -height, half - 0.010, rim * 0.8), (0.05, 0.05, 0.06), 0.45)
    return Target(canvas.sprite(light(scene)), 0.0, GROUND, 0.72 * half, GROUND - height + 0.35 * rim, False)


def _hanging(scene: Scene, scale: float) -> Target:
    """A disc or a rod on strings, struck from the side; the anchor is the hook."""
    s = scene.size
    half, reach = (0.15 * s, 0.15 * s) if scene.form == "disc" else (0.035 * s, 0.20 * s)
    middle = 0.02 - HOOK
    canvas = Canvas(-half - 0.02, 0.0, half + 0.02, middle + reach + 0.02, scale)
    u, v = canvas.u, canvas.v
    for x in (-0.45 * half, 0.45 * half):
        canvas.paint(box(u, v, x, (middle - 0.8 * reach) / 2, 0.0022, (middle - 0.8 * reach) / 2), (0.2, 0.17, 0.15))
    if scene.form == "disc":
        surface(canvas, scene, circle(u, v, 0.012, middle, half), 0.6, 0.0, middle)
        surface(canvas, scene, circle(u, v, 0, middle, half), 1.0, 0.0, middle)
        canvas.paint(np.abs(circle(u, v, 0, middle, 0.45 * half)) - np.float32(0.002), (0.1, 0.1, 0.1), 0.35)
    else:
        surface(canvas, scene, box(u, v, 0, middle, half, reach, min(half, 0.02)), 1.0, 0.0, middle)
        canvas.paint(box(u, v, -0.35 * half, middle, 0.12 * half, 0.9 * reach, 0.004), (1.0, 1.0, 1.0), 0.25)
    low = 0.0 if scene.form == "disc" else 0.35 * reach
    return Target(canvas.sprite(light(scene)), 0.0, HOOK, half, HOOK + middle + low, True)


def mallet(scene: Scene, scale: float) -> tuple[Sprite, float]:
    """A mallet, handle to the right, head at the anchor, contact downwards; and the head's half height."""
    half = HEAD_SIZES[scene.head]
    canvas = Canvas(-half - 0.03, -half - 0.02, HANDLE + 0.02, half + 0.02, scale)
    u, v = canvas.u, canvas.v
    grip = colorsys.hsv_to_rgb(scene.mover_hue, 0.65, 0.75)
    round_shade = np.clip(1.15 - np.abs(v) / 0.012, 0.5, 1.15)[..., None]
    canvas.paint(box(u, v, HANDLE / 2, 0, HANDLE / 2, 0.0085, 0.006), np.array([0.72, 0.52, 0.30]) * round_shade)
    canvas.paint(box(u, v, HANDLE - 0.07, 0, 0.07, 0.0125, 0.008), np.array(grip) * round_shade)
    across = half * (1.0 if scene.head in (0, 3) else 0.72)
    head = circle(u, v, 0, 0, half) if scene.head in (0, 3) else box(u, v, 0, 0, across, half, 0.008)
    canvas.paint(head - np.float32(0.0035), (0.08, 0.07, 0.07), 0.8)
    ball = np.clip(1.1 - 1.1 * np.hypot(u + 0.35 * half, v + 0.35 * half) / (2 * half), 0.35, 1.1)[..., None]
    canvas.paint(head, np.array(HEAD_COLOURS[scene.head]) * (0.35 + 0.7 * ball))
    if scene.head == 3:
        canvas.paint(circle(u, v, -0.3 * half, -0.35 * half, 0.25 * half), (1.0, 1.0, 1.0), 0.8)
    return canvas.sprite(light(scene)), half + 0.0035


def ball(scene: Scene, scale: float) -> tuple[Sprite, float]:
    """A ball around the anchor with a stripe, and its radius."""
    radius = 0.040 + 0.012 * float(stream(scene.seed, "picture.ball").uniform())
    canvas = Canvas(-radius - 0.01, -radius - 0.01, radius + 0.01, radius + 0.01, scale)
    u, v = canvas.u, canvas.v
    colour = np.array(colorsys.hsv_to_rgb(scene.mover_hue, 0.75, 0.92), np.float32)
    toward = 0.45 * radius * scene.light_side
    shade = np.clip(1.25 - 0.95 * np.hypot(u - toward, v + 0.4 * radius) / (1.4 * radius), 0.3, 1.25)[..., None]
    canvas.paint(circle(u, v, 0, 0, radius), (0.06, 0.06, 0.07))
    inside = circle(u, v, 0, 0, radius - 0.002)
    canvas.paint(inside, colour * shade)
    stripe = np.abs(v + 0.35 * u - 0.9 * u * u / radius) - np.float32(0.2 * radius)
    canvas.paint(np.maximum(inside, stripe).astype(np.float32), np.array([0.97, 0.97, 0.95]) * shade)
    shine = (0.3 + 0.2 * scene.head) * np.exp(-((np.hypot(u - toward, v + 0.45 * radius) / (0.25 * radius)) ** 2))
    canvas.paint(inside, (1.0, 1.0, 1.0), shine)
    return canvas.sprite(light(scene)), radius


def falling(scene: Scene, scale: float) -> tuple[Sprite, Floats]:
    """A dropped object around the anchor, and the corners ``(n, 2)`` of its outline."""
    s = scene.size
    half, tall = {"cube": (0.068, 0.068), "brick": (0.098, 0.050), "cup": (0.068, 0.078), "cylinder": (0.056, 0.09)}[
        scene.form
    ]
    half, tall = half * s, tall * s
    extra = 0.05 * s
    canvas = Canvas(-half - extra - 0.01, -tall - 0.02, half + extra + 0.01, tall + 0.02, scale)
    u, v = canvas.u, canvas.v
    outline = [(-half, tall), (-half, -tall), (half, -tall), (half, tall)]
    if scene.form == "cup":
        low = 0.72 * half
        outline = [(-low, tall), (-half, -tall), (half, -tall), (low, tall)]
        ring = np.abs(circle(u, v, 0.9 * half, 0.05 * tall, 0.42 * tall)) - np.float32(0.011 * s)
        surface(canvas, scene, ring.astype(np.float32), 0.85)
        surface(canvas, scene, polygon(u, v, outline), 1.0)
        canvas.paint(ellipse(u, v, 0, -tall + 0.016 * s, half - 0.006, 0.014 * s), (0.08, 0.07, 0.07), 0.7)
    elif scene.form == "cylinder":
        surface(canvas, scene, box(u, v, 0, 0, half, tall, 0.012 * s), 1.0)
        round_off = 0.55 * np.clip(np.abs(u - 0.25 * half * scene.light_side) / half, 0, 1) ** 2
        canvas.paint(box(u, v, 0, 0, half, tall, 0.012 * s), (0.0, 0.0, 0.0), 0.8 * round_off)
        surface(canvas, scene, ellipse(u, v, 0, -tall + 0.018 * s, half, 0.018 * s), 1.25)
    else:
        surface(canvas, scene, box(u, v, 0, 0, half, tall, 0.008), 1.0)
        band = -tall + 0.28 * tall
        top = [(-half, band), (-half + 0.02 * s, -tall), (half - 0.02 * s, -tall), (half, band)]
        canvas.paint(polygon(u, v, top), (1.0, 1.0, 1.0), 0.28)
    return canvas.sprite(light(scene)), np.array(outline, np.float32)


def shadow(width: float, flat: float, scale: float) -> Sprite:
    """A soft dark ellipse around the anchor."""
    canvas = Canvas(-1.6 * width, -1.6 * width * flat, 1.6 * width, 1.6 * width * flat, scale)
    soft = np.exp(-2.2 * ((canvas.u / width) ** 2 + (canvas.v / (width * flat)) ** 2) ** 1.5)
    canvas.paint(np.full(canvas.u.shape, -1, np.float32), (0.0, 0.0, 0.0), 0.75 * soft)
    return canvas.sprite()


def ground_shadow(scene: Scene, scale: float) -> tuple[Sprite, float, float]:
    """The shadow of the struck object on the ground: sprite, place across, opacity."""
    widths = {"block": 0.18, "bar": 0.25, "bowl": 0.13, "slab": 0.36, "disc": 0.14, "tube": 0.06}
    sprite = shadow(widths[scene.form] * scene.size, 0.16, scale)
    return sprite, -0.03 * scene.light_side, 0.6 if scene.support == "hanging" else 1.0
