"""Both sides of every clip of a run: who is scored, who is not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, MediaError, Reason
from av_bench.features.store import media_key


@dataclass
class Medium:
    """One file on one side. ``problem`` is set when it cannot be scored; ``flags`` are said aloud only."""

    id: str
    path: Path
    sample: int = 0
    digest: str = ""
    problem: MediaError | None = None
    flags: list[tuple[Reason, str]] = field(default_factory=list)

    def key(self, seconds: float) -> str:
        """Store key."""
        return media_key(self.digest, seconds)


@dataclass
class RealSide:
    """The real media by clip id: what is seen and what is heard; the same Medium where one file holds both.

    ``seen`` is False when the pictures only stand for videos that are not there, without features of them.
    """

    pictures: dict[str, Medium]
    sounds: dict[str, Medium]
    seen: bool = True

    def media(self, clip_id: str) -> list[Medium]:
        """The media of a clip, each once, the sound first."""
        found = [side[clip_id] for side in (self.sounds, self.pictures) if clip_id in side]
        return found[:1] if len(found) == 2 and found[0] is found[1] else found

    def problem(self, clip_id: str) -> MediaError | None:
        """The first thing that keeps a clip out, None when all of its media can be used."""
        return next((m.problem for m in self.media(clip_id) if m.problem is not None), None)


@dataclass
class Samples:
    """The generated side: one Medium per (clip, k); those without a file carry their problem."""

    media: list[Medium] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    """Why a clip is in no metric."""

    stage: str
    reason: Reason
    detail: str


class Table:
    """Both sides of every clip: who is scored, who is not, and why."""

    def __init__(self, clips: Sequence[Clip], real: RealSide, samples: Samples) -> None:
        self.clips = tuple(clips)
        self.real = real
        self.samples: dict[str, list[Medium]] = {}
        for medium in samples.media:
            self.samples.setdefault(medium.id, []).append(medium)

    def problem(self, clip_id: str, per_clip: int) -> Problem | None:
        """The first thing that keeps a clip out, None when it is scored."""
        problem = self.real.problem(clip_id)
        if problem is not None:
            return Problem("reference", problem.reason, problem.detail)
        for medium in self.samples.get(clip_id, []):
            if medium.problem is not None:
                return Problem("generated", medium.problem.reason, medium.problem.detail)
        if len(self.samples.get(clip_id, [])) < per_clip:
            return Problem("generated", Reason.MISSING_SAMPLE, f"{per_clip} samples are expected")
        return None

    def scored(self, per_clip: int) -> tuple[Clip, ...]:
        """The frozen list of the row."""
        return tuple(c for c in self.clips if self.problem(c.id, per_clip) is None)

    def flags(self, clip_id: str) -> Iterator[tuple[str, Reason, str]]:
        """What is said about a clip that is scored all the same."""
        sides = (("reference", self.real.media(clip_id)), ("generated", self.samples.get(clip_id, [])))
        for stage, media in sides:
            for reason, detail in (flag for medium in media for flag in medium.flags):
                yield stage, reason, detail

    def origin(self, clip_id: str) -> dict[str, Any]:
        """Digests of the media a clip was scored from, for the ledger."""
        real = [m.digest for m in self.real.media(clip_id)]
        digests = [m.digest for m in self.samples.get(clip_id, [])]
        return {"reference": real[0] if real else None, "picture": real[-1] if real else None, "generated": digests}

    def pairs(self, clips: Sequence[Clip], side: str) -> list[tuple[Medium, Medium]]:
        """(video, audio) media of the clips that have a picture, for pair extractors."""
        found = []
        for clip in clips:
            video, sound = self.real.pictures.get(clip.id), self.real.sounds.get(clip.id)
            if clip.video is None or video is None:
                continue
            audio = self.samples[clip.id] if side == "generated" else [sound] if sound is not None else []
            found += [(video, medium) for medium in audio]
        return found
