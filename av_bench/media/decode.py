"""Decode audio and video once, on timestamps, and hand out what each extractor wants.

Clock: second 0 is the start of the container's presentation timeline (edit lists applied; a container that starts
later than 0, as MPEG-TS does, is moved to 0). Audio that starts late is preceded by silence, audio before 0 is
dropped, so sound and picture keep their offset.

Frame picking at a tick rate follows ffmpeg's ``fps`` filter with rounding "near": tick n shows the last frame whose
time rounds (half away from zero) to at most n ticks. At 0.5 ticks/s and 25 frames/s that is the frame at 0.96 s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from av_bench.contracts import MediaError, Reason, VideoRequest
from av_bench.media.resample import resample
from av_bench.runtime.files import file_digest

DECODER = f"PyAV {av.__version__}"
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi"})
SILENCE_PEAK = 1e-4  # -80 dBFS: below this a file counts as silent
_GAP_SECONDS = 0.05  # audio frames further apart than this are separated by silence, not glued together
_MISSING_SECONDS = 0.25  # this much less than the header declares means the file is cut off
_RESIZE_CHUNK = 16


@dataclass
class DecodedMedia:
    """One decoded file.

    ``audio`` is float32 ``(channels, samples)`` at ``sample_rate`` or None; ``pictures`` holds uint8
    ``(frames, 3, height, width)`` for each request; ``video_seconds`` is the end of the last decoded frame.
    """

    path: Path
    digest: str
    audio: torch.Tensor | None
    sample_rate: int
    pictures: dict[VideoRequest, torch.Tensor]
    video_seconds: float | None
    _resampled: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def audio_seconds(self) -> float:
        """Length of the audio in seconds, 0.0 without audio."""
        return 0.0 if self.audio is None else self.audio.shape[1] / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample."""
        return 0.0 if self.audio is None or self.audio.numel() == 0 else float(self.audio.abs().max())

    def _require_audio(self) -> torch.Tensor:
        if self.audio is None:
            raise MediaError(self.path, Reason.NO_AUDIO, "the file has no audio stream")
        return self.audio

    def _full(self, sample_rate: int, kind: str) -> torch.Tensor:
        """Whole file at ``sample_rate``; memoised, because several extractors share a rate."""
        key = (sample_rate, kind)
        if key not in self._resampled:
            audio = self._require_audio()
            with torch.inference_mode(False):  # what is kept must serve callers in any mode
                if kind != "channels":
                    audio = audio.mean(dim=0, keepdim=True)
                if kind == "centred":
                    audio = audio - audio.mean()
                self._resampled[key] = resample(audio, self.sample_rate, sample_rate)
        return self._resampled[key]

    def waveform(self, sample_rate: int, seconds: float | None, *, remove_mean: bool = True) -> torch.Tensor:
        """Mono float32 ``(samples,)``: channel mean, mean of the whole file removed, resampled, then cut.

        The order (mix, centre, resample, cut) is the published loader's. ``seconds=None`` keeps the whole file.
        """
        audio = self._full(sample_rate, "centred" if remove_mean else "mono")[0]
        return audio if seconds is None else audio[: int(sample_rate * seconds)]

    def channels(self, sample_rate: int, seconds: float | None) -> torch.Tensor:
        """Float32 ``(channels, samples)``: resampled, neither mixed nor centred, cut to ``seconds``."""
        audio = self._full(sample_rate, "channels")
        return audio if seconds is None else audio[:, : int(sample_rate * seconds)]

    def frames(self, request: VideoRequest) -> torch.Tensor:
        """uint8 ``(frames, 3, height, width)``; KeyError when the file was not decoded for this request."""
        return self.pictures[request]


def decode(
    path: Path | str,
    requests: Sequence[VideoRequest] = (),
    seconds: float | None = None,
    *,
    audio: bool = True,
    digest: str | None = None,
) -> DecodedMedia:
    """Read one file once: the whole audio, and for each request the frames of the first ``seconds``.

    Raises MediaError with the reason: missing-file, empty, unreadable (also: cut off), not-finite, no-video.
    A file without an audio stream gives ``audio=None``.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(path, Reason.MISSING_FILE, "no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, Reason.EMPTY, "the file has zero bytes")
    digest = digest or file_digest(path)
    promised, there = _wav_data_bytes(path)
    if promised > there:
        raise MediaError(
            path, Reason.UNREADABLE, f"cut off: the header declares {promised} bytes of samples, {there} are there"
        )
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            reader = _Reader(path, container, requests, seconds, audio)
            reader.read()
            return reader.result(digest)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(path, Reason.UNREADABLE, f"decoder says: {error}") from error


def _wav_data_bytes(path: Path) -> tuple[int, int]:
    """Bytes of samples a RIFF header declares and bytes that follow it; (0, 0) for other or streamed files.

    The decoder trusts the file size here, so a cut-off wav would pass as a short one. Sizes 0 and 0xFFFFFFFF are what
    a pipe leaves and declare nothing.
    """
    with path.open("rb") as handle:
        if handle.read(4) != b"RIFF" or handle.seek(8) != 8 or handle.read(4) != b"WAVE":
            return 0, 0
        size = path.stat().st_size
        while len(head := handle.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return (0, 0) if length in (0, 0xFFFFFFFF) else (length, size - handle.tell())
            handle.seek(length + length % 2, 1)
    return 0, 0


class _Reader:
    """State of one pass over one container."""

    def __init__(
        self, path: Path, container: Any, requests: Sequence[VideoRequest], seconds: float | None, audio: bool
    ) -> None:
        self.path = path
        self.container = container
        self.zero = max(0.0, (container.start_time or 0) / av.time_base)
        self.audio_stream = container.streams.audio[0] if audio and container.streams.audio else None
        moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        self.video_stream = moving[0] if moving else None
        if requests and self.video_stream is None:
            raise MediaError(path, Reason.NO_VIDEO, "the file has no video stream")
        if self.audio_stream is None and self.video_stream is None and (audio or requests):
            streams = "an audio or video" if audio else "a video"
            raise MediaError(path, Reason.NO_AUDIO, f"the file has no {streams} stream")
        self.pickers = [_Picker(r, None if seconds is None else int(r.fps * seconds)) for r in dict.fromkeys(requests)]
        self.chunks: list[NDArray[np.float32]] = []
        self.samples = 0
        self.rate = 0
        self.video_end: float | None = None

    def read(self) -> None:
        streams = [s for s in (self.audio_stream, self.video_stream) if s is not None]
        for stream in streams:
            stream.codec_context.thread_count = 1  # callers run several files at once
        for packet in self.container.demux(streams) if streams else ():
            if packet.stream is self.audio_stream:
                for frame in packet.decode():
                    self._audio(frame)
                continue
            self._note_end(packet)
            if not all(picker.done for picker in self.pickers):
                for frame in packet.decode():
                    self._video(frame)
        for picker in self.pickers:
            picker.finish(self.video_end)
        self._check_complete()

    def _note_end(self, packet: Any) -> None:
        """End of the picture, from packet times: known without decoding, so it never depends on the requests."""
        if packet.pts is not None and not packet.is_discard:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
            self.video_end = max(end, self.video_end or 0.0)

    def _video(self, frame: Any) -> None:
        if frame.pts is None:
            raise MediaError(self.path, Reason.UNREADABLE, "a video frame has no timestamp")
        time = Fraction(frame.pts) * frame.time_base - Fraction(self.zero).limit_denominator(1_000_000)
        if time >= 0:
            for picker in self.pickers:
                picker.push(time, frame)

    def _audio(self, frame: Any) -> None:
        data = _float_samples(frame)
        rate = int(frame.sample_rate)
        if self.rate and rate != self.rate:
            raise MediaError(self.path, Reason.UNREADABLE, f"the sample rate changes from {self.rate} to {rate} Hz")
        if self.chunks and data.shape[0] != self.chunks[0].shape[0]:
            raise MediaError(self.path, Reason.UNREADABLE, "the number of channels changes inside the file")
        self.rate = rate
        start = self.samples if frame.time is None else round((frame.time - self.zero) * rate)
        gap = start - self.samples
        if gap < 0 and not self.samples:
            data = data[:, min(-gap, data.shape[1]) :]  # before second 0
        elif gap > 0 and (not self.samples or gap > _GAP_SECONDS * rate):
            data = np.concatenate([np.zeros((data.shape[0], gap), np.float32), data], axis=1)
        if data.shape[1]:
            self.chunks.append(data)
            self.samples += data.shape[1]

    def _check_complete(self) -> None:
        """A header that promises clearly more than was decoded means a cut-off file."""
        declared = self.container.duration
        if declared is None or self.container.format.name in {"mp3", "aac", "ogg"}:  # estimated, not declared
            return
        if self.audio_stream is None and self.container.streams.audio:
            return  # the sound may be longer than the picture, and was not read
        promised, found = declared / av.time_base, max(self.samples / (self.rate or 1), self.video_end or 0.0)
        if promised - found > max(_MISSING_SECONDS, 0.02 * promised):
            detail = f"cut off: the header declares {promised:.2f} s, {found:.2f} s could be decoded"
            raise MediaError(self.path, Reason.UNREADABLE, detail)

    def result(self, digest: str) -> DecodedMedia:
        audio = None
        if self.audio_stream is not None:
            if not self.samples:
                raise MediaError(self.path, Reason.EMPTY, "the audio stream holds no samples")
            audio = torch.from_numpy(np.concatenate(self.chunks, axis=1))
            if not bool(torch.isfinite(audio).all()):
                raise MediaError(self.path, Reason.NOT_FINITE, "the audio holds NaN or infinite samples")
        pictures = {picker.request: picker.stack() for picker in self.pickers}
        return DecodedMedia(self.path, digest, audio, self.rate, pictures, self.video_end)


class _Picker:
    """Emulates the fps filter for one request and resizes what it picks."""

    def __init__(self, request: VideoRequest, count: int | None) -> None:
        self.request = request
        self.count = count
        self.fps = Fraction(request.fps).limit_denominator(1001)
        self.tick = 0
        self.previous: Any = None
        self._to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
        self._waiting: list[NDArray[np.uint8]] = []
        self._ready: list[torch.Tensor] = []
        self._last: tuple[Any, NDArray[np.uint8]] | None = None

    @property
    def done(self) -> bool:
        return self.count is not None and self.tick >= self.count

    def push(self, time: Fraction, frame: Any) -> None:
        if self.done:
            return
        due = _round_half_up(time * self.fps)
        if self.previous is None:
            self.previous = frame  # ticks before the first frame show the first frame
        self._emit_until(due)
        self.previous = frame

    def finish(self, end: float | None) -> None:
        if end is not None and self.previous is not None:
            self._emit_until(_round_half_up(Fraction(end).limit_denominator(1_000_000) * self.fps))
        self._flush()

    def _emit_until(self, tick: int) -> None:
        while self.tick < tick and not self.done:
            self._waiting.append(self._array(self.previous))
            self.tick += 1
            if len(self._waiting) == _RESIZE_CHUNK:
                self._flush()

    def _array(self, frame: Any) -> NDArray[np.uint8]:
        if self._last is None or self._last[0] is not frame:
            array: NDArray[Any] = self._to_rgb.reformat(frame, format="rgb24").to_ndarray()
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            self._last = (frame, np.rot90(array, turns) if turns else array)
        return self._last[1]

    def _flush(self) -> None:
        if self._waiting:
            batch = torch.from_numpy(np.stack(self._waiting)).permute(0, 3, 1, 2)
            self._ready.append(resize(batch, self.request))
            self._waiting = []

    def stack(self) -> torch.Tensor:
        return torch.cat(self._ready) if self._ready else torch.zeros((0, 3, 0, 0), dtype=torch.uint8)


def resize(frames: torch.Tensor, request: VideoRequest) -> torch.Tensor:
    """uint8 ``(n, 3, h, w)`` -> the request's size, bicubic with antialiasing, on uint8."""
    height, width = frames.shape[-2:]
    size = request.size
    if request.mode == "squash":
        target = (size, size)
    elif height <= width:
        target = (size, int(size * width / height))
    else:
        target = (int(size * height / width), size)
    if target != (height, width):
        frames = torch.nn.functional.interpolate(frames, target, mode="bicubic", antialias=True, align_corners=False)
    if request.mode == "center":
        top, left = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
        frames = frames[..., top : top + size, left : left + size]
    return frames.contiguous()


def _round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _float_samples(frame: Any) -> NDArray[np.float32]:
    """An audio frame as float32 ``(channels, samples)``; integers are divided by their full scale."""
    array = frame.to_ndarray()
    channels = len(frame.layout.channels)
    if not frame.format.is_planar:
        array = array.reshape(-1, channels).T
    if array.dtype == np.uint8:
        return np.asarray((array.astype(np.float32) - 128.0) / 128.0, dtype=np.float32)
    if np.issubdtype(array.dtype, np.integer):
        return np.asarray(array / float(2 ** (8 * array.dtype.itemsize - 1)), dtype=np.float32)
    return np.ascontiguousarray(array, dtype=np.float32)


def media_files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files directly in ``folder`` with one of the suffixes, sorted by name; hidden files are left out."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path
