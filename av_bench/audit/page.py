"""A page on which a person can check content matches: pictures of the same moments, spectrograms on one clock.

The page is one file: pictures are embedded, nothing is loaded from elsewhere, no script runs. Of long files the minute
around the match is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from av_bench.audit import snapshots
from av_bench.audit.alignment import Alignment
from av_bench.audit.content import ContentAudit
from av_bench.audit.library import Match
from av_bench.runtime.files import write_atomically

_MOMENTS = 6
_AROUND_S, _LONGEST_S = 12.0, 60.0  # s on either side of the stretch; of a whole clock


@dataclass(frozen=True)
class Strip:
    """One spectrogram on the common clock: picture, left edge and width in percent of the clock."""

    image: str
    left: float
    width: float


@dataclass(frozen=True)
class Card:
    """What the page shows of one match. ``marks``: (left, width, kind) in percent of the clock."""

    match: Match
    moments: list[tuple[str, str, str, str]]
    strips: list[tuple[str, Strip]]
    marks: list[tuple[float, float, str]]
    ticks: list[tuple[float, str]]
    note: str


def write_page(result: ContentAudit, path: Path, limit: int = 100) -> None:
    """Write the page of the first ``limit`` matches (the page says how many there are)."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True)
    cards = [card(match) for match in result.matches[:limit]]
    html = environment.get_template("content.html.j2").render(result=result, cards=cards, counts=result.counts)
    write_atomically(path, html.encode())


def card(match: Match) -> Card:
    """Look into both files once more and lay out what was matched."""
    found = [a for a in (match.picture, match.sound) if a]
    lead = found[0]
    begin = max(0.0, min(a.start for a in found) - _AROUND_S)
    end = min(max(a.start + a.length for a in found) + _AROUND_S, begin + _LONGEST_S)
    speed, offset = lead.change.speed, lead.offset
    test = snapshots.spectrogram(match.test, begin, end)
    train = snapshots.spectrogram(match.train, max(0.0, speed * begin + offset), max(0.0, speed * end + offset))
    sides = [("test", test, 1.0, 0.0), ("train", train, speed, offset)]
    spans = [((strip[1] - late) / fast, strip[2] / fast) for _, strip, fast, late in sides if strip]
    spans += [(a.start, a.length) for a in found]
    first, last = min(s for s, _ in spans), max(s + n for s, n in spans)

    def percent(seconds: float) -> float:
        return round(100 * (seconds - first) / (last - first), 3)

    strips = []
    for name, strip, fast, late in sides:
        if strip is not None:
            image, at, length = strip
            width = round(100 * length / fast / (last - first), 3)
            strips.append((name, Strip(image, percent((at - late) / fast), width)))
    marks = [
        (percent(a.start), round(100 * a.length / (last - first), 3), kind)
        for a, kind in ((match.sound, "sound"), (match.picture, "picture"))
        if a
    ]
    step = 1 if last - first <= 30 else 5
    ticks = [(percent(t), f"{t:g}") for t in range(int(np.ceil(first)), int(last) + 1) if t % step == 0]
    pairs = _moments(match, lead)
    return Card(match, pairs, strips, marks, ticks, _note(match, pairs, test is None, train is None))


def _moments(match: Match, lead: Alignment) -> list[tuple[str, str, str, str]]:
    """Pairs of pictures (time in test, picture, time in train, picture) spread over the stretch."""
    times = lead.start + lead.length * (np.arange(_MOMENTS) + 0.5) / _MOMENTS
    there = lead.change.speed * times + lead.offset
    ours, theirs = (
        snapshots.moments(path, tuple(float(round(t, 2)) for t in when))
        for path, when in ((match.test, times), (match.train, there))
    )
    if not (len(ours) == len(theirs) == _MOMENTS):
        return []
    return [(f"{t:.1f} s", a, f"{u:.1f} s", b) for t, a, u, b in zip(times, ours, there, theirs, strict=True)]


def _note(match: Match, pairs: list[tuple[str, str, str, str]], test_silent: bool, train_silent: bool) -> str:
    """Why only one of the two streams matched, as far as the files say it."""
    if match.sound and match.picture:
        middle = match.picture.start + match.picture.length / 2
        apart = [a.change.speed * middle + a.offset for a in (match.sound, match.picture)]
        return "sound and picture are matched at different offsets" if abs(apart[0] - apart[1]) > 0.3 else ""
    if match.sound is None:
        silent = [name for name, none in (("test", test_silent), ("training", train_silent)) if none]
        if silent:
            return f"no sound in the {' and the '.join(silent)} file"
        return "the sound differs, or too little of it is common"
    return "the picture differs, stands still, or too little of it is common" if pairs else "no picture to compare"
