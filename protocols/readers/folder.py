"""Set kind ``folder``: any folder of videos, optionally with a table.

Columns: id, file, audio, text (or caption), label, onsets, group.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, ClipSet, UsageError
from av_bench.media.folder import VIDEO_SUFFIXES, Folder, by_stem, list_folder, only_one
from protocols.definitions import SetDefinition, SetRequest, check_id, limited

_TABLES = ("clips.jsonl", "clips.csv", "clips.tsv")
_COLUMNS = ("id", "file", "audio", "text", "caption", "label", "onsets", "group")

log = logging.getLogger(__name__)


def read(definition: SetDefinition, request: SetRequest) -> ClipSet:
    """Clips of ``--data``; the table is ``--table`` or clips.jsonl / clips.csv / clips.tsv in the folder."""
    if request.data is None:
        raise UsageError(f"set {definition.name} needs --data DIR, a folder of videos")
    if not request.data.is_dir():
        raise UsageError(f"--data {request.data}: no such folder")
    table = request.table or next((request.data / n for n in _TABLES if (request.data / n).is_file()), None)
    media = list_folder(request.data, VIDEO_SUFFIXES)
    clips = _from_files(request.data, media.used) if table is None else _from_table(table, request.data, media)
    left_out = media.notes() if table is None else ()
    if not clips:
        there = f"; {left_out[0][0]} is there, but: {left_out[0][1]}" if left_out else ""
        raise UsageError(
            f"--data {request.data}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and no table of clips{there}"
        )
    return limited(ClipSet(definition.name, definition.version, tuple(clips), left_out), request.limit)


def _from_files(folder: Path, files: Sequence[Path]) -> list[Clip]:
    twice = sorted(stem for stem, count in Counter(path.stem for path in files).items() if count > 1)
    if twice:
        same = [p.name for p in files if p.stem == twice[0]]
        raise UsageError(f"--data {folder}: {' and '.join(same)} have the same stem; an id must name one video")
    return [Clip(path.stem, path) for path in files]


def _from_table(table: Path, folder: Path, media: Folder) -> list[Clip]:
    rows, videos = _rows(table), by_stem(media.used)
    unused = sorted({str(key) for _, row in rows for key in row} - set(_COLUMNS))
    if unused:
        log.warning("%s: columns %s are not used; known are %s", table, ", ".join(unused), ", ".join(_COLUMNS))
    seen: dict[str, int] = {}
    clips = []
    for line, row in rows:
        where = f"{table}, line {line}"
        clip_id = str(row.get("id") or Path(str(row.get("file", ""))).stem)
        check_id(clip_id, where)
        if clip_id in seen:
            raise UsageError(f"{where}: id {clip_id!r} stands in line {seen[clip_id]} already")
        seen[clip_id] = line
        video = _inside(folder, str(row["file"]), where) if row.get("file") else _named(folder, clip_id, videos)
        audio = _inside(folder, str(row["audio"]), where) if row.get("audio") else None
        onsets = _onsets(row.get("onsets"), where)
        text = _text(row, "text") or _text(row, "caption")
        clips.append(Clip(clip_id, video, audio, text, _text(row, "label"), onsets, _text(row, "group")))
    return clips


def _named(folder: Path, clip_id: str, videos: Mapping[str, list[Path]]) -> Path:
    """The video that an id names, with or without its suffix; where there is none, the name that is missed."""
    found = only_one(videos.get(clip_id, []), f"--data {folder}")
    if found is None and Path(clip_id).suffix.lower() in VIDEO_SUFFIXES:
        return folder / clip_id
    return found or folder / f"{clip_id}.mp4"


def _rows(table: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, row) of a jsonl, csv or tsv table; UsageError names the line that is off."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--table {table}: cannot be read: {error}") from error
    rows: list[tuple[int, dict[str, Any]]] = []
    if table.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise UsageError(f"{table}, line {number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UsageError(f"{table}, line {number}: an object per line is expected")
                rows.append((number, row))
    else:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if table.suffix == ".tsv" else ",")
        if not {"id", "file"} & set(reader.fieldnames or ()):
            raise UsageError(f"{table}: the header needs a column id or file; it is {reader.fieldnames}")
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(f"{table}, line {reader.line_num}: {len(reader.fieldnames or ())} fields are expected")
            rows.append((reader.line_num, row))
    if not rows:
        raise UsageError(f"--table {table}: the table is empty")
    return rows


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"{where}: file {name!r} must lie inside {folder}")
    return path


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    return str(value) if value not in (None, "") else None


def _onsets(value: Any, where: str) -> tuple[float, ...] | None:
    """Seconds as a JSON list or separated by spaces or semicolons."""
    if value is None or value == "":
        return None
    items = value if isinstance(value, list) else str(value).replace(";", " ").strip("[]").replace(",", " ").split()
    try:
        onsets = tuple(sorted(float(item) for item in items))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: onsets must be seconds, found {value!r}") from error
    if onsets and (onsets[0] < 0 or not all(abs(t) < 1e6 for t in onsets)):
        raise UsageError(f"{where}: onsets must be finite and not negative, found {value!r}")
    return onsets
