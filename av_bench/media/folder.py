"""The media files of one folder: those that are used, and those that are left out and might have been meant.

A file with a suffix of sound or video is used, whatever is in it: decoding says what is wrong with a pipe, a dangling
link or a web page of that name, and the clip is excluded for that reason instead of never being counted. A file with
another suffix is opened: if there are streams in it, it is used too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.media import listing
from av_bench.media.listing import LeftOut
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES

_SYNC = b"G"  # first byte of a packet of an MPEG transport stream; .ts is also the suffix of TypeScript


@dataclass(frozen=True, slots=True)
class Folder:
    """``used`` and ``left_out``, both sorted by name; ``left_out`` lacks what certainly is not a recording."""

    used: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]

    def notes(self) -> tuple[tuple[str, str], ...]:
        """(name, why it is not used) of what is left out."""
        return tuple((item.path.name, item.reason) for item in self.left_out)


def list_folder(folder: Path, suffixes: frozenset[str]) -> Folder:
    """What is directly in a folder. ``suffixes`` are those wanted: of sound, of video or of both."""
    used: list[Path] = []
    left_out: list[LeftOut] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.startswith("."):
            continue
        found = _what(path, suffixes)
        if found is None:
            used.append(path)
        elif not found.harmless:
            left_out.append(found)
    return Folder(tuple(used), tuple(left_out))


def media_files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files directly in ``folder`` that are used (see ``list_folder``), sorted by name."""
    yield from list_folder(folder, suffixes).used


def by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their name without its suffix."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def only_one(paths: list[Path], what: str) -> Path | None:
    """The one file of an id, None when there is none. UsageError when there are several."""
    if len(paths) > 1:
        raise UsageError(
            f"{what}: {' and '.join(path.name for path in paths)} both belong to {paths[0].stem}; keep one"
        )
    return paths[0] if paths else None


def _what(path: Path, suffixes: frozenset[str]) -> LeftOut | None:
    """Why a path is not used, None for one that is."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return LeftOut(path, "a folder: sub-folders are not searched", not any(path.glob("[!.]*")))
    if suffix in suffixes and (suffix != ".ts" or _is_transport_stream(path)):
        return None
    if suffix in AUDIO_SUFFIXES and suffix not in suffixes:
        return LeftOut(path, "sound, where a video is wanted", False)
    if not path.is_file():
        return LeftOut(path, "neither a file nor a folder, or a link that leads nowhere", False)
    found = listing.probe(path)
    if isinstance(found, LeftOut):
        return found
    wanted = found.video if not suffixes & AUDIO_SUFFIXES else found.audio if not suffixes & VIDEO_SUFFIXES else True
    return None if wanted else LeftOut(path, "a recording without the stream that is wanted", False)


def _is_transport_stream(path: Path) -> bool:
    if not path.is_file():
        return True  # decoding says what is wrong
    with path.open("rb") as handle:
        head = handle.read(5)
    return _SYNC in (head[:1], head[4:5])
