"""Set kind ``folder``: any folder of videos, optionally with a table.

Columns: id, file, audio, text (or caption), negative, label, onsets, group. A ``file`` may be a still picture. A row
without a video: its text alone is what a sample is made from. In a set whose conditions leave video out, the reference
of an id is the sound file of that name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, ClipSet, UsageError, check_id, printable, shortened
from av_bench.media.folder import Folder, by_stem, list_folder, only_one
from av_bench.media.still import IMAGE_SUFFIXES
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.rows import json_lines, read_table, records
from av_bench.runtime.files import inside
from protocols.definitions import SetDefinition, SetRequest, limited

_TABLES = ("clips.jsonl", "clips.csv", "clips.tsv")
_COLUMNS = ("id", "file", "audio", "text", "caption", "negative", "label", "onsets", "group")

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
        clips, notes = _from_table(table, request.data, media, definition, request.say)
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
    note = _left_out(odd, folder, "have names that are not printable text")
    return [Clip(stem, path) for stem, path in found.items()], note


def _left_out(paths: Sequence[Path], folder: Path, why: str) -> tuple[str, ...]:
    if not paths:
        return ()
    videos = f"{len(paths)} video{'s' if len(paths) > 1 else ''} of {printable(str(folder))}"
    return (f"{videos} {why}, e.g. {printable(paths[0].name)}: not scored",)


def _from_table(
    table: Path, folder: Path, media: Folder, definition: SetDefinition, say: Callable[[str], None] | None
) -> tuple[list[Clip], tuple[str, ...]]:
    """A clip for each row, and notes on videos that no row names and on rows without one: nothing goes unnoticed."""
    rows, videos = _rows(table), by_stem(media.used)
    sounds = by_stem(list_folder(folder, AUDIO_SUFFIXES).used) if "video" not in definition.conditions else {}
    unused = sorted({printable(str(key)) for _, row in rows for key in row} - set(_COLUMNS))
    if unused:
        columns = f"columns {', '.join(unused)} are" if len(unused) > 1 else f"column {unused[0]} is"
        (say or log.warning)(f"{table}: {columns} not used; known are {', '.join(_COLUMNS)}")
    seen: dict[str, int] = {}
    clips = []
    alone = _without_video(rows, media, definition)
    for line, row in rows:
        where = f"{table}, line {line}"
        clip_id = _id(row, where)
        if clip_id in seen:
            raise UsageError(f"{where}: duplicate id {clip_id!r} (first on line {seen[clip_id]})")
        seen[clip_id] = line
        clip = _clip(clip_id, row, where, folder, videos, alone)
        if clip.reference_audio is None:
            clip = replace(clip, audio=only_one(sounds.get(clip_id, []), f"--data {folder}"))
        clips.append(clip)
    named = {path for clip in clips for path in (clip.video, clip.audio, clip.image)}
    unnamed = [path for path in media.used if path not in named]
    notes = _left_out(unnamed, folder, f"not named by {printable(table.name)}")
    return clips, (*notes, *_without(clips, table))


def _clip(
    clip_id: str, row: Mapping[str, Any], where: str, folder: Path, videos: Mapping[str, list[Path]], alone: bool
) -> Clip:
    """One row. ``alone``: rows that name no file have none; otherwise the one of their id is looked for."""
    file = _text(row, "file", where)
    audio = _text(row, "audio", where)
    image = inside(folder, file, where) if file is not None and Path(file).suffix.lower() in IMAGE_SUFFIXES else None
    video = None
    if file is None:
        there = clip_id in videos or Path(clip_id).suffix.lower() in VIDEO_SUFFIXES
        video = _named(folder, clip_id, videos) if there or not (alone or "file" in row) else None
    elif image is None:
        video = inside(folder, file, where)
    return Clip(
        clip_id,
        video,
        None if audio is None else inside(folder, audio, where),
        _text(row, "text", where) or _text(row, "caption", where),
        _text(row, "label", where),
        _onsets(row.get("onsets"), where),
        _text(row, "group", where),
        image,
        _text(row, "negative", where),
    )


def _without_video(rows: Sequence[tuple[int, Mapping[str, Any]]], media: Folder, definition: SetDefinition) -> bool:
    """Whether this is a list of prompts: the set has no video, or neither a row nor the folder names one.

    Where the folder holds videos, a row whose video is not there lost it: the clip is excluded for that reason.
    """
    return "video" not in definition.conditions or not (media.used or any("file" in row for _, row in rows))


def _without(clips: Sequence[Clip], table: Path) -> tuple[str, ...]:
    """A note on the clips without video, so that a folder given by mistake does not go unnoticed."""
    count = sum(clip.video is None for clip in clips)
    if not count:
        return ()
    still = sum(clip.image is not None for clip in clips)
    pictures = f" ({still} with a still picture)" if still else ""
    return (f"{count} of {len(clips)} rows of {printable(table.name)} have no video{pictures}",)


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
