"""Make a reference pack from a set's own media: the reference half of a run, kept as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import protocols
from av_bench.contracts import UsageError
from av_bench.features import reference_pack
from av_bench.features.extraction import Extraction
from av_bench.features.store import Features, Store
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.measure import measure
from av_bench.pipeline.reference_media import extract_reference
from av_bench.runtime.cores import default_workers
from av_bench.runtime.files import home
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips


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
) -> dict[str, Any]:
    """Extract and write; returns the provenance. Clips that cannot be used are refused, not left out in silence."""
    definition = protocols.load_set(set_name)
    protocol, _ = choose_protocol(definition, protocol_name)
    networks = measure(protocol, metrics, device).extractors
    clips = read_clips(definition, SetRequest(data=data, lists=lists, limit=limit))
    extraction = Extraction(networks, Store(home() / "store"), protocol.seconds, default_workers(), Reporter())
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
