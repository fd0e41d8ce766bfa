"""Both sides of every clip of a run: who is scored, who is not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from av_bench.contracts import Clip, Reason
from av_bench.features import Medium, RealSide

if TYPE_CHECKING:
    from av_bench.generation import Samples


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
