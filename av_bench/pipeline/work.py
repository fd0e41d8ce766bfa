"""The unit of work: some clips of a run, from their media to features and samples, as a function of plain data.

``Work`` is what all parts of a run share, ``Part`` some of its clips. Both are plain data that can be sent anywhere; a
worker that opens them writes samples and features, each whole or not at all, and yields what the records shall say.
Who runs it writes the records (``av_bench.pipeline.dispatch``).

Results do not depend on how a list is cut into parts. On a CPU every clip is a batch of its own. On another device
a clip's numbers may depend, in their last bits, on the batch it is in, so there the list is cut into *units* of
64 clips in its order: a batch never crosses a unit, and a part or shard holds whole units.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import protocols
from av_bench.contracts import Clip, ClipSet, Flavour, Side
from av_bench.features.extraction import Extraction
from av_bench.features.reference_pack import read as read_reference
from av_bench.features.sides import MediaFile, ReferenceMedia, Sides
from av_bench.features.store import Store
from av_bench.pipeline import score
from av_bench.pipeline.generate import collect_samples, sample_source
from av_bench.pipeline.measure import measure
from av_bench.pipeline.plan import RunOptions, RunPlan
from av_bench.pipeline.reference_media import reference_media, refuse_changed_media
from av_bench.results.record import RunFolder, RunSpec
from av_bench.runtime.devices import device_type
from av_bench.runtime.offline import offline_if
from av_bench.runtime.progress import Reporter

UNIT = 64  # clips that stay together on a device other than a CPU


@dataclass(frozen=True)
class Part:
    """Some clips of a run, in the order of its list, and what earlier starts left of them."""

    clips: tuple[str, ...]
    samples: Mapping[str, frozenset[str]] = field(default_factory=dict)  # file name -> sha256 it may have
    media: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # clip -> digests it was generated from
    name: str = ""  # of its folder for files of the source's own; "" where there is one part only

    def halves(self) -> tuple[Part, ...]:
        """Both halves, nothing for a single clip."""
        if len(self.clips) < 2:
            return ()
        middle = (len(self.clips) + 1) // 2
        return tuple(replace(self, clips=clips) for clips in (self.clips[:middle], self.clips[middle:]))


@dataclass(frozen=True)
class ClipMedia:
    """What became of the files of one clip: its video and reference audio (one object for one file), its samples."""

    id: str
    video: MediaFile | None = None
    audio: MediaFile | None = None
    generated: tuple[MediaFile, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line for the ledger."""

    entry: dict[str, Any]


@dataclass(frozen=True)
class Read:
    """Reference media of these clips are read: their digests, before anything is generated from them."""

    media: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Finished:
    """A part is done: its clips, the files of the source that belong to no clip, and what it took."""

    clips: tuple[ClipMedia, ...]
    extra: Mapping[str, str]
    forwards: int
    seconds: Mapping[str, float]


Event = Line | Read | Finished


@dataclass(frozen=True)
class Work:
    """What all parts of a run share, as plain data."""

    options: RunOptions
    definition: protocols.SetDefinition
    protocol: protocols.Protocol
    flavour: Flavour
    clips: ClipSet
    spec: RunSpec
    folder: RunFolder
    windows: Mapping[str, float]
    units: Mapping[str, int]
    reads_videos: bool
    workers: int

    def open(self, device: str) -> Worker:
        """Build generator and extractors on a device; networks of extractors are loaded when they are needed."""
        options = replace(self.options, device=device, devices=None, engine=None, workers=self.workers, quiet=True)
        with offline_if(options.offline):
            measurement = measure(self.protocol, options.metrics, device, self.flavour)
            source = sample_source(options.model, options.samples, options.pattern)
            if options.store is not None:
                source.use_store(options.store)
            source.place(device)
            source.setup(self.clips, self.protocol.seconds, options.seed)
        reference = read_reference(options.reference) if options.reference is not None else None
        folder = RunFolder(self.folder.path, self.folder.shared)
        plan = RunPlan(
            options, self.definition, measurement, self.clips, source, self.spec, folder, reference, self.windows,
            units=self.units, reads_videos=self.reads_videos,
        )  # fmt: skip
        return Worker(plan, Reporter(quiet=True), keep=True)


def work_of(plan: RunPlan, workers: int) -> Work:
    """A plan as plain data, for workers with this many threads each."""
    folder = RunFolder(plan.folder.path.absolute(), plan.folder.shared and plan.folder.shared.absolute())
    return Work(
        options=plan.options,
        definition=plan.definition,
        protocol=plan.protocol,
        flavour=plan.flavour,
        clips=plan.clips,
        spec=plan.spec,
        folder=folder,
        windows=dict(plan.windows),
        units=dict(plan.units),
        reads_videos=plan.reads_videos,
        workers=workers,
    )


class Worker:
    """Does parts of a run, one after the other. With ``keep`` it holds its networks from part to part."""

    def __init__(self, plan: RunPlan, reporter: Reporter, *, keep: bool) -> None:
        self.plan, self.reporter, self.keep = plan, reporter, keep
        self._clips = {clip.id: clip for clip in plan.clips.clips}
        self._store = Store(plan.store)

    def open(self, device: str) -> Worker:
        """Itself, as a task of the local engine."""
        del device
        return self

    def __call__(self, part: Part) -> Iterator[Event]:
        """Events of one part; the features of its clips are in the store when it is finished."""
        reporter, started = self.reporter, dict(self.reporter.seconds)
        clips = replace(self.plan.clips, clips=tuple(self._clips[clip_id] for clip_id in part.clips))
        plan = replace(self.plan, clips=clips)
        extraction = extraction_of(plan, self._store, reporter)
        with offline_if(plan.options.offline):
            media = yield from self._media(plan, part, extraction)
        took = {name: seconds - started.get(name, 0.0) for name, seconds in reporter.seconds.items()}
        yield Finished(media, dict(plan.source.extra_files()), extraction.forwards, took)

    def _media(
        self, plan: RunPlan, part: Part, extraction: Extraction
    ) -> Generator[Event, None, tuple[ClipMedia, ...]]:
        reference = reference_media(plan, extraction)
        self._release("reference", "video")
        digests = {c.id: tuple(m.digest for m in reference.files(c.id) if m.digest) for c in plan.clips.clips}
        refuse_changed_media(plan, digests, part.media)
        yield Read({clip_id: found for clip_id, found in digests.items() if found})
        usable = [c for c in plan.clips.clips if reference.problem(c.id) is None]
        lines = collect_samples(plan, usable, part.samples, plan.folder.external(part.name), self.reporter)
        generated = yield from _as_events(lines, digests if self.keep else {})
        names = plan.extractors.of("generated")
        extraction.media([m for m in generated if m.problem is None], "generated", names, audio=True, video=False)
        self._release("reference", "video", "generated")
        sides = Sides(plan.clips.clips, reference, generated)
        _pairs_and_texts(plan, extraction, sides)
        return tuple(_clip_media(c, reference, sides) for c in plan.clips.clips)

    def _release(self, *finished: str) -> None:
        if not self.keep:
            self.plan.extractors.release(*finished)


def extraction_of(plan: RunPlan, store: Store, reporter: Reporter) -> Extraction:
    """The extraction that a plan asks for."""
    return Extraction(
        networks=plan.extractors,
        store=store,
        seconds=plan.protocol.seconds,
        workers=plan.workers,
        reporter=reporter,
        one_network=plan.options.one_network,
        units=plan.units,
    )


def units_of(clips: Sequence[Clip], device: str) -> dict[str, int]:
    """Clip id -> number of its unit, in the order of the whole list; empty on a CPU, where batches change nothing."""
    if device_type(device) == "cpu":
        return {}
    return {clip.id: number // UNIT for number, clip in enumerate(clips)}


def whole_units(units: Mapping[str, int], ids: Sequence[str]) -> list[list[str]]:
    """Clips that must stay together: those of a unit where there are units, else each alone."""
    if not units:
        return [[clip_id] for clip_id in ids]
    found: dict[int, list[str]] = {}
    for clip_id in ids:
        found.setdefault(units[clip_id], []).append(clip_id)
    return list(found.values())


def _pairs_and_texts(plan: RunPlan, extraction: Extraction, sides: Sides) -> None:
    scored = sides.scored(plan.options.samples_per_clip)
    names: tuple[Side, ...] = ("generated", "reference")
    for _, members in groupby(scored, key=lambda clip: plan.units.get(clip.id, 0)):
        unit = tuple(members)
        for side in names:
            pairs = [n for n in plan.extractors.pairs(side) if score.has_inputs(plan, sides.reference, n, side)]
            extraction.pairs(sides.pairs(unit, side), pairs)
        extraction.texts([c.text for c in unit if c.text is not None], plan.extractors.of("text"))


def _clip_media(clip: Clip, reference: ReferenceMedia, sides: Sides) -> ClipMedia:
    generated = tuple(sides.generated.get(clip.id, ()))
    return ClipMedia(clip.id, reference.video.get(clip.id), reference.audio.get(clip.id), generated)


def _as_events(
    lines: Generator[dict[str, Any], None, list[MediaFile]], media: Mapping[str, Sequence[str]]
) -> Generator[Event, None, list[MediaFile]]:
    """Lines as events; with ``media`` each names the digests that its sample was made from."""
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            found: list[MediaFile] = end.value
            return found
        made_from = media.get(line["clip"])
        yield Line(line if made_from is None else line | {"media": list(made_from)})
