"""Opening a file, what its header promises, and whether that much was decoded."""

from __future__ import annotations

import codecs
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from av_bench.contracts import MediaError, Reason

if TYPE_CHECKING:
    from av.container import InputContainer

_MISSING_SECONDS = 0.25  # this much less than the header declares means the file is cut off
_ESTIMATED = {"mp3", "aac", "ogg", "ac3", "eac3", "amr", "mp2"}  # formats whose duration is estimated, not declared
_ENDS = {"matroska", "webm"}  # formats whose duration is the time of the end, also when they start later than 0
_NO_KEYFRAMES, _LEAD_S = {"mpegts", "mpeg", "vob"}, 12.0  # encoders put a keyframe every 10 s or more often
_FMT = struct.Struct("<HHIIHH")  # kind, channels, rate, bytes per second, bytes per block, bits
_PLAIN = (1, 3)  # kinds whose block is one sample of each channel: integer and float PCM
_EXTENSIBLE = 0xFFFE  # a kind that says besides how many of the bits are used
_HEAD = 4096
# Formats that name other files: what is decoded would not be what was hashed, and might come from the network.
_LISTS = frozenset({"concat", "dash", "hls", "image2", "imf", "rtsp", "sap", "sdp", "webm_dash_manifest"})
_OPTIONS = {"protocol_whitelist": "file"}
# A clip is decoded by one thread, so its pictures are converted by one. PyAV 17 and later take one per core unless told
# otherwise, which wait for each other at every picture; earlier versions have one thread and no such option.
ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
# What programs leave that write into a pipe and cannot come back to fill in the length: 0, or a number near the largest
# that 31 or 32 bits hold, rounded or less the header.
_STREAMED = (range(0, 1), range(0x7FFFF000, 0x80000000), range(0xFFFFF000, 0x100000000))


@dataclass(frozen=True, slots=True)
class Riff:
    """The data chunk of a wav file: bytes that its header declares, bytes that follow, bytes per second.

    ``misread`` says why the decoder would read noise out of it, None for a file that it reads.
    """

    declared: int
    there: int
    rate: int
    misread: str | None

    @property
    def streamed(self) -> bool:
        """Whether the header was written before the length was known."""
        return any(self.declared in lengths for lengths in _STREAMED)


def riff(path: Path) -> Riff | None:
    """The data chunk of a wav file, None for another format or a wav without one."""
    with path.open("rb") as handle:
        name = handle.read(4)
        if name not in (b"RIFF", b"RIFX") or handle.seek(8) != 8 or handle.read(4) != b"WAVE":
            return None
        if name == b"RIFX":
            return Riff(0, 0, 0, "its numbers are big-endian (RIFX)")
        size, rate, misread = path.stat().st_size, 0, None
        while len(head := handle.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return Riff(length, size - handle.tell(), rate, misread)
            content = handle.read(min(length, _FMT.size + 4))
            if head[:4] == b"fmt " and len(content) >= _FMT.size:
                kind, channels, samples, rate, block, bits = _FMT.unpack_from(content)
                rate = min(rate, samples * block)  # the second is too high for compressed sound
                if kind in _PLAIN and block != channels * ((bits + 7) // 8):
                    misread = f"its header contradicts itself: {channels} x {bits} bits in {block} bytes"
                elif kind == _EXTENSIBLE and bits == 32 and int.from_bytes(content[18:], "little") == 24:
                    misread = "it has 24 bits in 32"
            handle.seek(length + length % 2 - len(content), 1)
    return None


def check_riff(path: Path, header: Riff) -> None:
    """MediaError when a wav file is cut off: the decoder trusts the file size, and would pass it as a short one."""
    if header.misread is not None:
        raise MediaError(path, Reason.UNREADABLE, f"a wav that the decoder takes for noise: {header.misread}")
    missing = header.declared - header.there
    if not header.streamed and missing > _MISSING_SECONDS * header.rate:
        detail = f"cut off: the header declares {header.declared} bytes of samples, {header.there} are there"
        raise MediaError(path, Reason.UNREADABLE, detail)


def refuse_text(path: Path) -> None:
    """MediaError for a text file of whatever name: a web page, a table, or a list of other files to play."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError:
        return
    if all(character.isprintable() or character in "\t\n\r\f\v\ufeff" for character in text):
        raise MediaError(path, Reason.UNREADABLE, f"text, not a recording: it begins with {text[:40]!r}")


def open_recording(path: Path, payload: bytes | None = None) -> InputContainer:
    """Open a file for reading, alone: whatever it says, no other file and no address is decoded in its place.

    ``payload``: its bytes, to be decoded without its name (for a picture ``a%d.png`` would be a series of files).
    The container closes itself as a context manager. Raises MediaError for a file that only names others, and what
    FFmpeg raises (``av.error.FFmpegError``, ``ValueError``, ``OSError``).
    """
    # with its protocol: a name such as "take:1.wav" would be taken for one
    source = f"file:{path.absolute()}" if payload is None else io.BytesIO(payload)
    container = av.open(source, "r", metadata_errors="ignore", options=_OPTIONS)
    if set(container.format.name.split(",")) & _LISTS:
        container.close()
        detail = f"a list of other files ({container.format.name}), not a recording"
        raise MediaError(path, Reason.UNREADABLE, detail)
    return container


def decoder_message(error: Exception) -> str:
    """What FFmpeg or the system reports about a file that cannot be read, without number and path."""
    if isinstance(error, (av.error.FFmpegError, OSError)) and error.strerror:
        return error.strerror
    return str(error)


def jump(container: InputContainer, seconds: float) -> None:
    """Go on reading at the last keyframe at or before ``seconds`` of the container's own clock.

    Formats that keep no list of keyframes start at any picture and show nothing until the next one that stands for
    itself: there the jump goes further back.
    """
    lead = _LEAD_S if set(container.format.name.split(",")) & _NO_KEYFRAMES else 0.0
    container.seek(int(max(0.0, seconds - lead) * av.time_base))


def check_complete(path: Path, container: InputContainer, zero: float, found: float) -> None:
    """MediaError when a header promises clearly more than was decoded: a cut-off file.

    ``zero`` is the start of the container and ``found`` the end of what was decoded, counted from there, in s.
    """
    names = set(container.format.name.split(","))
    if container.duration is None or names & _ESTIMATED:
        return
    promised = container.duration / av.time_base
    if names & _ENDS:
        promised -= zero
    if promised - found > max(_MISSING_SECONDS, 0.02 * promised):
        detail = f"cut off: the header declares {promised:.2f} s, {found:.2f} s could be decoded"
        raise MediaError(path, Reason.UNREADABLE, detail)
