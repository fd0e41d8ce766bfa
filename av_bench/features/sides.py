"""Reference and generated media of every clip of a run: which clips are scored, which are not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from av_bench.contracts import Clip, MediaError, Reason
from av_bench.features.store import media_key
from av_bench.media.content import Content, is_as_read, read_content


@dataclass
class MediaFile:
    """One file of a clip. ``problem`` is set when it cannot be scored; ``flags`` are remarks on one that is scored."""

    id: str
    path: Path
    sample: int = 0
    digest: str = ""
    identity: str = ""  # names its features in the store where that is not the digest (``Content``)
    content: Content | None = None  # what the file held when it was hashed
    made: str | None = None  # sha256 of the file as this run wrote it
    level: float = 0.0  # largest absolute sample
    problem: MediaError | None = None
    flags: list[tuple[Reason, str]] = field(default_factory=list)
    seconds: float | None = None  # that are scored of this clip, where clips differ

    def window(self, seconds: float) -> float:
        """Seconds that are scored: its own, else those of all clips."""
        return seconds if self.seconds is None else self.seconds

    def key(self, seconds: float) -> str:
        """Store key."""
        return media_key(self.identity or self.digest, self.window(seconds))

    def identify(self) -> None:
        """Hash the file, unless it is in the state in which it was hashed. Sets the problem of one that cannot be."""
        try:
            if self.content is None or not is_as_read(self.path, self.content):
                self.content = read_content(self.path)
        except MediaError as error:
            self.problem = error
            return
        self.digest, self.identity = self.content.digest, self.content.identity
        if self.made is not None and self.digest != self.made:
            detail = "the file is not the one that this run wrote"
            self.problem = MediaError(self.path, Reason.CHANGED_WHILE_READ, detail)

    def as_record(self, folder: Path) -> dict[str, Any]:
        """What is known of it, for JSON; a path inside ``folder`` is written as its name there."""
        path = self.path.name if self.path.parent == folder else str(self.path)
        record: dict[str, Any] = {"path": path, "sample": self.sample, "digest": self.digest, "level": self.level}
        if self.identity not in ("", self.digest):
            record["identity"] = self.identity
        if self.seconds is not None:
            record["seconds"] = self.seconds
        if self.flags:
            record["flags"] = [[reason.value, detail] for reason, detail in self.flags]
        if self.problem is not None:
            record["problem"] = [str(self.problem.path), self.problem.reason.value, self.problem.detail]
        return record

    @classmethod
    def from_record(cls, clip_id: str, record: Mapping[str, Any], folder: Path) -> Self:
        """Back from ``as_record``. KeyError, TypeError or ValueError when it is none."""
        problem = record.get("problem")
        return cls(
            clip_id,
            folder / record["path"],
            int(record["sample"]),
            digest=str(record["digest"]),
            identity=str(record.get("identity", record["digest"])),
            level=float(record["level"]),
            problem=None if problem is None else MediaError(problem[0], Reason(problem[1]), problem[2]),
            flags=[(Reason(reason), str(detail)) for reason, detail in record.get("flags", ())],
            seconds=record.get("seconds"),
        )


@dataclass
class ReferenceMedia:
    """Reference media by clip id: video frames and reference audio; the same MediaFile where one file holds both.

    ``has_video`` is False when ``video`` has only placeholders of missing files, without features.
    """

    video: dict[str, MediaFile]
    audio: dict[str, MediaFile]
    has_video: bool = True

    def files(self, clip_id: str) -> list[MediaFile]:
        """The files of a clip, each once, the audio first."""
        found = [side[clip_id] for side in (self.audio, self.video) if clip_id in side]
        return found[:1] if len(found) == 2 and found[0] is found[1] else found

    def problem(self, clip_id: str) -> MediaError | None:
        """The first thing that keeps a clip out, None when all of its files can be used."""
        return next((m.problem for m in self.files(clip_id) if m.problem is not None), None)


@dataclass(frozen=True)
class Problem:
    """Why a clip is in no metric."""

    stage: str
    reason: Reason
    detail: str


class Sides:
    """Both sides of every clip: who is scored, who is not, and why."""

    def __init__(self, clips: Sequence[Clip], reference: ReferenceMedia, generated: Sequence[MediaFile]) -> None:
        self.clips = tuple(clips)
        self.reference = reference
        self.generated: dict[str, list[MediaFile]] = {}
        for medium in generated:
            self.generated.setdefault(medium.id, []).append(medium)

    def problem(self, clip_id: str, per_clip: int) -> Problem | None:
        """The first thing that keeps a clip out, None when it is scored."""
        problem = self.reference.problem(clip_id)
        if problem is not None:
            return Problem("reference", problem.reason, problem.detail)
        for medium in self.generated.get(clip_id, []):
            if medium.problem is not None:
                return Problem("generated", medium.problem.reason, medium.problem.detail)
        if len(self.generated.get(clip_id, [])) < per_clip:
            return Problem("generated", Reason.MISSING_SAMPLE, f"{per_clip} samples are expected")
        return None

    def scored(self, per_clip: int) -> tuple[Clip, ...]:
        """The frozen list of the row."""
        return tuple(c for c in self.clips if self.problem(c.id, per_clip) is None)

    def media(self, clip_id: str, side: str) -> list[MediaFile]:
        """The files of one side of a clip."""
        return self.reference.files(clip_id) if side == "reference" else self.generated.get(clip_id, [])

    def flags(self, clip_id: str) -> Iterator[tuple[str, Reason, str]]:
        """Remarks on a clip that is scored all the same."""
        for stage in ("reference", "generated"):
            for reason, detail in (flag for medium in self.media(clip_id, stage) for flag in medium.flags):
                yield stage, reason, detail

    def origin(self, clip_id: str) -> dict[str, Any]:
        """Digests of the media a clip was scored from, for the ledger."""
        reference = [m.digest for m in self.reference.files(clip_id)]
        digests = [m.digest for m in self.generated.get(clip_id, [])]
        return {
            "reference": reference[0] if reference else None,
            "picture": reference[-1] if reference else None,
            "generated": digests,
        }

    def pairs(self, clips: Sequence[Clip], side: str) -> list[tuple[MediaFile, MediaFile]]:
        """(video, audio) files of the clips that have a video, for pair extractors."""
        found = []
        for clip in clips:
            video, reference = self.reference.video.get(clip.id), self.reference.audio.get(clip.id)
            if clip.video is None or video is None:
                continue
            audio = self.generated[clip.id] if side == "generated" else [reference] if reference is not None else []
            found += [(video, medium) for medium in audio]
        return found
