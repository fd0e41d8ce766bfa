"""The words every room speaks: clips, decoded media, features, generators, metrics, and the errors they raise.

Conventions
-----------
* Times are seconds, sample rates Hz, audio float32 in [-1, 1] with shape ``(channels, samples)``,
  frames uint8 RGB with shape ``(frames, 3, height, width)``.
* The reference side comes first, the generated side second, everywhere.
* Rows of features are ordered by clip id.
* A number that cannot be computed is absent, never NaN, None, 0 or -1.

This module imports nothing of the package and nothing heavy (torch only for type checking).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    FloatArray = NDArray[np.floating[Any]]

Flavour = Literal["paper", "strict"]
Side = Literal["reference", "generated", "video", "text"]
Modality = Literal["audio", "video", "text"]


# --------------------------------------------------------------------------- errors


class AvBenchError(Exception):
    """Base of every error a user can cause or cure: the message says what, where, why and what to do."""

    exit_code = 2


class UsageError(AvBenchError):
    """The request itself is off (unknown name, contradictory options, unreadable table)."""


class MissingRequirement(AvBenchError):
    """A package, weight file or device is not there; the message holds the command that gets it."""

    exit_code = 4


class MetricError(AvBenchError):
    """A metric cannot be computed on these inputs; the message says why. The number stays absent."""


class MediaError(AvBenchError):
    """One media file cannot be used. ``reason`` is the code written to the ledger."""

    def __init__(self, path: Path | str, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {reason.value}: {detail}")
        self.path = Path(path)
        self.reason = reason
        self.detail = detail


class Reason(StrEnum):
    """Reason codes of the ledger. A clip that carries one of the excluding codes is in no metric of the row."""

    MISSING_FILE = "missing-file"
    MISSING_SAMPLE = "missing-sample"
    EXTRA_SAMPLE = "extra-sample"
    DUPLICATE_STEM = "duplicate-stem"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NO_AUDIO = "no-audio"
    NO_VIDEO = "no-video"
    NO_TEXT = "no-text"
    TOO_SHORT_AUDIO = "too-short-audio"
    TOO_SHORT_VIDEO = "too-short-video"
    NOT_FINITE = "not-finite"
    GENERATOR_FAILED = "generator-failed"
    BAD_FEATURES = "bad-features"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    PATH_ESCAPE = "path-escape"
    WRONG_RATE = "wrong-rate"
    WRONG_LENGTH = "wrong-length"
    # flags: the clip is scored, and the ledger says so
    SILENT = "silent"
    CUT = "cut"
    CLIPPED = "clipped"
    IDENTICAL = "identical-to-reference"
    LOUDNESS_CHANGED = "loudness-changed"

    @property
    def excludes(self) -> bool:
        """True when a clip with this code is left out of every metric."""
        flags = (Reason.SILENT, Reason.CUT, Reason.CLIPPED, Reason.IDENTICAL, Reason.LOUDNESS_CHANGED)
        return self not in (*flags, Reason.EXTRA_SAMPLE)


# --------------------------------------------------------------------------- clips


@dataclass(frozen=True, slots=True)
class Clip:
    """One item of a set.

    ``video`` holds frames and, unless ``audio`` names a separate file, the real sound. ``onsets`` are seconds
    from the start of the clip. ``group`` is the source recording: clips of one group are not independent and
    the intervals resample groups.
    """

    id: str
    video: Path | None = None
    audio: Path | None = None
    text: str | None = None
    label: str | None = None
    onsets: tuple[float, ...] | None = None
    group: str | None = None

    @property
    def reference_audio(self) -> Path | None:
        """The file that holds the real sound, None when the set has none."""
        return self.audio if self.audio is not None else self.video

    @property
    def cluster(self) -> str:
        """The unit of resampling: the source recording, or the clip itself."""
        return self.group if self.group is not None else self.id


@dataclass(frozen=True)
class ClipSet:
    """A frozen, ordered list of clips (sorted by id, no id twice) with the name and version it came from."""

    name: str
    version: str
    clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = [clip.id for clip in self.clips]
        if ids != sorted(ids):
            object.__setattr__(self, "clips", tuple(sorted(self.clips, key=lambda clip: clip.id)))
        if len(set(ids)) != len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise UsageError(f"set {self.name}: {len(twice)} ids appear twice, e.g. {twice[0]!r}; ids must be unique")

    @property
    def list_hash(self) -> str:
        """sha256 over what decides a score: ids, texts, labels and onsets, in order; file paths do not count."""
        rows = [[c.id, c.text, c.label, list(c.onsets) if c.onsets is not None else None] for c in self.clips]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()


# --------------------------------------------------------------------------- media


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """Frames an extractor wants: tick rate, pixel size and how the size is reached.

    ``short`` resizes the short side to ``size``; ``center`` also cuts the central ``size`` x ``size``;
    ``squash`` resizes to ``size`` x ``size`` without keeping the aspect. Always bicubic, antialiased, on uint8.
    """

    fps: float
    size: int
    mode: Literal["short", "center", "squash"] = "center"


@runtime_checkable
class Decoded(Protocol):
    """One media file, decoded once. See ``av_bench.media.decode.DecodedMedia``."""

    path: Path
    digest: str
    sample_rate: int

    def waveform(self, sample_rate: int, seconds: float | None, *, remove_mean: bool = True) -> torch.Tensor:
        """Mono float32 ``(samples,)``: channel mean, file mean removed, resampled, cut to ``seconds``."""

    def channels(self, sample_rate: int, seconds: float | None) -> torch.Tensor:
        """Float32 ``(channels, samples)``: resampled, nothing mixed or removed, cut to ``seconds``."""

    def frames(self, request: VideoRequest) -> torch.Tensor:
        """uint8 ``(frames, 3, height, width)`` for one of the requests the file was decoded for."""


# --------------------------------------------------------------------------- extractors


class Extractor(Protocol):
    """Front end and network: one media file (or text) in, named features out.

    ``fingerprint`` changes whenever a feature could change (weights, front end, precision, flavour).
    """

    name: str
    modality: Modality
    outputs: Mapping[str, str]  # output name -> shape in words, e.g. {"embedding": "(B, 768)"}
    video_request: VideoRequest | None
    batch_size: int

    @property
    def fingerprint(self) -> str: ...

    def prepare(self, item: Any, seconds: float) -> torch.Tensor:
        """One ``Decoded`` (or text) -> the network's input without batch axis, on the CPU."""

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` on the extractor's device -> outputs, each ``(B, ...)`` float32."""

    def features(self, paths: Sequence[Path | str], seconds: float) -> dict[str, NDArray[Any]]:
        """Media files (or texts) -> dict of arrays, one row per file, in the order given."""


class PairExtractor(Protocol):
    """Features of two media in, features of the pair out (a sync head): stored under both hashes."""

    name: str
    video: str  # extractor whose output is the first input
    audio: str
    outputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str: ...

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` video and audio features -> outputs, each ``(B, ...)``."""


# --------------------------------------------------------------------------- metrics


@dataclass(frozen=True, slots=True)
class Need:
    """One array a metric wants: which output of which extractor, of which side."""

    extractor: str
    output: str
    side: Side


@dataclass(frozen=True)
class MetricInputs:
    """Aligned inputs of one metric: row i of every array belongs to ``ids[i]`` (sorted by id)."""

    clips: tuple[Clip, ...]
    arrays: Mapping[Need, Sequence[NDArray[Any]]]
    flavour: Flavour = "strict"
    statistics: Mapping[Need, Any] = field(default_factory=dict)  # GaussianStatistics in place of a side's rows
    seconds: float | None = None  # the scored window; None: the clips are as long as they are

    def stacked(self, need: Need) -> NDArray[Any]:
        """The rows of one need as a single array ``(n, ...)``."""
        import numpy as np

        return np.stack(list(self.arrays[need]))


@dataclass(frozen=True)
class Score:
    """One cell of a table: ``value`` with its 95 % ``interval``, the ``n`` clips behind it, per-clip values."""

    value: float
    n: int
    interval: tuple[float, float] | None = None
    per_clip: Mapping[str, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Metric(Protocol):
    """A column of the table."""

    name: str
    needs: tuple[Need, ...]
    clip_fields: tuple[str, ...]  # fields of Clip that every clip must have, e.g. ("onsets",)
    higher_is_better: bool
    unit: str

    def validate(self, inputs: MetricInputs) -> None:
        """Raise MetricError (what, where, why, what to do) when the value would mean nothing."""

    def compute(self, inputs: MetricInputs) -> Score:
        """A pure function of the inputs."""


# --------------------------------------------------------------------------- generators


@dataclass(frozen=True)
class Generated:
    """One sample of one clip: audio ``(channels, samples)``, or the reason why there is none.

    ``path`` is set instead of ``audio`` when the sample already is a file (a user's folder); it is scored in
    place and never copied.
    """

    clip_id: str
    sample: int = 0
    audio: torch.Tensor | None = None
    sample_rate: int | None = None
    path: Path | None = None
    reason: Reason | None = None
    detail: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)


class Generator(Protocol):
    """Anything that makes sound for clips.

    ``generate`` yields one ``Generated`` per (clip, k), in order. The random state of a sample may depend on
    ``clip_seed(seed, clip.id, k)`` only, so batch size, order and machine count never change a sample.
    """

    name: str
    sample_rate: int | None
    conditions: frozenset[Modality]
    training_sets: tuple[str, ...]

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Called once with the whole frozen list before any ``generate``; refuses what cannot work."""

    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """Samples for these clips, ``samples`` each."""


def clip_seed(seed: int, clip_id: str, sample: int = 0) -> int:
    """63-bit seed of one sample, a function of (seed, clip id, k) alone."""
    text = f"{seed}\x1f{clip_id}\x1f{sample}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class Evaluator(Protocol):
    """What training is handed when it wants metrics: samples of a set in, named values out."""

    def __call__(self, generator: Generator, clips: ClipSet) -> Mapping[str, float]: ...
