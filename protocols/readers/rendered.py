"""Set kind ``rendered``: clips this package renders itself, once, into its cache folder."""

from __future__ import annotations

import json
from pathlib import Path

from av_bench.contracts import Clip, ClipSet
from av_bench.runtime.files import home
from protocols.definitions import SetDefinition, SetRequest, limited
from protocols.impacts.scene import Split


def read(definition: SetDefinition, request: SetRequest) -> ClipSet:
    """Clips of the split; those not rendered yet are rendered now (``--data`` names another folder)."""
    from protocols import impacts
    from protocols.impacts.build import build

    assert definition.split is not None  # what the kind needs is checked on reading
    assert definition.count is not None
    split: Split = definition.split
    total = definition.count
    count = min(total, request.limit or total)
    folder = request.data or home() / "sets" / f"impacts-{impacts.VERSION}" / split
    build(split, folder, count=count, workers=request.workers, progress=request.progress)
    clips = tuple(_clip(folder, json.loads(line)) for line in (folder / "clips.jsonl").read_text().splitlines())
    clips = tuple(sorted(clips, key=lambda clip: clip.id))[:total]
    version = f"{definition.version}+renderer.{impacts.VERSION}"
    return limited(ClipSet(definition.name, version, clips), request.limit)


def _clip(folder: Path, row: dict[str, object]) -> Clip:
    onsets = row["onsets"]
    assert isinstance(onsets, list)
    return Clip(
        id=str(row["id"]),
        video=folder / str(row["file"]),
        text=str(row["text"]),
        label=str(row["label"]),
        onsets=tuple(float(t) for t in onsets),
        group=str(row["group"]) if row.get("group") else None,
    )
