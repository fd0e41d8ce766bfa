"""Where things are at a time: heights over the place of contact, wobble of what was struck. Frame widths, s, rad."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

from protocols.impacts.rhythm import GRAVITY, Track

SWING = 0.26  # s a mallet takes from its rest to the contact
LIFT = 0.27  # how high it rests


def mallet_height(track: Track, time: float) -> float:
    """Distance of the mallet's head from the object; 0 at each contact, fast there and slow at the top."""
    times = track.times
    following = bisect_right(times, time)
    reach = SWING
    if 0 < following < len(times):
        reach = min(SWING, (times[following] - times[following - 1]) / 2)
    away = min(abs(time - t) for t in times[max(0, following - 1) : following + 1])
    return LIFT * reach / SWING * math.sin(math.pi / 2 * min(1.0, away / reach))


def flight_height(track: Track, time: float, frame_metres: float) -> float:
    """Height of a falling or bouncing thing over its contact: free fall, parabolas between contacts, then rest."""
    times = track.times
    half_gravity = GRAVITY / 2 / frame_metres
    if time <= times[0]:
        fall = track.speeds[0] / GRAVITY
        left = min(times[0] - time, fall)  # before its fall it waits above the frame
        return half_gravity * (fall**2 - (fall - left) ** 2)
    for start, stop in pairwise(times):
        if time <= stop:
            return half_gravity * (time - start) * (stop - time)
    return 0.0


def sideways(track: Track, time: float) -> float:
    """Place across the frame: a slow drift that ends with the last contact."""
    return track.x + track.drift * (min(time, track.times[-1]) - track.times[-1])


def turned(track: Track, time: float) -> float:
    """Angle of a falling object, radians: it comes to lie flat with its last contact."""
    flight = track.times[-1] - track.times[0] + 0.25
    return math.radians(track.turn) * min(1.2, max(0.0, (track.times[-1] - time) / flight))


def wobble(tracks: tuple[Track, ...], time: float, frequency: float, decay: float) -> float:
    """Sum of damped oscillations started by the contacts so far; about 1 after the fastest contact."""
    fastest = max(v for track in tracks for v in track.speeds)
    total = 0.0
    for track in tracks:
        for start, speed in zip(track.times, track.speeds, strict=True):
            since = time - start
            if 0 < since < 5 * decay:
                total += speed / fastest * math.exp(-since / decay) * math.sin(2 * math.pi * frequency * since)
    return total
