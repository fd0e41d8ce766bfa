"""A set against itself: which files are copies of one recording, and which of them stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from av_bench.audit.alignment import Alignment
from av_bench.audit.library import Match
from av_bench.audit.turns import TURNS

Keep = Literal["first", "longest", "best"]
KEEPS: tuple[Keep, ...] = get_args(Keep)


@dataclass(frozen=True, slots=True)
class Recording:
    """What the choice between copies looks at: length (s) and pixels of a frame."""

    seconds: float
    pixels: int


@dataclass(frozen=True)
class Kept:
    """``stands_for`` maps every file that goes to the one that stays; ``rule`` is how that was chosen."""

    rule: Keep
    stands_for: Mapping[Path, Path]


def copies_of(matches: Sequence[Match], files: Mapping[Path, Recording], keep: Keep) -> Kept:
    """Of all files of the set that hang together by matches one stays.

    ``first``: by path; ``longest``: the longest; ``best``: the one with the most pixels, of those the longest. Ties go
    to the first by path.
    """
    group = {path: path for path in files}

    def head(path: Path) -> Path:
        while group[path] != path:
            group[path] = path = group[group[path]]
        return path

    for match in matches:
        if match.test in files and match.train in files:
            group[head(match.test)] = head(match.train)
    members: dict[Path, list[Path]] = {}
    for path in sorted(files):
        members.setdefault(head(path), []).append(path)

    def worth(path: Path) -> tuple[float, ...]:
        seconds, pixels = round(files[path].seconds, 1), files[path].pixels  # a codec's padding is not a difference
        return {"first": (0.0,), "longest": (seconds,), "best": (pixels, seconds)}[keep]

    stands_for: dict[Path, Path] = {}
    for paths in members.values():
        stays = max(paths, key=worth)  # the first of equals
        stands_for |= {path: stays for path in paths if path != stays}
    return Kept(keep, stands_for)


def once(matches: Sequence[Match], files: Collection[Path], kept: Kept) -> list[Match]:
    """Every pair of files of the set once, as the file that goes matching the one that stays, or else in the order of
    paths; matches with other files as they are."""
    chosen: dict[frozenset[Path], Match] = {}
    for match in matches:
        turn = match if match.train not in files or _as_wanted(match, kept) else reversed_match(match)
        pair = frozenset((match.test, match.train))
        if pair not in chosen or turn.confidence > chosen[pair].confidence:
            chosen[pair] = turn
    return list(chosen.values())


def _as_wanted(match: Match, kept: Kept) -> bool:
    goes = match.test in kept.stands_for, match.train in kept.stands_for
    return goes[0] if goes[0] != goes[1] else match.train < match.test


def reversed_match(match: Match) -> Match:
    """The same match seen from the other file."""
    sound, picture = (None if a is None else reversed_alignment(a) for a in (match.sound, match.picture))
    return Match(match.train, match.test, sound, picture)


def reversed_alignment(found: Alignment) -> Alignment:
    """The same stretch with test and training file in each other's place."""
    change, speed = found.change, found.change.speed
    back = {turn: turn for turn in TURNS} | {
        "rotated by 90 degrees": "rotated by 270 degrees",
        "rotated by 270 degrees": "rotated by 90 degrees",
    }
    undone = replace(change, speed=1 / speed, pitch=-change.pitch, turn=back[change.turn])
    start = speed * found.start + found.offset
    return Alignment(-found.offset / speed, start, speed * found.length, found.confidence, undone)
