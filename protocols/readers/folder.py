"""Set kind ``folder``: any folder of videos, optionally with a table.

Columns: id, file, audio, text (or caption), label, onsets, group.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, ClipSet, UsageError, check_id, printable, shortened
from av_bench.media.folder import Folder, by_stem, list_folder, only_one
from av_bench.media.suffixes import VIDEO_SUFFIXES
from av_bench.rows import json_lines, read_table, records
from av_bench.runtime.files import inside
from protocols.definitions import SetDefinition, SetRequest, limited

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
    if table is None:
        clips, notes = _from_files(request.data, media.used)
    else:
        clips, notes = _from_table(table, request.data, media)
    left_out = media.notes() if table is None else ()
    if not clips:
        there = f"; {left_out[0][0]} is there, but: {left_out[0][1]}" if left_out else ""
        raise UsageError(
            f"--data {request.data}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and no table of clips{there}"
        )
    return limited(ClipSet(definition.name, definition.version, tuple(clips), left_out, notes), request.limit)


def _from_files(folder: Path, files: Sequence[Path]) -> tuple[list[Clip], tuple[str, ...]]:
    """A clip for each video of the folder, and a note on names that cannot be ids."""
    found: dict[str, Path] = {}
    odd: list[Path] = []
    for path in files:
        if printable(path.stem) != path.stem:
            odd.append(path)
            continue
        if path.stem in found:
            same = f"{found[path.stem].name} and {path.name}"
            raise UsageError(f"--data {folder}: {same} have the same stem; an id must name one video")
        found[path.stem] = path
    note = _left_out(odd, folder, "have names that are no printable text")
    return [Clip(stem, path) for stem, path in found.items()], note


def _left_out(paths: Sequence[Path], folder: Path, why: str) -> tuple[str, ...]:
    if not paths:
        return ()
    videos = f"{len(paths)} video{'s' if len(paths) > 1 else ''} of {printable(str(folder))}"
    return (f"{videos} {why}, e.g. {printable(paths[0].name)}: not scored",)


def _from_table(table: Path, folder: Path, media: Folder) -> tuple[list[Clip], tuple[str, ...]]:
    """A clip for each row, and a note on the videos that no row names: so no lost row goes unnoticed."""
    rows, videos = _rows(table), by_stem(media.used)
    unused = sorted({printable(str(key)) for _, row in rows for key in row} - set(_COLUMNS))
    if unused:
        log.warning("%s: columns %s are not used; known are %s", table, ", ".join(unused), ", ".join(_COLUMNS))
    seen: dict[str, int] = {}
    clips = []
    for line, row in rows:
        where = f"{table}, line {line}"
        clip_id = _id(row, where)
        if clip_id in seen:
            raise UsageError(f"{where}: duplicate id {clip_id!r} (first on line {seen[clip_id]})")
        seen[clip_id] = line
        file = _text(row, "file", where)
        video = _named(folder, clip_id, videos) if file is None else inside(folder, file, where)
        audio = _text(row, "audio", where)
        sound = None if audio is None else inside(folder, audio, where)
        text = _text(row, "text", where) or _text(row, "caption", where)
        onsets = _onsets(row.get("onsets"), where)
        clips.append(Clip(clip_id, video, sound, text, _text(row, "label", where), onsets, _text(row, "group", where)))
    named = {path for clip in clips for path in (clip.video, clip.audio)}
    unnamed = [path for path in media.used if path not in named]
    return clips, _left_out(unnamed, folder, f"not named by {printable(table.name)}")


def _named(folder: Path, clip_id: str, videos: Mapping[str, list[Path]]) -> Path:
    """The video that an id names, with or without its suffix; where there is none, the name that is missed."""
    found = only_one(videos.get(clip_id, []), f"--data {folder}")
    if found is None and Path(clip_id).suffix.lower() in VIDEO_SUFFIXES:
        return folder / clip_id
    return found or folder / f"{clip_id}.mp4"


def _id(row: Mapping[str, Any], where: str) -> str:
    """The id of a row: its text (a whole number counts as one), else the name of its file."""
    value = row.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    elif value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: id must be a text or a whole number, found {_shown(value)}")
    clip_id = value or Path(_text(row, "file", where) or "").stem
    check_id(clip_id, where)
    return clip_id


def _rows(table: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(line number, row) of a jsonl, csv or tsv table; UsageError names the line that is off."""
    try:
        text, where = read_table(table), str(table)
    except UsageError as error:
        raise UsageError(f"--table {error}") from error
    rows: list[tuple[int, Mapping[str, Any]]]
    if table.suffix.lower() == ".jsonl":
        rows = list(json_lines(text, where))
        for line, row in rows:
            if not isinstance(row, dict):
                raise UsageError(f"{where}, line {line}: an object per line is expected")
    else:
        rows = list(records(text, where, "\t" if table.suffix.lower() == ".tsv" else ","))
        if rows and not {"id", "file"} & set(rows[0][1]):
            raise UsageError(f"{where}: the header needs a column id or file; it is {list(rows[0][1])}")
    if not rows:
        raise UsageError(f"--table {table}: the table is empty")
    return rows


def _text(row: Mapping[str, Any], key: str, where: str) -> str | None:
    """A text of a row, None where it is absent or empty."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {key} must be a text, found {_shown(value)}")
    return value or None


def _shown(value: object) -> str:
    return shortened(repr(value), 60)


def _onsets(value: object, where: str) -> tuple[float, ...] | None:
    """Seconds as a JSON list or separated by spaces or semicolons."""
    if value is None or value == "":
        return None
    items = value.replace(";", " ").strip("[]").replace(",", " ").split() if isinstance(value, str) else value
    written = isinstance(value, str)
    if not isinstance(items, list) or not all(written or _is_number(item) for item in items):
        raise UsageError(f"{where}: onsets must be a list of seconds, found {_shown(value)}")
    try:
        onsets = tuple(sorted(float(item) for item in items))
    except ValueError as error:
        raise UsageError(f"{where}: onsets must be seconds, found {_shown(value)}") from error
    if not all(0 <= onset < 1e6 for onset in onsets):
        raise UsageError(f"{where}: onsets must be finite and not negative, found {_shown(value)}")
    return onsets


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
