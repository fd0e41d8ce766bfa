"""What a run is asked to do, what was decided before it starts, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import protocols
from av_bench.contracts import DEFAULT_SEED, ClipSet, Flavour, SampleSource
from av_bench.engines.choose import Place, place_of
from av_bench.features.extractor_set import ExtractorSet
from av_bench.features.reference_pack import Reference
from av_bench.pipeline.measure import Measurement
from av_bench.results.record import RunFolder, RunSpec
from av_bench.runtime.cores import default_workers
from av_bench.runtime.files import home


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do; the options of `av-bench run`, one for one."""

    set: str
    model: str | None = None
    samples: Path | None = None
    label: str | None = None
    data: Path | None = None
    table: Path | None = None
    lists: Path | None = None
    out: Path | None = None
    limit: int | None = None
    seed: int = DEFAULT_SEED
    samples_per_clip: int = 1
    flavour: Flavour | None = None
    protocol: str | None = None
    seconds: str | None = None  # a number, "shortest" or "whole"
    pattern: str | None = None  # how the files of ``samples`` are named
    metrics: tuple[str, ...] | None = None
    device: str = "cpu"
    devices: str | None = None  # several of one kind, each with a worker of its own: cuda:0,cuda:1 or cpu:4
    engine: str | None = None  # "ray", or None for this machine
    address: str | None = None  # of a Ray cluster
    shard: str | None = None  # "i/n": only the i-th of n shards, from 0
    workers: int | None = None
    one_network: bool = False
    offline: bool = False
    min_coverage: float = 1.0
    store: Path | None = None
    reference: Path | None = None
    dedup: Path | None = None
    videos: bool | None = None
    quiet: bool = False

    @property
    def place(self) -> Place:
        """Where the work is done."""
        return place_of(self.device, self.devices, self.engine, self.address)


@dataclass(frozen=True)
class RunResult:
    """Where the record is, what it says, and the exit code (0, or 3 below ``min_coverage``)."""

    path: Path
    scores: dict[str, Any]
    exit_code: int


@dataclass
class RunPlan:
    """Everything decided before work starts; building it refuses what cannot work."""

    options: RunOptions
    definition: protocols.SetDefinition
    measurement: Measurement
    clips: ClipSet
    source: SampleSource
    spec: RunSpec
    folder: RunFolder
    reference: Reference | None = None
    windows: Mapping[str, float] = field(default_factory=dict)  # seconds of each clip, where they differ
    remark: str = ""  # on the choice of the protocol, for the first line of tables
    units: Mapping[str, int] = field(default_factory=dict)  # clip id -> number of its unit (``work.units_of``)
    reads_videos: bool = False  # the videos are read beside a reference pack that lacks features of them

    @property
    def protocol(self) -> protocols.Protocol:
        """The protocol of the measurement."""
        return self.measurement.protocol

    @property
    def flavour(self) -> Flavour:
        """The flavour of the measurement."""
        return self.measurement.flavour

    @property
    def store(self) -> Path:
        """Folder of the feature store."""
        return self.options.store or home() / "store"

    @property
    def workers(self) -> int:
        """Threads that decode."""
        return self.options.workers or default_workers()

    @property
    def extractors(self) -> ExtractorSet:
        """The extractors of the measurement."""
        return self.measurement.extractors
