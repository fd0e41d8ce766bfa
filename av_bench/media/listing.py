"""Which files of a folder are recordings? Found by opening them, not by their names; what is left out is named.

Suffixes say little: .ts, .m2ts, .vob, .wmv or no suffix at all may be video, and a .mp4 may be a web page that an
error left behind. Every file is asked for its streams (``probe``). What is not used is listed with its reason, and says
whether a recording may hide behind it: a text file, a still picture or subtitles cannot be one; a damaged file, an
archive, a folder that may not be entered can.

Links to folders are followed; a folder is entered once, however many links lead to it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av

from av_bench.contracts import MediaError, Reason, UsageError
from av_bench.media.headers import decoder_message, open_recording
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES

_PICTURES = {"image2", "ico", "svg"}  # formats of FFmpeg that hold still pictures; so do all that end in "_pipe"
_ANIMATED = {"gif", "apng", "webp", "webp_anim"}  # ... and those that may move
_LEAST_S = 0.5  # s of a moving picture
_ARCHIVES = {  # name -> where its mark stands, and the mark
    "zip": (0, b"PK\x03\x04"),
    "tar": (257, b"ustar"),
    "gzip": (0, b"\x1f\x8b"),
    "7z": (0, b"7z\xbc\xaf"),
    "rar": (0, b"Rar!"),
    "xz": (0, b"\xfd7zXZ"),
    "zstd": (0, b"\x28\xb5\x2f\xfd"),
}
_TEXT_BYTES = 4096
_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # what macOS leaves beside a file on foreign disks
_OF_THE_SYSTEM = {".ds_store", "thumbs.db", "desktop.ini"}
_MEDIA_NAMES = AUDIO_SUFFIXES | VIDEO_SUFFIXES  # only to tell a lost recording from a text file


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A recording: its path as found, and the streams it has."""

    path: Path
    audio: bool
    video: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not used, and why. ``harmless``: certainly no recording that would have to be."""

    path: Path
    reason: str
    harmless: bool


@dataclass(frozen=True)
class Listing:
    """All of a folder: what is used and what is left out, both sorted by path."""

    used: tuple[MediaFile, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def doubtful(self) -> tuple[LeftOut, ...]:
        """What is left out though a recording may be in it."""
        return tuple(item for item in self.left_out if not item.harmless)


def list_media(folder: Path, *, below: bool = True, hidden: bool = False) -> Listing:
    """Every recording of a folder and, with ``below``, of its sub-folders.

    Files whose name begins with a dot are left out unless ``hidden``. Raises UsageError when there is no such folder.
    """
    files, left_out = walk(folder, below=below, hidden=hidden)
    used = []
    for path in files:
        found = probe(path)
        if isinstance(found, MediaFile):
            used.append(found)
        else:
            left_out.append(found)
    return Listing(tuple(used), tuple(sorted(left_out, key=lambda item: item.path)))


def walk(folder: Path, *, below: bool = True, hidden: bool = True) -> tuple[list[Path], list[LeftOut]]:
    """All regular files of a folder, sorted, not yet opened; and what cannot be one. See ``list_media``."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    files: list[Path] = []
    left_out: list[LeftOut] = []
    entered: dict[tuple[int, int], Path] = {}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if (reason := _entered_before(here, entered)) is not None:
            left_out.append(LeftOut(here, reason, True))
            continue
        for path in _entries(here, left_out):
            if path.name.startswith(".") and not hidden:
                left_out.append(LeftOut(path, "hidden: its name begins with a dot", True))
            elif path.is_dir():
                if below:
                    waiting.append(path)
                else:
                    left_out.append(LeftOut(path, "a folder: sub-folders are not searched", True))
            elif (reason := _irregular(path)) is not None:
                left_out.append(LeftOut(path, reason, False))
            else:
                files.append(path)
    return sorted(files), sorted(left_out, key=lambda item: item.path)


def _entries(folder: Path, left_out: list[LeftOut]) -> Iterable[Path]:
    """What a folder holds, last first (the caller takes folders from the end of its list)."""
    try:
        return sorted(folder.iterdir(), reverse=True)
    except OSError as error:
        left_out.append(LeftOut(folder, f"the folder cannot be read: {error.strerror}", False))
        return ()


def _entered_before(folder: Path, entered: dict[tuple[int, int], Path]) -> str | None:
    """Why a folder is not entered again; None, and a note of it, at the first time."""
    try:
        info = folder.stat()
    except OSError as error:
        return f"the folder cannot be read: {error.strerror}"
    first = entered.setdefault((info.st_dev, info.st_ino), folder)
    return None if first is folder else f"the same folder as {first}"


def _irregular(path: Path) -> str | None:
    """Why a path is not a file that can be read; None for a regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        broken = path.is_symlink() and not path.exists()
        return "a link that leads nowhere" if broken else f"cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not a regular file (a device, pipe or socket)"


# --------------------------------------------------------------------------- one file


def probe(path: Path) -> MediaFile | LeftOut:
    """What a file is, by its streams. Opens it; decodes nothing."""
    try:
        if path.stat().st_size == 0:
            return LeftOut(path, f"{Reason.EMPTY.value}: the file has zero bytes", False)
        with path.open("rb") as handle:
            head = handle.read(_TEXT_BYTES)
    except OSError as error:
        return LeftOut(path, f"cannot be read: {error.strerror}", False)
    if (known := _by_first_bytes(path, head)) is not None:
        return known
    try:
        with open_recording(path) as container:
            return _by_streams(path, container)
    except MediaError as error:
        return LeftOut(path, f"{error.reason.value}: {error.detail}", False)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        return LeftOut(path, f"{Reason.UNREADABLE.value}: {decoder_message(error)}", False)


def _by_first_bytes(path: Path, head: bytes) -> LeftOut | None:
    """What is not a recording by its first bytes. Text is never given to the decoder: it may name other files."""
    if path.name.lower() in _OF_THE_SYSTEM or head.startswith(_APPLE_DOUBLE):
        return LeftOut(path, "a note of the operating system", True)
    for name, (at, mark) in _ARCHIVES.items():
        if head[at : at + len(mark)] == mark:
            return LeftOut(path, f"an archive ({name}): unpack it to have its files compared", False)
    if not _is_text(head):
        return None
    if path.suffix.lower() in _MEDIA_NAMES:  # it stands where a recording was meant to be
        return LeftOut(path, f"{Reason.UNREADABLE.value}: text, not the recording its name promises", False)
    return LeftOut(path, "a text file", True)


def _by_streams(path: Path, container: av.container.InputContainer) -> MediaFile | LeftOut:
    names, streams = set(container.format.name.split(",")), container.streams
    if names & _PICTURES or any(name.endswith("_pipe") for name in names):
        return LeftOut(path, "a still picture", True)
    if names & _ANIMATED and (container.duration or 0) / av.time_base < _LEAST_S:
        return LeftOut(path, "a still picture", True)
    moving = [s for s in streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if streams.audio or moving:
        return MediaFile(path, bool(streams.audio), bool(moving))
    if streams.subtitles:
        return LeftOut(path, "subtitles", True)
    return LeftOut(path, f"{Reason.NO_AUDIO.value}: neither sound nor picture in it ({container.format.name})", False)


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 text (the last character may be cut)."""
    if b"\x00" in head:
        return False
    try:
        head[:-4].decode("utf-8") if len(head) == _TEXT_BYTES else head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
