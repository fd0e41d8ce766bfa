"""Changes of a rhythm for counterfactual clips: other times, or another number of contacts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protocols.impacts import rhythm
from protocols.impacts.materials import Kind
from protocols.impacts.rhythm import Track, onsets_of

Tracks = tuple[Track, ...]
MOVED = 0.15  # s: at least one contact moves by more


def retimed(kind: Kind, tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """Other times for the same movers and speeds: a new rhythm of strikes, other starts and flights of what falls."""

    def draw(r: np.random.Generator) -> Tracks:
        if kind == "strike":
            times = rhythm.draw_strikes(r, len(tracks[0].times), tracks[0].x)[0].times
            return (replace(tracks[0], times=times),)
        starts = np.sort(r.uniform(0.4, 6.9 if len(tracks) > 1 else 1.4, len(tracks)))
        moved = []
        for track, start in zip(tracks, starts, strict=True):
            stretch = float(r.uniform(0.92, 1.12))
            times = tuple(round(float(start) + (t - track.times[0]) * stretch, 4) for t in track.times)
            moved.append(replace(track, times=times))
        return tuple(moved)

    old = np.array(onsets_of(tracks))
    for _ in range(1000):
        new = rhythm.until_acceptable(draw, rng)
        if float(np.abs(np.array(onsets_of(new)) - old).max()) > MOVED:
            return new
    raise RuntimeError("no other timing in 1,000 draws: the ranges of the set contradict each other")


def recounted(kind: Kind, tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """Another number of contacts, by leaving out or adding; what stays is exactly as it was."""
    for _ in range(10_000):
        new = _recount_strikes(tracks[0], rng) if kind == "strike" else _recount_movers(kind, tracks, rng)
        if rhythm.acceptable(new) and len(onsets_of(new)) != len(onsets_of(tracks)):
            return new
    raise RuntimeError("no other count in 10,000 draws: the ranges of the set contradict each other")


def _recount_strikes(track: Track, rng: np.random.Generator) -> Tracks:
    """One to three strikes fewer when there are six or more, else more in the gaps."""
    pairs = list(zip(track.times, track.speeds, strict=True))
    fewer = len(pairs) >= 6
    for _ in range(int(rng.integers(1, 4))):
        if fewer:
            pairs.pop(int(rng.integers(len(pairs))))
        else:
            time, speed = rng.uniform(0.3, rhythm.LAST), rng.uniform(0.8, 3.0)
            pairs.append((round(float(time), 4), round(float(speed), 3)))
    pairs.sort()
    times = tuple(t for t, _ in pairs)
    if min(np.diff(times)) < rhythm.CLOSEST_STRIKES:
        return (track,)
    return (replace(track, times=times, speeds=tuple(v for _, v in pairs)),)


def _recount_movers(kind: Kind, tracks: Tracks, rng: np.random.Generator) -> Tracks:
    """One or two steps: a mover left out, its last bounces left out, or another like it added in a free lane."""
    lanes = rhythm.SPOTS if kind == "bounce" else rhythm.LANES
    movers = list(tracks)
    for _ in range(int(rng.integers(1, 3))):
        choice = rng.uniform()
        if len(movers) > 1 and choice < 0.4:
            movers.pop(int(rng.integers(len(movers))))
        elif choice < 0.7:
            i = int(rng.integers(len(movers)))
            movers[i] = _shortened(movers[i], rng)
        else:
            model = _shortened(movers[int(rng.integers(len(movers)))], rng)
            free = [x for x in lanes if all(abs(x - mover.x) > 0.11 for mover in movers)]
            later = float(rng.uniform(0.4, 6.9)) - model.times[0]
            if free:
                times = tuple(round(t + later, 4) for t in model.times)
                movers.append(replace(model, x=float(rng.choice(free)), times=times))
    return tuple(movers)


def _shortened(track: Track, rng: np.random.Generator) -> Track:
    """The first contacts of a track, at least one, maybe all."""
    kept = int(rng.integers(1, len(track.times) + 1))
    return replace(track, times=track.times[:kept], speeds=track.speeds[:kept])
