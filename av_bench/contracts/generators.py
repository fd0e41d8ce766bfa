"""Base classes of everything that has samples for clips, and what they hand over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from av_bench.contracts.clips import Clip, ClipSet
from av_bench.contracts.errors import Reason
from av_bench.contracts.media import Modality

if TYPE_CHECKING:
    import torch

SampleKey = tuple[str, int]
"""Clip id and number of the sample, counted from 0."""
Place = Callable[[str, int, bytes, str], Path]
"""Keeps a finished file of a sample (clip id, k, bytes, suffix with its dot) in the run folder; returns its path."""


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


@dataclass(frozen=True)
class GenerationJob:
    """What a run still lacks: ``todo`` are the (clip, k) without a file, in order, out of all ``clips``.

    ``folder`` is for files of the source's own, such as logs; it is kept between starts of the run.
    """

    clips: tuple[Clip, ...]
    todo: tuple[tuple[Clip, int], ...]
    seed: int
    samples: int  # per clip
    device: str
    folder: Path
    place: Place
    units: Mapping[str, int] = field(default_factory=dict)  # clip id -> number of its unit; none crosses a batch

    def batches(self, size: int) -> Iterator[Sequence[Clip]]:
        """Batches that are fixed by the whole list; those that lack nothing are left out."""
        lacking = {clip.id for clip, _ in self.todo}
        for _, unit in groupby(self.clips, key=lambda clip: self.units.get(clip.id, 0)):
            clips = tuple(unit)
            for start in range(0, len(clips), size):
                batch = clips[start : start + size]
                if any(clip.id in lacking for clip in batch):
                    yield batch


class SampleSource(ABC):
    """Anything that has a sample for each clip: a generator, another program's files, a folder.

    A subclass writes ``produce``; the other members are optional and have the defaults given here.
    """

    name: str
    sample_rate: int | None = None  # Hz, None where it differs from clip to clip
    conditions: frozenset[Modality] = frozenset()  # what samples are made from
    training_sets: tuple[str, ...] = ()  # named as `av-bench audit` names them
    metric_networks: Mapping[str, str] = MappingProxyType({})  # networks behind metrics that it uses itself -> what for
    parameters: int | None = None  # number of weights
    identity: str = ""  # changes with the weights: samples made with others are never taken for its own
    is_reference: bool = False  # its samples are the reference audio itself
    watchable: bool = False  # a video of each sample is written unless --no-videos is given
    options: ClassVar[Mapping[str, str]] = {}  # of the spec NAME:option=value -> what it does
    beside: ClassVar[tuple[str, ...]] = ()  # models that bound it, run beside it for one table unless --beside is given

    def place(self, device: str) -> None:
        """Move the networks to a device; called before ``setup``."""
        del device

    def use_store(self, root: Path) -> None:
        """Keep and look for conditions in this feature store; called before ``setup`` when a run names one."""
        del root

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Called once with the whole frozen list before any sample is made; refuses what cannot work (UsageError)."""
        del clips, seconds, seed

    def files_of(self) -> Mapping[str, Sequence[Path]]:
        """Files of samples that are there already, by clip id; known after ``setup``."""
        return {}

    @abstractmethod
    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """A ``Generated`` for each (clip, k) of ``job.todo``: audio, a file, or a reason.

        One that comes twice counts as it came last; one that already has a file in the run folder is left alone.
        """

    def finish(self, job: GenerationJob) -> None:
        """Called when all samples of a run are there or have their reason."""
        del job

    def flags(self, files: Mapping[SampleKey, Path]) -> Mapping[SampleKey, tuple[Reason, str]]:
        """Remarks on finished samples; they are scored all the same."""
        del files
        return {}

    def extra_files(self) -> Mapping[str, str]:
        """Files that belong to no clip of the set -> why they are not scored."""
        return {}

    def coverage(self, clips: Sequence[Clip], samples: int) -> Mapping[str, Any] | None:
        """For coverage.json: ``covered``, ``expected`` and whatever else helps; None writes none."""
        del clips, samples
        return None

    def describe(self, folder: Path) -> Mapping[str, Any]:
        """What run.json says besides; ``folder`` is the job's."""
        del folder
        return {}


class Generator(SampleSource):
    """A sample source that makes audio in this process. A subclass sets ``name`` and writes ``generate``.

    The random state of a sample may depend on ``clip_seed(seed, clip.id, k)`` only, so that batch size, order and
    number of machines never change a sample.
    """

    chunk: int = 16  # clips of one call to ``generate``
    small: bool = False  # of small operations: on a CPU, ``generate`` is called by several threads, one clip each

    @abstractmethod
    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """One ``Generated`` per (clip, k), in order, ``samples`` for each clip."""

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """``generate`` on batches fixed by the list; a batch is made again when one of its files is missing."""
        for batch in job.batches(self.chunk):
            yield from self.generate(batch, job.seed, job.samples)


class Evaluator(Protocol):
    """What training is handed when it wants metrics: samples of a set in, named values out."""

    def __call__(self, generator: SampleSource, clips: ClipSet) -> Mapping[str, float]: ...
