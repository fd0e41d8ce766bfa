"""Decode audio and video once, on timestamps, and hand out what each extractor wants.

Clock: second 0 is the start of the container's presentation timeline (edit lists applied; a container that starts
later than 0, as MPEG-TS does, is moved to 0). Audio that starts late is preceded by silence, audio before 0 is
dropped, so sound and picture keep their offset. Frames whose times run backwards (AVI stores none for B-frames) are
taken in the order and at the times of decoding.

What is decoded is what was hashed: a file that changes in between is refused (``media.content``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import torch

from av_bench.contracts import MediaError, Reason, VideoRequest, is_out_of_memory
from av_bench.media.content import Content, changed, is_as_read, read_content
from av_bench.media.headers import check_complete, check_riff, decoder_message, open_recording, refuse_text, riff
from av_bench.media.picture import Picker, resize
from av_bench.media.resample import resample
from av_bench.media.sound import FAR_SECONDS, Sound

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

__all__ = [
    "DECODER",
    "DecodedMedia",
    "decode",
    "resize",
]

DECODER = f"PyAV {av.__version__}"
_HIGHEST_RATE = 48_000  # Hz, of the networks
NO_MEMORY = "it needs more memory than there is"


@dataclass
class DecodedMedia:
    """One decoded file.

    ``audio`` is float32 ``(channels, samples)`` at ``sample_rate`` or None; ``pictures`` holds uint8
    ``(frames, 3, height, width)`` for each request; ``video_seconds`` is the end of the last decoded frame. ``sound``
    knows the whole file where ``audio`` was cut to the window (see ``decode``).
    """

    path: Path
    digest: str
    audio: torch.Tensor | None
    sample_rate: int
    pictures: dict[VideoRequest, torch.Tensor]
    video_seconds: float | None
    sound: Sound | None = field(default=None, repr=False)
    _resampled: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def samples(self) -> int:
        """Samples per channel of the whole file, 0 without audio."""
        if self.audio is None:
            return 0
        return self.audio.shape[1] if self.sound is None else self.sound.samples

    @property
    def audio_seconds(self) -> float:
        """Length of the audio in seconds, 0.0 without audio."""
        return 0.0 if self.audio is None else self.samples / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample of the whole file, whatever its channel."""
        if self.audio is None or self.audio.numel() == 0:
            return 0.0
        return float(self.audio.abs().max()) if self.sound is None else self.sound.peak

    def heard(self, seconds: float) -> float:
        """Largest absolute sample of what is scored: the mono mix, its mean removed, of the first ``seconds``.

        Of files with a higher rate than any network has, what is left of them at 48 kHz.
        """
        if self.audio is None:
            return 0.0
        if self.sample_rate > _HIGHEST_RATE:
            part = self.waveform(_HIGHEST_RATE, seconds)
        else:
            part = self._mono(centred=True)[:, : int(self.sample_rate * seconds)]
        return float(part.abs().max()) if part.numel() else 0.0

    def _require_audio(self) -> torch.Tensor:
        if self.audio is None:
            raise MediaError(self.path, Reason.NO_AUDIO, "the file has no audio stream")
        return self.audio

    def _mono(self, *, centred: bool) -> torch.Tensor:
        audio = self._require_audio().mean(dim=0, keepdim=True)
        if not centred:
            return audio
        whole = self.sound is None or self.sound.whole
        return audio - (audio.mean() if whole else self.sound.mean)  # type: ignore[union-attr]

    def _full(self, sample_rate: int, kind: str) -> torch.Tensor:
        """What was kept of the file at ``sample_rate``; memoised, because several extractors share a rate."""
        key = (sample_rate, kind)
        if key not in self._resampled:
            with torch.inference_mode(False):  # what is kept must serve callers in any mode
                audio = self._require_audio() if kind == "channels" else self._mono(centred=kind == "centred")
                self._resampled[key] = resample(audio, self.sample_rate, sample_rate)
        return self._resampled[key]

    def _cut(self, sample_rate: int, kind: str, seconds: float | None) -> torch.Tensor:
        if self.sound is not None and not self.sound.whole and (seconds is None or seconds > self.sound.window):
            detail = f"{self.audio_seconds:.0f} s of sound: too long for a network that takes the whole file"
            raise MediaError(self.path, Reason.OUT_OF_MEMORY, detail)
        audio = self._full(sample_rate, kind)
        return audio if seconds is None else audio[:, : int(sample_rate * seconds)]

    def waveform(self, sample_rate: int, seconds: float | None, *, remove_mean: bool = True) -> torch.Tensor:
        """Mono float32 ``(samples,)``: channel mean, mean of the whole file removed, resampled, then cut.

        The order (mix, centre, resample, cut) is the published loader's. ``seconds=None`` keeps the whole file.
        """
        return self._cut(sample_rate, "centred" if remove_mean else "mono", seconds)[0]

    def channels(self, sample_rate: int, seconds: float | None) -> torch.Tensor:
        """Float32 ``(channels, samples)``: resampled, neither mixed nor centred, cut to ``seconds``."""
        return self._cut(sample_rate, "channels", seconds)

    def frames(self, request: VideoRequest) -> torch.Tensor:
        """uint8 ``(frames, 3, height, width)``; KeyError when the file was not decoded for this request."""
        return self.pictures[request]


def decode(
    path: Path | str,
    requests: Sequence[VideoRequest] = (),
    seconds: float | None = None,
    *,
    audio: bool = True,
    content: Content | None = None,
    window: float | None = None,
) -> DecodedMedia:
    """Read one file once: the whole audio, and for each request the frames of the first ``seconds``.

    ``content`` is what the file held when it was hashed; without it the file is hashed now. ``window`` promises that
    no more seconds of sound will be asked for: then memory does not grow with the length of the file.

    Raises MediaError with the reason: missing-file, empty, unreadable (also: cut off), not-finite, no-video,
    changed-while-read, out-of-memory. A file without an audio stream gives ``audio=None``.
    """
    path = Path(path)
    if content is None or not is_as_read(path, content):
        found = read_content(path)
        if content is not None and found.digest != content.digest:
            raise changed(path)
        content = found
    media = _decode(path, requests, seconds, audio, content.digest, window)
    if not is_as_read(path, content) or (content.fresh and read_content(path).digest != content.digest):
        raise changed(path)
    return media


def _decode(
    path: Path,
    requests: Sequence[VideoRequest],
    seconds: float | None,
    audio: bool,
    digest: str,
    window: float | None,
) -> DecodedMedia:
    try:
        if path.stat().st_size == 0:
            raise MediaError(path, Reason.EMPTY, "the file has zero bytes")
        refuse_text(path)
        header = riff(path)
        if header is not None:
            check_riff(path, header)
        declares = header is None or not header.streamed
        for by_decoding in (False, True):
            with open_recording(path) as container:
                reader = _Reader(path, container, requests, seconds, audio, window)
                try:
                    reader.read(by_decoding=by_decoding, declares=declares)
                except _RunsBackwards:
                    continue
                return reader.result(digest)
    except MemoryError as error:
        raise MediaError(path, Reason.OUT_OF_MEMORY, NO_MEMORY) from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(path, Reason.UNREADABLE, f"decoder says: {decoder_message(error)}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MediaError(path, Reason.OUT_OF_MEMORY, NO_MEMORY) from error
    raise MediaError(path, Reason.UNREADABLE, "the times of its pictures run backwards")


class _RunsBackwards(Exception):
    """A frame is shown before the one that was decoded before it."""


class _Reader:
    """State of one pass over one container."""

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        requests: Sequence[VideoRequest],
        seconds: float | None,
        audio: bool,
        window: float | None,
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
        self.pickers = [Picker(r, None if seconds is None else int(r.fps * seconds)) for r in dict.fromkeys(requests)]
        self.sound = Sound(path, self.zero, window)
        self.video_end: float | None = None
        self._shown: Fraction | None = None
        self._step = Fraction(0)

    def read(self, *, by_decoding: bool, declares: bool) -> None:
        """Read everything. ``by_decoding`` takes the times of decoding; ``declares`` believes the header's length."""
        streams = [s for s in (self.audio_stream, self.video_stream) if s is not None]
        for stream in streams:
            stream.codec_context.thread_count = 1  # callers run several files at once
        for packet in self.container.demux(streams) if streams else ():
            # An empty packet with a time is "the same picture again" (Theora, AVI); a decoder takes it for the end.
            nothing = packet.size == 0 and packet.pts is not None
            if packet.stream is self.audio_stream:
                for frame in () if nothing else packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        self.sound.push(frame)
                continue
            self._note_end(packet)
            if not nothing and not all(picker.done for picker in self.pickers):
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        self._video(frame, by_decoding)
        for picker in self.pickers:
            picker.finish(self.video_end)
        if declares and (self.audio_stream is not None or not self.container.streams.audio):
            # (else the sound may be longer than the picture, and was not read)
            check_complete(self.path, self.container, self.zero, max(self.sound.seconds, self.video_end or 0.0))

    def _note_end(self, packet: av.Packet[Stream]) -> None:
        """End of the picture, from packet times: known without decoding, so it never depends on the requests."""
        if packet.pts is not None and not packet.is_discard:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
            if end - (self.video_end or 0.0) > FAR_SECONDS:
                jump = f"its picture jumps from {self.video_end or 0.0:.1f} s to {end:.1f} s"
                raise MediaError(self.path, Reason.UNREADABLE, f"{jump}: the clock of the file is broken")
            self.video_end = max(end, self.video_end or 0.0)

    def _video(self, frame: av.VideoFrame, by_decoding: bool) -> None:
        ticks = frame.dts if by_decoding else frame.pts
        if ticks is not None and frame.time_base is not None:
            time = Fraction(ticks) * frame.time_base - Fraction(self.zero).limit_denominator(1_000_000)
        elif by_decoding and self._shown is not None:
            time = self._shown + self._step  # the last frames come after the last packet
        else:
            raise MediaError(self.path, Reason.UNREADABLE, "a video frame has no timestamp")
        if self._shown is not None:
            self._step = time - self._shown
            if self._step < 0:
                raise _RunsBackwards
        self._shown = time
        if time >= 0:
            for picker in self.pickers:
                picker.push(time, frame)

    def result(self, digest: str) -> DecodedMedia:
        audio = self.sound.tensor() if self.audio_stream is not None else None
        pictures = {picker.request: picker.stack() for picker in self.pickers}
        return DecodedMedia(self.path, digest, audio, self.sound.rate, pictures, self.video_end, self.sound)
