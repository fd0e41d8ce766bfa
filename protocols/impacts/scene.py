"""Scenes: every parameter of one clip, drawn from (split, index)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from av_bench.contracts import UsageError
from protocols.impacts import edits, rhythm
from protocols.impacts.captions import caption
from protocols.impacts.materials import KINDS, LABELS, MATERIALS, Kind
from protocols.impacts.rhythm import Track, onsets_of
from protocols.impacts.streams import stream

Split = Literal["train", "val", "test"]
Factor = Literal["material", "timing", "count", "size"]

SPLIT_CLIPS: dict[str, int] = {"train": 1_000_000, "val": 256, "test": 256}
_SPLIT_SEEDS = {"train": 0, "val": 10_000_000, "test": 20_000_000}  # ranges that never meet

STRIKE_FORMS = (("block", "table"), ("bar", "table"), ("bowl", "table"), ("disc", "hanging"), ("tube", "hanging"))
DROP_FORMS = ("cube", "brick", "cup", "cylinder")
WALLS = ("plain", "stripes", "bricks", "plaster", "panels")
FLOORS = ("plain", "tiles", "concrete", "terrazzo")
NOISES = ("white", "pink", "brown")


@dataclass(frozen=True)
class Scene:
    """One clip. Lengths are in frame widths, times in s, angles in degrees, levels in dB re full scale."""

    id: str
    label: str
    material: str
    kind: Kind
    caption: str
    onsets: tuple[float, ...]  # s, every audible contact
    tracks: tuple[Track, ...]
    seed: int
    wording: int
    # the object and what moves
    size: float  # 1 is about 20 cm; lengths grow and frequencies fall with it
    form: str
    support: str
    tint: float  # 0..1, which variant of the material's look
    restitution: float  # speed kept at a contact (drop, bounce)
    frame_metres: float  # metres per frame width, for the flight of what falls
    head: int  # mallet or ball, 0 soft .. 3 hard
    mover_hue: float
    # camera
    zoom: float
    pan_x: float
    pan_y: float
    tilt: float
    flip: bool
    view: float  # 0 low .. 1 high camera: how much of top faces and floor is seen
    # light and background
    light_side: float  # -1 left .. 1 right
    warmth: float
    brightness: float
    vignette: float
    wall: str
    floor: str
    wall_hue: float
    wall_tone: float
    floor_tone: float
    # sound
    reverb_time: float  # s to -60 dB
    reverb_db: float  # of the room's energy over the direct sound's
    noise: str
    noise_db: float
    hum_db: float
    hum_hz: float
    wind_db: float
    peak_db: float

    def params(self) -> dict[str, str | float | int]:
        """The physical parameters as one flat row for a table, with counts of movers and contacts."""
        row: dict[str, str | float | int] = {}
        for name, value in asdict(self).items():
            if isinstance(value, str | float | int) and name not in ("id", "label", "caption"):
                row[name] = int(value) if isinstance(value, bool) else value
        row["movers"] = len(self.tracks)
        row["contacts"] = len(self.onsets)
        row["fastest"] = max(v for track in self.tracks for v in track.speeds)
        row["slowest"] = min(v for track in self.tracks for v in track.speeds)
        return row


def sample_scene(split: Split, index: int) -> Scene:
    """Scene ``index`` of a split. Classes take turns by index; the splits use disjoint seeds.

    Raises UsageError for an unknown split or an index outside it (test and val hold 256, train 1,000,000).
    """
    if split not in SPLIT_CLIPS:
        raise UsageError(f"impacts has no split {split!r}; choose one of {', '.join(SPLIT_CLIPS)}")
    if not 0 <= index < SPLIT_CLIPS[split]:
        raise UsageError(f"impacts {split} has clips 0..{SPLIT_CLIPS[split] - 1}, not {index}; choose one of those")
    seed = _SPLIT_SEEDS[split] + index
    label = LABELS[index % len(LABELS)]
    material, kind_name = label.split(" ")
    kind = next(k for k in KINDS if k == kind_name)
    return _draw(f"impacts_{split}_{index:05d}", material, kind, seed)


def _draw(clip_id: str, material: str, kind: Kind, seed: int) -> Scene:
    rng = stream(seed, "object")
    size = round(float(np.exp(rng.uniform(np.log(0.65), np.log(1.45)))), 4)
    form, support = STRIKE_FORMS[rng.integers(len(STRIKE_FORMS))]
    if kind == "drop":
        form, support = DROP_FORMS[rng.integers(len(DROP_FORMS))], "floor"
    elif kind == "bounce":
        form, support = "slab", "table"
    head, wording = int(rng.integers(4)), int(rng.integers(1000))
    tint, mover_hue = _round(rng.uniform()), _round(rng.uniform())
    tracks, restitution, frame_metres = _motion(kind, material, stream(seed, "motion"))
    return Scene(
        id=clip_id, label=f"{material} {kind}", material=material, kind=kind,
        caption=caption(material, kind, form, support, size, head, tracks, wording),
        onsets=onsets_of(tracks), tracks=tracks, seed=seed, wording=wording, size=size, form=form, support=support,
        tint=tint, restitution=restitution, frame_metres=frame_metres, head=head, mover_hue=mover_hue,
        **_surroundings(stream(seed, "surroundings")),
    )  # fmt: skip


def _motion(kind: Kind, material: str, rng: np.random.Generator) -> tuple[tuple[Track, ...], float, float]:
    """Tracks, restitution and metres per frame width."""
    if kind == "strike":
        count = int(rng.integers(3, 11))
        x = _round(rng.uniform(-0.3, 0.3))
        return rhythm.until_acceptable(lambda r: rhythm.draw_strikes(r, count, x), rng), 0.0, 2.0
    if kind == "drop":
        count = int(rng.integers(2, 5))
        kept = _round(MATERIALS[material].restitution * rng.uniform(0.9, 1.1))
        tracks = rhythm.until_acceptable(lambda r: rhythm.draw_drops(r, count, kept), rng)
        return tracks, kept, _round(rng.uniform(1.7, 2.0))
    count = int(rng.choice([1, 1, 2, 3]))
    kept = _round(rng.uniform(0.79, 0.87) if count == 1 else rng.uniform(0.5, 0.68))
    fall = _round(rng.uniform(0.65, 0.85))
    tracks = rhythm.until_acceptable(lambda r: rhythm.draw_bounces(r, count, kept, fall), rng)
    return tracks, kept, _round(rhythm.GRAVITY / 2 * (0.92 * fall) ** 2 / 1.05)


def _surroundings(rng: np.random.Generator) -> dict[str, Any]:
    """Camera, light, background and room: what says nothing about the event."""
    hum = rng.uniform() < 0.5
    wind = rng.uniform() < 0.3
    return {
        "zoom": _round(rng.uniform(0.88, 1.08)),
        "pan_x": _round(rng.uniform(-0.05, 0.05)),
        "pan_y": _round(rng.uniform(-0.04, 0.04)),
        "tilt": _round(rng.uniform(-4, 4)),
        "flip": bool(rng.uniform() < 0.5),
        "view": _round(rng.uniform(0.2, 1.0)),
        "light_side": _round(rng.uniform(-1, 1)),
        "warmth": _round(rng.uniform(-1, 1)),
        "brightness": _round(rng.uniform(0.8, 1.12)),
        "vignette": _round(rng.uniform(0.0, 0.5)),
        "wall": str(rng.choice(WALLS)),
        "floor": str(rng.choice(FLOORS)),
        "wall_hue": _round(rng.uniform()),
        "wall_tone": _round(rng.uniform(0.45, 0.9)),
        "floor_tone": _round(rng.uniform(0.35, 0.8)),
        "reverb_time": _round(rng.uniform(0.15, 0.8)),
        "reverb_db": _round(rng.uniform(-24, -10)),
        "noise": str(rng.choice(NOISES)),
        "noise_db": _round(rng.uniform(-74, -54)),
        "hum_db": _round(rng.uniform(-72, -58)) if hum else -120.0,
        "hum_hz": float(rng.choice([50.0, 60.0])),
        "wind_db": _round(rng.uniform(-64, -52)) if wind else -120.0,
        "peak_db": _round(rng.uniform(-8, -1.5)),
    }


def _round(value: float) -> float:
    return round(float(value), 4)


# --------------------------------------------------------------------------- counterfactuals


def counterfactual(scene: Scene, factor: Factor, seed: int = 0) -> Scene:
    """The same clip with only ``factor`` changed; label, caption, onsets and id follow, all else is identical.

    material: another of the eight. size: from small to large or back. timing: other contact times, the same number
    of movers and contacts. count: strikes left out or added between, falling objects or balls left out or added.
    Raises UsageError for an unknown factor.
    """
    rng = stream(scene.seed, f"counterfactual.{factor}.{seed}")
    changed: Scene
    if factor == "material":
        others = [name for name in MATERIALS if name != scene.material]
        material = str(rng.choice(others))
        changed = replace(scene, material=material, label=f"{material} {scene.kind}")
    elif factor == "size":
        low, high = (1.2, 1.45) if scene.size < 1 else (0.65, 0.85)
        changed = replace(scene, size=_round(rng.uniform(low, high)))
    elif factor == "timing":
        changed = _with_tracks(scene, edits.retimed(scene.kind, scene.tracks, rng))
    elif factor == "count":
        changed = _with_tracks(scene, edits.recounted(scene.kind, scene.tracks, rng))
    else:
        raise UsageError(f"no counterfactual {factor!r} of {scene.id}; choose material, timing, count or size")
    words = caption(
        changed.material, changed.kind, changed.form, changed.support, changed.size, changed.head, changed.tracks,
        changed.wording,
    )  # fmt: skip
    return replace(changed, id=f"{scene.id}_{factor}{seed}", caption=words)


def _with_tracks(scene: Scene, tracks: tuple[Track, ...]) -> Scene:
    return replace(scene, tracks=tracks, onsets=onsets_of(tracks))
