"""Set kind ``list``: ids from a public list file (pinned by sha256) or from the user's own, media from ``--data``.

The list files themselves are not part of the package: ``--lists`` names a folder that holds them (plain or .gz, the
public file name or the lock file's), or the one file to use. A file that is not the pinned one is accepted only when it
is named directly, and its own hash then becomes part of the set's version.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

from av_bench.contracts import Clip, ClipSet, MissingRequirement, UsageError, check_id, unknown_name
from av_bench.media.folder import by_stem, only_one
from av_bench.media.listing import LeftOut, probe
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.rows import json_lines, read_rows, records
from av_bench.runtime.files import inside
from av_bench.schema import NumberAsText, build, read_text
from protocols.definitions import SetDefinition, SetRequest, limited
from protocols.lists.sources import check_lists, find_in, list_file, locate, unpack


@dataclass(frozen=True)
class ListEntry:
    """One item of a list."""

    id: str
    text: str | None = None
    label: str | None = None
    group: str | None = None


def read(definition: SetDefinition, request: SetRequest) -> ClipSet:
    """Clips of the list with their media in ``--data``; files that are not there are excluded later, by reason."""
    text, version, where = _list_text(definition, request)
    form = str(definition.format)
    if form not in _FORMATS:
        raise UsageError(f"set {definition.name}: {unknown_name('format', form, sorted(_FORMATS))}")
    entries = list(dict.fromkeys(_FORMATS[form](text, where)))
    if not entries:
        raise UsageError(f"set {definition.name}: the list holds no item in format {form}")
    if request.data is None or not request.data.is_dir():
        raise UsageError(f"set {definition.name} needs --data DIR with its media, got {request.data}")
    media = _Media(request.data, definition)
    clips = [media.clip(entry) for entry in entries]
    return limited(ClipSet(definition.name, version, tuple(clips)), request.limit)


def _list_text(definition: SetDefinition, request: SetRequest) -> tuple[str, str, str]:
    """Content of the list file, the version it makes, and how messages name it."""
    where = check_lists(request.lists)
    path = where if where.is_file() else _in_folder(definition, where)
    payload = unpack(path)
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--lists {path}: cannot be read as UTF-8: {error}") from error
    digest = hashlib.sha256(payload).hexdigest()
    known = next((name for name, v in definition.lists.items() if v.pinned_sha256 == digest), None)
    if known is None and path != where:
        raise UsageError(f"{path} is not the pinned list (sha256 {digest[:16]}...); name the file itself to use it")
    return text, f"{definition.version}@{known or 'sha256-' + digest[:12]}", str(path)


def _in_folder(definition: SetDefinition, folder: Path) -> Path:
    """The set's first list in a lists folder. MissingRequirement when it is not there."""
    wanted = next(iter(definition.lists.values()))
    item = None if wanted.list is None else list_file(wanted.list)
    path = (locate(folder, item) if item is not None else None) or find_in(folder, wanted.file_name)
    if path is None:
        names = ", ".join(f"{v.file_name} ({v.count} items)" for v in definition.lists.values())
        get = f"get it with `av-bench lists pull {item.name}`, or " if item is not None else ""
        raise MissingRequirement(
            f"set {definition.name}: its list is not in {folder}; {get}give --lists: a folder that holds {names}, "
            "or your own list file"
        )
    return path


class _Media:
    """Finds the files of an item by the set's naming rules, in one directory listing."""

    def __init__(self, folder: Path, definition: SetDefinition) -> None:
        self.folder = folder
        self.definition = definition
        self.files = by_stem(sorted(folder.iterdir()))

    def clip(self, entry: ListEntry) -> Clip:
        has_video = "video" in self.definition.conditions
        video = self._pick(self.definition.video.format(id=entry.id), VIDEO_SUFFIXES, ".mp4") if has_video else None
        audio = None
        if self.definition.audio is not None or not has_video:
            audio = self._pick((self.definition.audio or "{id}").format(id=entry.id), AUDIO_SUFFIXES, ".wav")
            if has_video and not os.path.lexists(audio):
                audio = None
        onsets = None
        if self.definition.onsets is not None:
            labels = inside(self.folder, self.definition.onsets.format(id=entry.id))
            onsets = _times(labels, self.definition.onset_seconds)
        return Clip(entry.id, video, audio, entry.text, entry.label, onsets, entry.group)

    def _pick(self, stem: str, suffixes: frozenset[str], default: str) -> Path:
        """The file of a stem; one with an unknown suffix when it is a recording, else the name that is missed."""
        there = self.files.get(stem, [])
        found = only_one([p for p in there if p.suffix.lower() in suffixes], f"--data {self.folder}")
        if found is None:
            others = [p for p in there if p.suffix.lower() not in AUDIO_SUFFIXES | VIDEO_SUFFIXES and p.is_file()]
            found = only_one([p for p in others if not isinstance(probe(p), LeftOut)], f"--data {self.folder}")
        return found or inside(self.folder, f"{stem}{default}")


def _times(path: Path, seconds: float) -> tuple[float, ...] | None:
    """Greatest Hits label file: first field of each line in seconds, up to the first time beyond the window."""
    if not path.is_file():
        return None
    times = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            time = float(line.split()[0])
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: seconds are expected first, found {line[:40]!r}") from error
        if time >= seconds:
            break
        times.append(time)
    return tuple(times)


def _vggsound(text: str, where: str) -> Iterator[ListEntry]:
    """``<id>_<start>.mp4,label`` without header, or tab-separated with header ``id label``."""
    tabs = text.split("\n", 1)[0].split("\t")[0] == "id"
    for line, row in read_rows(text, where, "\t" if tabs else ","):
        if tabs and line == 1:
            continue
        clip_id = row[0].removesuffix(".mp4")
        if len(row) < 2 or re.fullmatch(r"[A-Za-z0-9_-]{11}_\d{6}", clip_id) is None:
            raise UsageError(f"{where}, line {line}: ID_START and a label are expected, found {','.join(row)[:60]!r}")
        yield ListEntry(clip_id, text=row[1], label=row[1], group=clip_id[:11])


def _audiocaps(text: str, where: str) -> Iterator[ListEntry]:
    """``audiocap_id,youtube_id,start_time,caption``: one item per clip, its first caption."""
    seen: set[str] = set()
    for line, row in records(text, where, needed=("youtube_id", "start_time", "caption")):
        clip_id = f"{row['youtube_id']}_{_whole_seconds(row['start_time'], f'{where}, line {line}'):06d}"
        check_id(clip_id, f"{where}, line {line}")
        if clip_id not in seen:
            seen.add(clip_id)
            yield ListEntry(clip_id, text=row["caption"], group=row["youtube_id"])


def _whole_seconds(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,6}(\.0*)?", text):
        raise UsageError(f"{where}: start_time must be whole seconds, found {text[:60]!r}")
    return int(float(text))


def _wavcaps(text: str, where: str) -> Iterator[ListEntry]:
    """``file_name,caption_1,...``: one item per file, its first caption."""
    for line, row in records(text, where, needed=("file_name", "caption_1")):
        stem = Path(row["file_name"]).stem
        check_id(stem, f"{where}, line {line}")
        yield ListEntry(stem, text=row["caption_1"], group=stem.removeprefix("Y"))


def _greatest_hits(text: str, where: str) -> Iterator[ListEntry]:
    """One name per line, such as ``2015-02-16-17-08-51_denoised_thumb.mp4``."""
    for line, written in enumerate(text.splitlines(), 1):
        name = written.strip()
        if name:
            clip_id = Path(name).stem.removesuffix("_thumb").removesuffix("_denoised")
            check_id(clip_id, f"{where}, line {line}")
            yield ListEntry(clip_id)


class _Prompt(TypedDict):
    id: Annotated[str, NumberAsText()]
    audio_prompt: str


def _moviegen(text: str, where: str) -> Iterator[ListEntry]:
    """JSON lines with id and audio_prompt."""
    for line, value in json_lines(text, where):
        row = build(_Prompt, value, f"{where}, line {line}")
        check_id(row["id"], f"{where}, line {line}")
        yield ListEntry(row["id"], text=row["audio_prompt"])


_FORMATS: dict[str, Callable[[str, str], Iterator[ListEntry]]] = {
    "vggsound": _vggsound,
    "audiocaps": _audiocaps,
    "wavcaps": _wavcaps,
    "greatest_hits": _greatest_hits,
    "moviegen": _moviegen,
}
