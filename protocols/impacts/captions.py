"""Captions: one English sentence per clip that says material, kind, size, rough count and pace."""

from __future__ import annotations

import numpy as np

from protocols.impacts.materials import FORMS, MATERIALS, Kind
from protocols.impacts.rhythm import Track, onsets_of

HEADS = ("felt-tipped", "leather-tipped", "wooden-tipped", "steel-tipped")  # by hardness, soft to hard

STRIKE = (
    "A {head} mallet strikes {thing} {times}, {pace}.",
    "Someone hits {thing} with a {head} mallet {times} {pace}.",
    "{Thing} is struck {times} {pace} by a {head} mallet.",
    "{pace_start}, a {head} mallet taps on {thing} {times}.",
    "A mallet with a {head} end knocks {thing} {times} {pace}.",
)
DROP = (
    "{Many} {noun} onto a hard floor one after another, {times_impacts} in all.",
    "{Many} {noun} down and bounce on the hard floor, {times_impacts} {pace}.",
    "On a hard floor, {many} {noun} to rest after a few bounces, with {times_impacts}.",
    "{Many} {noun} to the ground {pace} with {times_impacts}.",
)
BOUNCE = (
    "{Balls} on {thing}, {times_impacts} {pace}.",
    "{Balls} up and down on {thing} {pace}, {times_impacts} in all.",
    "On {thing}, {balls} {pace} with {times_impacts}.",
    "{Thing} is hit by bouncing: {balls} on it {pace}, {times_impacts}.",
)
DROP_VERBS = ("fall", "drop", "come", "tumble")
NUMBERS = ("zero", "one", "two", "three", "four", "five")


def size_word(size: float) -> str:
    """Word for a size factor: small under 0.87, large over 1.15, else medium-sized."""
    return "small" if size < 0.87 else "large" if size > 1.15 else "medium-sized"


def pace_words(tracks: tuple[Track, ...]) -> str:
    """Words for the pace: by the median gap between contacts in seconds."""
    gap = float(np.median(np.diff(onsets_of(tracks))))
    return "in quick succession" if gap < 0.45 else "at an uneven, moderate pace" if gap < 0.9 else "slowly"


def count_words(count: int, unit: str) -> str:
    """Rough count: exact up to three, then several and many."""
    if count <= 3:
        return f"{NUMBERS[count]} {unit}"
    return f"several {unit}" if count <= 6 else f"many {unit}"


def caption(
    material: str, kind: Kind, form: str, support: str, size: float, head: int, tracks: tuple[Track, ...], wording: int
) -> str:
    """The sentence; ``wording`` picks the template and nothing else."""
    adjective, noun = MATERIALS[material].adjective, FORMS[form][2]
    described = f"{size_word(size)} {'hanging ' if support == 'hanging' else ''}{adjective} {noun}"
    pace = pace_words(tracks)
    count = len(onsets_of(tracks))
    thing = f"a {described}"
    if kind == "strike":
        text = STRIKE[wording % len(STRIKE)].format(
            head=HEADS[head], thing=thing, Thing=_start(thing), times=count_words(count, "times"), pace=pace,
            pace_start=_start(pace),
        )  # fmt: skip
    elif kind == "drop":
        i = wording % len(DROP)
        many = f"{NUMBERS[len(tracks)]} {described}s"
        text = DROP[i].format(
            Many=_start(many), many=many, noun=DROP_VERBS[i], times_impacts=count_words(count, "impacts"), pace=pace
        )
    else:
        balls = "a ball bounces" if len(tracks) == 1 else f"{NUMBERS[len(tracks)]} balls bounce"
        text = BOUNCE[wording % len(BOUNCE)].format(
            Balls=_start(balls), balls=balls, thing=thing, Thing=_start(thing),
            times_impacts=count_words(count, "impacts"), pace=pace,
        )  # fmt: skip
    return text


def _start(words: str) -> str:
    return words[0].upper() + words[1:]
