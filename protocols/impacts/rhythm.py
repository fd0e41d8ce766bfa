"""When things touch: tracks of contacts for the three kinds.

A track is one moving thing (the mallet, one falling object, one ball) with its contacts. Times are rounded to
0.1 ms, so that they are the same number in a table, in the sound and in the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRAVITY = 9.81  # m/s2
CLOSEST = 0.12  # s between contacts of different movers
CLOSEST_STRIKES = 0.16  # s between strikes of the one mallet
CLOSEST_BOUNCE = 0.09  # s: shorter flights end the series, the object then lies still and silent
LAST = 7.6  # s: the latest contact, so that its sound is still in the clip
LANES = (-0.3, -0.1, 0.1, 0.3)  # of falling objects
SPOTS = (-0.15, 0.0, 0.15)  # of balls on the slab


@dataclass(frozen=True)
class Track:
    """Contacts of one mover: place ``x`` (frame widths from the middle), ``times`` (s), ``speeds`` (m/s).

    ``turn`` (degrees) is how far a falling object is turned at its first contact; ``drift`` its sideways speed in
    frame widths/s.
    """

    x: float
    times: tuple[float, ...]
    speeds: tuple[float, ...]
    turn: float = 0.0
    drift: float = 0.0


Draw = Callable[[np.random.Generator], tuple[Track, ...]]


def onsets_of(tracks: tuple[Track, ...]) -> tuple[float, ...]:
    """All contacts of all movers in order, seconds."""
    return tuple(sorted(t for track in tracks for t in track.times))


def acceptable(tracks: tuple[Track, ...]) -> bool:
    """True when the rhythm suits a clip: 3-10 contacts, spread over it, no two movers at once."""
    onsets = np.array(onsets_of(tracks))
    if not 3 <= onsets.size <= 10 or onsets[0] > 1.5 or onsets[-1] > LAST or onsets[-1] < 5.0:
        return False
    if (onsets < 4.7).sum() < 2 or (onsets > 3.3).sum() < 2:
        return False
    for i, track in enumerate(tracks):
        others = np.array([t for j, other in enumerate(tracks) if j != i for t in other.times])
        if others.size and np.abs(np.subtract.outer(track.times, others)).min() < CLOSEST:
            return False
    return True


def until_acceptable(draw: Draw, rng: np.random.Generator) -> tuple[Track, ...]:
    """Draws until the rhythm is acceptable."""
    for _ in range(100_000):
        tracks = draw(rng)
        if acceptable(tracks):
            return tracks
    raise RuntimeError("no acceptable rhythm in 100,000 draws: the ranges of the set contradict each other")


def strike_times(rng: np.random.Generator, count: int) -> tuple[float, ...]:
    """``count`` uneven strike times: gaps spread over a factor of ten, so that no shift maps them on themselves."""
    gaps = np.exp(rng.uniform(np.log(0.2), np.log(2.0), count - 1))
    first = rng.uniform(0.3, 1.4)
    span = rng.uniform(5.2, LAST) - first
    gaps *= span / gaps.sum()
    return tuple(round(float(t), 4) for t in first + np.concatenate([[0.0], np.cumsum(gaps)]))


def draw_strikes(rng: np.random.Generator, count: int, x: float) -> tuple[Track, ...]:
    """One mallet track of ``count`` strikes with speeds between 0.8 and 3 m/s."""
    speeds = tuple(round(float(v), 3) for v in rng.uniform(0.8, 3.0, count))
    times = strike_times(rng, count)
    while min(np.diff(times)) < CLOSEST_STRIKES or np.ptp(np.diff(times)) < 0.1:
        times = strike_times(rng, count)
    return (Track(x, times, speeds),)


def bounces(first: float, fall_time: float, restitution: float, limit: int) -> tuple[list[float], list[float]]:
    """Times (s) and impact speeds (m/s) of an object that falls for ``fall_time`` and hits the floor at ``first``.

    Speed shrinks by ``restitution`` at each contact; the series ends with ``limit`` contacts, or when the next
    flight would last less than ``CLOSEST_BOUNCE`` or hit with under a sixth of the first speed.
    """
    speed = GRAVITY * fall_time
    times, speeds = [first], [speed]
    while len(times) < limit:
        after = speeds[-1] * restitution
        flight = 2 * after / GRAVITY
        if flight < CLOSEST_BOUNCE or after < speed / 6:
            break
        times.append(times[-1] + flight)
        speeds.append(after)
    return [round(t, 4) for t in times], [round(v, 3) for v in speeds]


def draw_drops(rng: np.random.Generator, count: int, restitution: float) -> tuple[Track, ...]:
    """``count`` objects that fall one after another, each in a lane of its own."""
    lanes = rng.permutation(len(LANES))[:count]
    starts = np.sort(rng.uniform(0.4, 6.9, count))
    tracks = []
    for lane, start in zip(lanes, starts, strict=True):
        fall = float(rng.uniform(0.62, 0.8))
        times, speeds = bounces(float(start), fall, restitution * float(rng.uniform(0.9, 1.1)), min(5, 10 // count))
        turn = float(rng.choice([-1, 1]) * rng.uniform(8, 50))
        x = LANES[lane] + float(rng.uniform(-0.02, 0.02))
        drift = round(float(rng.uniform(-0.04, 0.04)), 4)
        tracks.append(Track(round(x, 4), tuple(times), tuple(speeds), round(turn, 2), drift))
    return tuple(tracks)


def draw_bounces(rng: np.random.Generator, count: int, restitution: float, fall: float) -> tuple[Track, ...]:
    """``count`` balls on the slab; a single ball bounces long, several die out one after another."""
    spots = rng.permutation(SPOTS)[:count]
    starts = [rng.uniform(0.4, 1.4)] if count == 1 else np.sort(rng.uniform(0.4, 6.4, count))
    tracks = []
    for spot, start in zip(spots, starts, strict=True):
        falling = fall * float(rng.uniform(0.92, 1.08))
        times, speeds = bounces(float(start), falling, restitution, 10 // count)
        while times[-1] > LAST:
            times.pop()
            speeds.pop()
        x = float(spot) + float(rng.uniform(-0.03, 0.03))
        drift = round(float(rng.uniform(-0.015, 0.015)), 4)
        tracks.append(Track(round(x, 4), tuple(times), tuple(speeds), 0.0, drift))
    return tuple(tracks)
