"""Set kind ``rendered``: clips this package renders itself, once, into its cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

from av_bench.contracts import Clip, ClipSet
from av_bench.rows import json_lines, read_table
from av_bench.runtime.files import home, inside
from av_bench.schema import build as build_as
from protocols.definitions import SetDefinition, SetRequest, limited
from protocols.impacts.scene import Split


class Line(TypedDict):
    """One clip of ``clips.jsonl``, as this package writes it."""

    id: str
    file: str
    text: str
    label: str
    onsets: list[float]
    group: NotRequired[str | None]


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
    table = folder / "clips.jsonl"
    lines = json_lines(read_table(table), str(table))
    clips = tuple(_clip(folder, build_as(Line, row, f"{table}, line {line}")) for line, row in lines)
    clips = tuple(sorted(clips, key=lambda clip: clip.id))[:total]
    version = f"{definition.version}+renderer.{impacts.VERSION}"
    return limited(ClipSet(definition.name, version, clips), request.limit)


def _clip(folder: Path, row: Line) -> Clip:
    group = row.get("group") or None
    return Clip(row["id"], inside(folder, row["file"]), None, row["text"], row["label"], tuple(row["onsets"]), group)
