"""Make a reference pack from a set's own media: the reference half of a run, kept as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protocols
from av_bench.contracts import Clip, UsageError
from av_bench.engines.choose import Items, Place, engine_for, in_parts
from av_bench.engines.contract import Engine, Lost
from av_bench.features import reference_pack
from av_bench.features.extraction import Extraction
from av_bench.features.store import Features, Store
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.measure import measure
from av_bench.pipeline.reference_media import extract_reference
from av_bench.pipeline.work import units_of, whole_units
from av_bench.runtime.cores import default_workers
from av_bench.runtime.files import home
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips


@dataclass(frozen=True)
class ReferenceFeatures:
    """The task: reference features of clips into a store. A worker yields the number of clips that it has done."""

    definition: protocols.SetDefinition
    protocol: protocols.Protocol
    metrics: tuple[str, ...] | None
    clips: tuple[Clip, ...]
    store: Path
    place: Place

    def open(self, device: str) -> Callable[[Items], Iterator[int]]:
        """A worker with its own networks."""
        networks = measure(self.protocol, self.metrics, device).extractors
        units = units_of(self.clips, device)
        extraction = Extraction(
            networks, Store(self.store), self.protocol.seconds, self.place.threads(), Reporter(True), units=units
        )
        clips = {clip.id: clip for clip in self.clips}

        def work(part: Items) -> Iterator[int]:
            extract_reference([clips[i] for i in part.clips], extraction, self.definition.reference_audio)
            yield len(part.clips)

        return work


def _extract_apart(task: ReferenceFeatures, reporter: Reporter) -> None:
    """Have several workers extract; whole units stay together. UsageError when a clip ends its worker every time."""
    units = units_of(task.clips, task.place.devices[0])
    ids = [clip.id for clip in task.clips]
    parts = [Items(tuple(unit)) for unit in whole_units(units, ids)] if units else list(in_parts(ids, task.place))
    engine: Engine[Items, int] = engine_for(task.place)
    with reporter.stage("clips", len(ids)) as stage:
        for event in engine.run(task, parts):
            if isinstance(event, Lost):
                raise UsageError(f"{event.part.clips[0]}: {event.detail}; take the clip out of the set's list")
            stage.advance(event)


def make_pack(
    set_name: str,
    out: Path,
    data: Path | None,
    lists: Path | None,
    protocol_name: str | None,
    metrics: tuple[str, ...] | None,
    limit: int | None,
    keep: bool,
    device: str,
    place: Place | None = None,
) -> dict[str, Any]:
    """Extract and write; returns the provenance. Clips that cannot be used are refused, not left out in silence."""
    definition = protocols.load_set(set_name)
    protocol, _ = choose_protocol(definition, protocol_name)
    place = place or Place((device,))
    place.check()
    networks = measure(protocol, metrics, place.devices[0]).extractors
    reporter, store = Reporter(), home() / "store"
    clips = read_clips(definition, SetRequest(data=data, lists=lists, limit=limit, say=reporter.say_once))
    if not place.local:
        _extract_apart(ReferenceFeatures(definition, protocol, metrics, clips.clips, store, place), reporter)
    units = units_of(clips.clips, place.devices[0])
    extraction = Extraction(networks, Store(store), protocol.seconds, default_workers(), reporter, units=units)
    reference = extract_reference(clips.clips, extraction, definition.reference_audio)
    problems = [problem for clip in clips.clips if (problem := reference.problem(clip.id)) is not None]
    if problems:
        raise UsageError(
            f"{len(problems)} of {len(clips.clips)} clips cannot be used, e.g. {problems[0]}; take them out of the "
            "set's list"
        )
    sides = {name: side for side in ("video", "reference") for name in networks.of(side)}
    features: dict[str, dict[str, Features]] = {}
    for name, side in sides.items():
        media = reference.video if side == "video" else reference.audio
        keys = {clip_id: medium.key(protocol.seconds) for clip_id, medium in media.items()}
        found = extraction.store.require(networks.fingerprint(name), keys.values())
        features[name] = {clip_id: found[key] for clip_id, key in keys.items()}
    info = {
        "source": "extracted from the set's own media",
        "set": {"name": clips.name, "version": clips.version, "list_hash": clips.list_hash},
        "seconds": protocol.seconds,
        "flavour": protocol.flavour,
        "fingerprints": {name: networks.fingerprint(name) for name in sides},
    }
    pack = reference_pack.from_rows(info, features, sides, keep=keep)
    reference_pack.write(pack, out)
    return pack.info
