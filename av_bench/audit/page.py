"""A page on which a person can check content matches: pictures of the same moments, spectrograms on one clock.

The page is one file: pictures are embedded, nothing is loaded from elsewhere, no script runs.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.audit.alignment import HOP, SOUND_RATE, Alignment, spectrogram
from av_bench.audit.content import ContentAudit
from av_bench.audit.library import Match
from av_bench.contracts import MediaError, Reason, VideoRequest
from av_bench.media.decode import DecodedMedia, decode
from av_bench.runtime.files import write_atomically

_THUMBS = VideoRequest(4.0, 108, "short")
_MOMENTS = 6


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
    test_seconds: float
    train_seconds: float
    moments: list[tuple[str, str, str, str]]
    strips: list[tuple[str, Strip]]
    marks: list[tuple[float, float, str]]
    ticks: list[tuple[float, str]]
    note: str


def write_page(result: ContentAudit, path: Path, limit: int = 200) -> None:
    """Write the page of the first ``limit`` matches (the page says how many there are)."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True)
    cards = [card(match) for match in result.matches[:limit]]
    html = environment.get_template("content.html.j2").render(result=result, cards=cards, counts=result.counts)
    write_atomically(path, html.encode())


def card(match: Match) -> Card:
    """Decode both files once more and lay out what was matched."""
    test, train = _decode(match.test), _decode(match.train)
    lead = match.picture or match.sound
    if lead is None:
        raise ValueError(f"{match.test}: a match without a stretch")
    lengths = _length(test), _length(train)
    begin = min(0.0, -lead.offset)
    span = max(lengths[0], lengths[1] - lead.offset) - begin

    def percent(seconds: float) -> float:
        return round(100 * (seconds - begin) / span, 3)

    strips = []
    for name, media, shift in (("test", test, 0.0), ("train", train, -lead.offset)):
        if media.audio is not None:
            width = 100 * media.audio_seconds / span
            strips.append((name, Strip(_spectrogram_png(media), percent(shift), round(width, 3))))
    marks = [
        (percent(a.start), round(100 * a.length / span, 3), kind)
        for a, kind in ((match.sound, "sound"), (match.picture, "picture"))
        if a
    ]
    ticks = [(percent(t), f"{t:g}") for t in range(int(np.ceil(begin)), int(begin + span) + 1)]
    return Card(match, *lengths, _moments(test, train, lead), strips, marks, ticks, _note(match, test, train))


def _decode(path: Path) -> DecodedMedia:
    try:
        return decode(path, [_THUMBS])
    except MediaError as error:
        if error.reason is not Reason.NO_VIDEO:
            raise
        return decode(path)


def _length(media: DecodedMedia) -> float:
    return max(media.audio_seconds, media.video_seconds or 0.0)


def _moments(test: DecodedMedia, train: DecodedMedia, lead: Alignment) -> list[tuple[str, str, str, str]]:
    """Pairs of pictures (time in test, picture, time in train, picture) spread over the stretch."""
    if not (_THUMBS in test.pictures and _THUMBS in train.pictures):
        return []
    times = lead.start + lead.length * (np.arange(_MOMENTS) + 0.5) / _MOMENTS
    return [
        (f"{t:.1f} s", _frame_png(test, t), f"{t + lead.offset:.1f} s", _frame_png(train, t + lead.offset))
        for t in times
    ]


def _frame_png(media: DecodedMedia, seconds: float) -> str:
    frames = media.frames(_THUMBS)
    index = min(max(int(seconds * _THUMBS.fps), 0), len(frames) - 1)
    return _png(frames[index].permute(1, 2, 0).numpy())


def _spectrogram_png(media: DecodedMedia) -> str:
    mel = spectrogram(media.waveform(SOUND_RATE, None).numpy())
    usual = max(1, round(0.02 * SOUND_RATE / HOP))  # 20 ms a column is finer than a screen shows
    columns = mel[:, : mel.shape[1] // usual * usual].reshape(len(mel), -1, usual).mean(axis=2)
    return _png(columns[::-1], "magma")


def _png(pixels: NDArray[Any], colours: str | None = None) -> str:
    """A data address of a PNG."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png", cmap=colours)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _note(match: Match, test: DecodedMedia, train: DecodedMedia) -> str:
    """Why only one of the two streams matched, as far as the files say it."""
    sides = [name for name, media in (("test", test), ("training", train)) if media.audio is None]
    if match.sound is None and sides:
        return f"no sound in the {' and the '.join(sides)} file"
    sides = [name for name, media in (("test", test), ("training", train)) if _THUMBS not in media.pictures]
    if match.picture is None and sides:
        return f"no picture in the {' and the '.join(sides)} file"
    if match.sound and match.picture and abs(match.sound.offset - match.picture.offset) > 0.3:
        return "sound and picture are matched at different offsets"
    if match.sound is None:
        return "the sound differs, or too little of it is common"
    return "" if match.picture else "the picture differs, stands still, or too little of it is common"
