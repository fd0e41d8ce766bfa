"""Clips and frozen sets of them, and the seed of one sample."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from av_bench.contracts.errors import UsageError
from av_bench.contracts.text import check_id, printable

DEFAULT_SEED = 14159265
"""Seed of generation unless another is given: the published evaluation's."""

ClipField = Literal["video", "audio", "text", "label", "onsets"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One item of a set.

    ``video`` holds frames and, unless ``audio`` names a separate file, the reference audio. ``onsets`` are seconds
    from the start of the clip. ``group`` is the source recording: clips of one group are not independent and
    the intervals resample groups. For generators only: ``image`` is a still picture to start from where there is no
    ``video``, ``negative`` a text to steer away from; neither is scored.

    Every clip is checked, wherever it comes from: an id can be a file name, and texts are printable.
    """

    id: str
    video: Path | None = None
    audio: Path | None = None
    text: str | None = None
    label: str | None = None
    onsets: tuple[float, ...] | None = None
    group: str | None = None
    image: Path | None = None
    negative: str | None = None

    def __post_init__(self) -> None:
        check_id(self.id, "clip")
        texts = (("text", self.text), ("label", self.label), ("group", self.group), ("negative", self.negative))
        for name, value in texts:
            if value is not None and printable(value) != value:
                object.__setattr__(self, name, printable(value))

    @property
    def reference_audio(self) -> Path | None:
        """The file that holds the reference audio, None when the set has none."""
        return self.audio if self.audio is not None else self.video

    def has(self, field: ClipField) -> bool:
        """Whether a field that a metric asks for is given."""
        values = {"video": self.video, "audio": self.audio, "text": self.text, "label": self.label}
        return (self.onsets if field == "onsets" else values[field]) is not None

    @property
    def cluster(self) -> str:
        """The unit of resampling: the source recording, or the clip itself."""
        return self.group if self.group is not None else self.id


@dataclass(frozen=True)
class ClipSet:
    """A frozen, ordered list of clips (sorted by id, no id twice) with the name and version it came from.

    ``notes`` say what of its source is not in it; they are printed under the table.
    """

    name: str
    version: str
    clips: tuple[Clip, ...]
    left_out: tuple[tuple[str, str], ...] = ()  # files that belong to no clip though they may be meant: name, why
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [clip.id for clip in self.clips]
        if ids != sorted(ids):
            object.__setattr__(self, "clips", tuple(sorted(self.clips, key=lambda clip: clip.id)))
        if len(set(ids)) != len(ids):
            twice = sorted(i for i, count in Counter(ids).items() if count > 1)
            raise UsageError(f"set {self.name}: {len(twice)} ids appear twice, e.g. {twice[0]!r}; ids must be unique")

    @property
    def list_hash(self) -> str:
        """sha256 over what decides a score: ids, texts, labels and onsets, in order; file paths do not count."""
        rows = [
            [c.id, c.text, c.label, list(c.onsets) if c.onsets is not None else None]
            + ([c.negative] if c.negative is not None else [])  # so that lists without one keep their hash
            for c in self.clips
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()


def clip_seed(seed: int, clip_id: str, sample: int = 0) -> int:
    """63-bit seed of one sample, a function of (seed, clip id, k) alone."""
    text = f"{seed}\x1f{clip_id}\x1f{sample}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
