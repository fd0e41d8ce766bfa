"""What the eight materials sound like: modal frequencies, damping, contact hardness.

The numbers are chosen for plausible objects of about 20 cm; they follow the ordering found for struck objects:
internal friction grows from metal over glass, ceramic, wood and plastic to rubber (Klatzky, Pai & Krotkov 2000,
"Perception of material from contact sounds"), and damping grows with frequency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["strike", "drop", "bounce"]
KINDS: tuple[Kind, ...] = ("strike", "drop", "bounce")


@dataclass(frozen=True)
class Material:
    """Acoustic constants of one material.

    ``pitch`` is the lowest mode in Hz at size 1; a mode of frequency f (kHz) decays as
    ``exp(-(damping + damping_slope * f ** damping_power) * t)`` with rates in 1/s; ``tilt`` is the fall of mode
    amplitudes with mode number; ``cutoff`` (Hz) is where a hard, fast contact stops exciting; ``crackle`` is the
    level and ``crackle_time`` the decay (s) of the contact's own noise; ``restitution`` is the speed kept when an
    object of the material bounces on a hard floor; ``loudness`` scales the clip's peak.
    """

    name: str
    adjective: str
    pitch: float
    damping: float
    damping_slope: float
    damping_power: float
    tilt: float
    cutoff: float
    crackle: float
    crackle_time: float
    restitution: float
    loudness: float


MATERIALS: dict[str, Material] = {
    m.name: m
    for m in (
        Material("wood", "wooden", 420, 20, 38, 1.0, 0.9, 3800, 0.25, 0.0040, 0.42, 0.9),
        Material("metal", "metal", 640, 1.2, 1.0, 1.0, 0.35, 11000, 0.50, 0.0020, 0.48, 1.0),
        Material("glass", "glass", 1500, 3.5, 2.2, 1.2, 0.55, 14000, 0.40, 0.0015, 0.45, 0.9),
        Material("ceramic", "ceramic", 950, 9, 6, 1.1, 0.65, 8500, 0.25, 0.0025, 0.38, 0.95),
        Material("plastic", "plastic", 300, 38, 40, 1.0, 0.5, 3000, 0.40, 0.0050, 0.52, 0.8),
        Material("rubber", "rubber", 95, 40, 260, 1.0, 0.9, 420, 0.25, 0.0090, 0.66, 0.7),
        Material("stone", "stone", 1250, 70, 22, 1.0, 0.35, 9000, 0.60, 0.0030, 0.33, 1.0),
        Material("cardboard", "cardboard", 165, 75, 110, 1.0, 0.7, 1500, 1.10, 0.0140, 0.30, 0.6),
    )
}

LABELS: tuple[str, ...] = tuple(f"{name} {kind}" for kind in KINDS for name in MATERIALS)

# Frequencies of the modes over the lowest: free bar (Euler-Bernoulli), free plate, bell-like shell, solid block.
MODE_RATIOS: dict[str, tuple[float, ...]] = {
    "bar": (1, 2.756, 5.404, 8.933, 13.34, 18.64),
    "plate": (1, 1.73, 2.33, 3.04, 3.91, 4.11, 5.20, 6.30, 7.12, 8.33, 9.61, 11.2, 13.1, 15.0),
    "shell": (1, 1.01, 2.65, 2.68, 4.85, 7.52, 7.58, 10.9, 14.7),
    "solid": (1, 1.41, 1.90, 2.31, 2.76, 3.22, 3.71, 4.33, 5.02, 5.81, 6.74, 7.69, 8.9, 10.3),
}

# Form of an object: family of modes, factor on the material's pitch, noun of the caption.
FORMS: dict[str, tuple[str, float, str]] = {
    "block": ("solid", 1.0, "block"),
    "bar": ("bar", 0.85, "bar"),
    "bowl": ("shell", 0.9, "bowl"),
    "disc": ("plate", 0.7, "disc"),
    "tube": ("bar", 0.75, "rod"),
    "cube": ("solid", 1.3, "cube"),
    "brick": ("solid", 1.1, "brick"),
    "cup": ("shell", 1.2, "cup"),
    "cylinder": ("bar", 1.1, "cylinder"),
    "slab": ("plate", 0.6, "slab"),
}
