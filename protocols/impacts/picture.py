"""The frames of a scene: a background drawn once, and what moves stamped on it frame by frame.

Frame k shows the world at k / fps seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.impacts import FPS, SECONDS, SIZE, forms, motion, textures
from protocols.impacts.rhythm import Track
from protocols.impacts.scene import Scene
from protocols.impacts.sprites import Packed, Sprite, pack, stamp, unpack
from protocols.impacts.streams import stream

Image = NDArray[np.uint8]
Mark = tuple[Sprite, float, float, float, float]  # sprite, pixel place, angle (rad), opacity


@dataclass(frozen=True)
class Shot:
    """One frame: a packed picture of what is still, and the sprites stamped on it, from back to front."""

    base: Packed
    stamps: list[Mark]


Shoot = Callable[[float], Shot]


class Camera:
    """Maps the world (frame widths from the middle, y down) to pixels: zoom, pan and tilt."""

    def __init__(self, scene: Scene, size: int) -> None:
        self.size = size
        self.scale = scene.zoom * size
        self.tilt = float(np.radians(scene.tilt))
        self.cos, self.sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        self.pan_x, self.pan_y = scene.pan_x, scene.pan_y

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixel place of a point of the world."""
        x, y = (x - self.pan_x) * self.scale, (y - self.pan_y) * self.scale
        return self.cos * x - self.sin * y + self.size / 2, self.sin * x + self.cos * y + self.size / 2

    def world(self, fine: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """World coordinates ``(size * fine, size * fine)`` of every fine pixel."""
        line = ((np.arange(self.size * fine) + 0.5) / fine - self.size / 2).astype(np.float32) / np.float32(self.scale)
        x = self.cos * line[None, :] + self.sin * line[:, None] + self.pan_x
        y = self.cos * line[:, None] - self.sin * line[None, :] + self.pan_y
        return x.astype(np.float32), y.astype(np.float32)

    def mark(self, sprite: Sprite, x: float, y: float, angle: float = 0.0, opacity: float = 1.0) -> Mark:
        """A stamp of a sprite with its anchor at a point of the world."""
        px, py = self.pixel(x, y)
        return sprite, px, py, angle + self.tilt, opacity


def render_frames(scene: Scene, size: int = SIZE, fps: float = FPS) -> Image:
    """All frames of a scene, uint8 ``(round(8 * fps), size, size, 3)``; equal scenes give equal pixels."""
    camera = Camera(scene, size)
    shoot = {"strike": _strike, "drop": _drop, "bounce": _bounce}[scene.kind](scene, camera)
    frames = np.empty((round(SECONDS * fps), size, size, 3), np.uint8)
    last: Shot | None = None
    for k, frame in enumerate(frames):
        shot = shoot(k / fps)
        if last is not None and shot.stamps == last.stamps and shot.base is last.base:
            frame[...] = frames[k - 1]
            continue
        image = shot.base.copy()
        for mark in shot.stamps:
            stamp(image, *mark)
        colours = unpack(image)[:, ::-1] if scene.flip else unpack(image)
        for channel in range(3):  # one by one: three bytes of four at a time take five times as long to copy
            frame[..., channel] = colours[..., channel]
        last = shot
    return frames


def background(scene: Scene, camera: Camera) -> Image:
    """Wall and floor under the scene's light, ``(size, size, 3)``."""
    size = camera.size
    fine = 1 if size >= 192 else 2  # small pictures are drawn at twice the size and averaged
    x, y = camera.world(fine)
    rng = stream(scene.seed, "picture.background")
    horizon = forms.GROUND - 0.09 - 0.16 * scene.view
    rgb = textures.wall(scene.wall, scene.wall_hue, scene.wall_tone, x, y, rng)
    top = int(np.argmax((y > horizon - 0.02).any(axis=1)))
    fx, below = x[top:], y[top:] - np.float32(horizon)
    depth = np.float32(0.35) / (np.maximum(below, 0) + np.float32(0.16))
    ground = textures.floor(scene.floor, scene.floor_tone, scene.warmth, fx * depth * 1.2, depth * 1.4, rng)
    cover = np.clip(below * np.float32(camera.scale * fine) + 0.5, 0, 1)[..., None]
    edge = 1 - 0.35 * np.exp(-np.abs(below) / np.float32(0.008))[..., None]
    rgb[top:] = (rgb[top:] * (1 - cover) + ground * cover) * edge
    radius = (x - np.float32(camera.pan_x)) ** 2 + (y - np.float32(camera.pan_y)) ** 2
    shade = (1 + 0.35 * scene.light_side * x - 0.15 * y) * (1 - scene.vignette * 1.3 * radius)
    rgb *= np.asarray(forms.light(scene), np.float32) * shade[..., None]
    small = np.clip(rgb, 0, 1)
    if fine > 1:
        small = small.reshape(size, fine, size, fine, 3).mean(axis=(1, 3))
    return np.rint(small * 255).astype(np.uint8)


# --------------------------------------------------------------------------- the three kinds


def _strike(scene: Scene, camera: Camera) -> Shoot:
    """A mallet that swings around its grip; the object shakes, or swings on its strings."""
    thing = forms.target(scene, camera.scale)
    mallet, half = forms.mallet(scene, camera.scale)
    track = scene.tracks[0]
    rest = math.pi / 2 if thing.hangs else -math.radians(10)
    head_x = thing.contact_x + (half if thing.hangs else 0)
    head_y = thing.contact_y - (0 if thing.hangs else half)
    grip_x = head_x + forms.HANDLE * math.cos(rest)
    grip_y = head_y + forms.HANDLE * math.sin(rest)
    shake = _shaking(scene, camera, thing)

    def shoot(time: float) -> Shot:
        base, marks = shake(time)
        angle = rest + motion.mallet_height(track, time) / forms.HANDLE
        x, y = grip_x - forms.HANDLE * math.cos(angle), grip_y - forms.HANDLE * math.sin(angle)
        return Shot(base, [*marks, camera.mark(mallet, x, y, angle)])

    return shoot


def _bounce(scene: Scene, camera: Camera) -> Shoot:
    """Balls on a slab that shakes a little under them."""
    thing = forms.target(scene, camera.scale)
    ball, radius = forms.ball(scene, camera.scale)
    dark = forms.shadow(1.1 * radius, 0.3, camera.scale)
    shake = _shaking(scene, camera, thing)

    def shoot(time: float) -> Shot:
        base, marks = shake(time)
        for track in scene.tracks:
            x, height = motion.sideways(track, time), motion.flight_height(track, time, scene.frame_metres)
            marks += _shade(camera, dark, x, thing.contact_y, height)
            marks.append(camera.mark(ball, x, thing.contact_y - radius - height))
        return Shot(base, marks)

    return shoot


def _drop(scene: Scene, camera: Camera) -> Shoot:
    """Objects that fall, turn, bounce and come to lie."""
    base = pack(background(scene, camera))
    thing, corners = forms.falling(scene, camera.scale)
    dark = forms.shadow(1.15 * float(corners[:, 0].max()), 0.25, camera.scale)
    depths = stream(scene.seed, "picture.depths").uniform(-0.02, 0.04, 8)
    movers = sorted(((t, float(d)) for t, d in zip(scene.tracks, depths, strict=False)), key=lambda pair: pair[1])

    bases = {0: base}  # by how many objects lie still already: they are part of the background

    def marks_of(track: Track, depth: float, time: float) -> list[Mark]:
        x, height = motion.sideways(track, time), motion.flight_height(track, time, scene.frame_metres)
        angle = motion.turned(track, time)
        lowest = float((corners[:, 0] * math.sin(angle) + corners[:, 1] * math.cos(angle)).max())
        ground = forms.GROUND + depth
        return [
            *_shade(camera, dark, x, ground, height),
            camera.mark(thing, x, ground - lowest - height, angle),
        ]

    def shoot(time: float) -> Shot:
        lying = [mover for mover in movers if time >= mover[0].times[-1]]
        if len(lying) not in bases:
            bases[len(lying)] = base.copy()
            for track, depth in lying:
                for mark in marks_of(track, depth, time):
                    stamp(bases[len(lying)], *mark)
        flying = [mover for mover in movers if time < mover[0].times[-1]]
        return Shot(bases[len(lying)], [mark for mover in flying for mark in marks_of(*mover, time)])

    return shoot


def _shade(camera: Camera, dark: Sprite, x: float, y: float, height: float) -> list[Mark]:
    """The shadow of something ``height`` over the ground: darkest at the contact, none when high up."""
    opacity = 0.9 * math.exp(-height / 0.15)
    return [camera.mark(dark, x, y, 0.0, opacity)] if opacity > 0.02 else []


def _shaking(scene: Scene, camera: Camera, thing: forms.Target) -> Callable[[float], tuple[Packed, list[Mark]]]:
    """The struck object over time: a picture with it at rest, or one without it and its shaken stamp."""
    empty = pack(background(scene, camera))
    dark, x, opacity = forms.ground_shadow(scene, camera.scale)
    stamp(empty, *camera.mark(dark, x, forms.GROUND + (0.12 if thing.hangs else 0.0), 0.0, opacity))
    still = empty.copy()
    stamp(still, *camera.mark(thing.sprite, thing.x, thing.y))
    frequency, decay, amount = (1.7, 0.45, 0.014) if thing.hangs else (9.0, 0.08, 0.008)

    def at(time: float) -> tuple[Packed, list[Mark]]:
        shift = amount * motion.wobble(scene.tracks, time, frequency, decay)
        if abs(shift) * camera.scale < 0.2:  # too little to see
            return still, []
        if thing.hangs:
            return empty, [camera.mark(thing.sprite, thing.x, thing.y, shift)]
        return empty, [camera.mark(thing.sprite, thing.x, thing.y + shift)]

    return at
