"""The work of a run, given to an engine in parts; this side alone writes ledger and records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from av_bench.contracts import Clip, Generator, MediaError
from av_bench.engines.choose import engine_for, part_size
from av_bench.engines.contract import Engine, Lost
from av_bench.features.sides import MediaFile, ReferenceMedia, Sides
from av_bench.pipeline.generate import flag_samples, sample_files
from av_bench.pipeline.own_samples import keep_hashes, recorded
from av_bench.pipeline.plan import RunPlan
from av_bench.pipeline.reference_media import has_video, refuse_other_weights
from av_bench.pipeline.work import ClipMedia, Event, Finished, Line, Part, Read, Worker, whole_units, work_of
from av_bench.runtime.progress import Reporter, Stage

EVERY = 10.0  # seconds between writings of ``inputs.json`` while parts come in


@dataclass
class Done:
    """What became of the clips of a run, or of those of a shard."""

    clips: dict[str, ClipMedia] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)  # files of the source that belong to no clip -> why
    forwards: int = 0

    def add(self, finished: Finished) -> None:
        """Take in a part."""
        self.clips |= {clip.id: clip for clip in finished.clips}
        self.extra |= finished.extra
        self.forwards += finished.forwards

    def sides(self, plan: RunPlan) -> Sides:
        """Both sides of all clips of a plan."""
        clips = [self.clips[clip.id] for clip in plan.clips.clips]
        videos = {clip.id: clip.video for clip in clips if clip.video is not None}
        audio = {clip.id: clip.audio for clip in clips if clip.audio is not None}
        reference = ReferenceMedia(videos, audio, has_video(plan))
        return Sides(plan.clips.clips, reference, [medium for clip in clips for medium in clip.generated])


def carry_out(plan: RunPlan, clips: Sequence[Clip], reporter: Reporter) -> Done:
    """Have the work of these clips done; ledger and ``inputs.json`` are written as it goes."""
    refuse_other_weights(plan)
    record = _Record(plan)
    done = Done()
    place = plan.options.place
    engine: Engine[Part, Event] = engine_for(place, plan.options.workers)
    local, parts = place.local, _parts(plan, clips)
    task = Worker(plan, reporter, keep=False) if local else work_of(plan, place.threads(plan.options.workers))
    with reporter.stage("clips", 0 if local else len(clips)) as stage:
        try:
            for event in engine.run(task, parts):
                _take(plan, event, record, done, None if local else stage)
                if isinstance(event, Finished) and not local:
                    for name, seconds in event.seconds.items():
                        reporter.seconds[name] = reporter.seconds.get(name, 0.0) + seconds
        finally:
            record.write()
    media = [medium for clip in clips for medium in done.clips[clip.id].generated]
    flag_samples(plan.source, media)
    keep_hashes(plan, media)
    return done


def _take(plan: RunPlan, event: Event | Lost[Part], record: _Record, done: Done, stage: Stage | None) -> None:
    if isinstance(event, Line):
        plan.folder.write_line(event.entry)
    elif isinstance(event, Read):
        record.add(event.media)
    else:
        finished = _given_up(plan, event) if isinstance(event, Lost) else event
        done.add(finished)
        if stage is not None:
            stage.advance(len(finished.clips))


def _given_up(plan: RunPlan, lost: Lost[Part]) -> Finished:
    """The clips of a part that no worker survived, each with the reason."""
    files = sample_files(plan)
    found = []
    for clip_id in lost.part.clips:
        media = [
            MediaFile(clip_id, files.folder / f"{files.stem((clip_id, k))}.flac", k) for k in range(files.per_clip)
        ]
        for medium in media:
            medium.problem = MediaError(clip_id, lost.reason, lost.detail)
        found.append(ClipMedia(clip_id, generated=tuple(media)))
    return Finished(tuple(found), {}, 0, {})


@dataclass
class _Record:
    """``inputs.json``: what samples are made from, on disk before or soon after they are made."""

    plan: RunPlan
    _media: dict[str, Sequence[str]] = field(default_factory=dict)
    _dirty: bool = False
    _written: float = float("-inf")

    def add(self, media: Mapping[str, Sequence[str]]) -> None:
        """Media that were read. What is not written yet is in the ledger, at the samples that were made from them."""
        self._media |= media
        self._dirty = True
        if time.monotonic() - self._written > EVERY:
            self.write()

    def write(self) -> None:
        """Write what was not written yet."""
        if self._dirty and self.plan.options.samples is None:
            inputs = self.plan.folder.inputs()
            media = inputs.get("media", {}) | {clip_id: list(found) for clip_id, found in self._media.items()}
            self.plan.folder.write_json(
                "inputs.json", inputs | {"generator": self.plan.source.identity, "media": media}
            )
        self._media, self._dirty, self._written = {}, False, time.monotonic()


def _parts(plan: RunPlan, clips: Sequence[Clip]) -> list[Part]:
    """The clips in parts: one for a worker in this process, else several per device, so that none waits long.

    A source that is a program of its own starts once per part, so it gets one part per device.
    """
    place = plan.options.place
    if place.local:
        return _with_known(plan, [Part(tuple(clip.id for clip in clips))] if clips else [])
    ids = [clip.id for clip in clips]
    starts_once = not isinstance(plan.source, Generator) and not plan.source.files_of()
    if starts_once:
        size = -(-len(ids) // len(place.devices))
    elif plan.units:
        size = 1
    else:
        size = part_size(len(ids), place)
    groups = _cut(whole_units(plan.units, ids), size)
    names = [f"{i}-of-{len(groups)}" if starts_once else "" for i in range(len(groups))]
    return _with_known(plan, [Part(tuple(group), name=name) for group, name in zip(groups, names, strict=True)])


def _cut(wholes: Sequence[Sequence[str]], size: int) -> list[list[str]]:
    """At most ``size`` clips together, but never a broken unit."""
    groups: list[list[str]] = []
    for whole in wholes:
        if groups and len(groups[-1]) + len(whole) <= size:
            groups[-1] += whole
        else:
            groups.append(list(whole))
    return groups


def _with_known(plan: RunPlan, parts: Sequence[Part]) -> list[Part]:
    """The parts, each with what earlier starts left of its clips."""
    files = sample_files(plan)
    lines = plan.folder.last_generated()
    samples = recorded(plan.folder.inputs(), lines)
    media: dict[str, Sequence[str]] = {clip: line["media"] for (clip, _), line in lines.items() if "media" in line}
    media |= plan.folder.inputs().get("media", {})
    found = []
    for part in parts:
        names = [name for clip in part.clips for k in range(files.per_clip) for name in files.names((clip, k))]
        found.append(
            replace(
                part,
                samples={name: frozenset(samples[name]) for name in names if name in samples},
                media={clip: tuple(media[clip]) for clip in part.clips if clip in media},
            )
        )
    return found
