"""Decode a file as a stream of small grey pictures and mono sound: memory does not grow with its length.

The clock is that of ``media.decode``: second 0 is the start of the presentation, late sound is preceded by silence,
tick n shows the last frame whose time rounds to at most n ticks. Pictures are averaged down to a square of grey levels
by the decoder's own scaler, sound is mixed and resampled as it comes. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from av_bench.contracts import MediaError, Reason
from av_bench.media.headers import ONE_THREAD, decoder_message, jump, open_recording

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

Thumbnail = NDArray[np.uint8]  # (size, size) grey levels
Sound = NDArray[np.float32]  # (samples,)

_GAP_S = 0.05  # sound frames further apart than this are separated by silence
_FAR_S = 3600.0  # a gap longer than this is a broken clock, not silence
_MISSING_S = 0.25  # this much less than the header declares means the file is cut off
_ESTIMATED = {"mp3", "aac", "ogg", "flac", "amr"}  # formats whose length is estimated, not declared


@dataclass(frozen=True, slots=True)
class Wish:
    """What to hand out: pictures ``size`` x ``size`` at ``fps``, sound at ``rate`` Hz, of ``start`` to ``end`` s.

    ``start`` lies on a tick of ``fps``; the first picture and sample belong to it. An ``end`` of None is that of the
    file; such a wish reads all of it and notices a file that is cut off. Without ``sound`` or ``picture`` the other
    one is read alone.
    """

    fps: float
    size: int
    rate: int
    start: float = 0.0
    end: float | None = None
    sound: bool = True
    picture: bool = True


@dataclass(slots=True)
class Read:
    """What a file has: streams, the length of each (s) as far as it was read, and the size of its picture."""

    audio: bool = False
    video: bool = False
    audio_seconds: float = 0.0
    video_seconds: float = 0.0
    width: int = 0
    height: int = 0


def stream(path: Path, wish: Wish, on_picture: Callable[[Thumbnail], None], on_sound: Callable[[Sound], None]) -> Read:
    """Read a file and hand every thumbnail and every piece of sound on, in order.

    Raises MediaError: missing-file, empty, unreadable (also: cut off), not-finite, no-audio when it has neither stream.
    """
    if not path.is_file():
        raise MediaError(path, Reason.MISSING_FILE, "no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, Reason.EMPTY, "the file has zero bytes")
    try:
        with open_recording(path) as container:
            return _Pass(path, container, wish, on_picture, on_sound).run()
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(path, Reason.UNREADABLE, f"decoder says: {decoder_message(error)}") from error


class _Pass:
    """One reading of one file."""

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        wish: Wish,
        on_picture: Callable[[Thumbnail], None],
        on_sound: Callable[[Sound], None],
    ) -> None:
        self.path, self.container, self.wish = path, container, wish
        self.zero = max(0.0, (container.start_time or 0) / av.time_base)
        self.audio = container.streams.audio[0] if wish.sound and container.streams.audio else None
        moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        self.video = moving[0] if wish.picture and moving else None
        if self.audio is None and self.video is None:
            raise MediaError(path, Reason.NO_AUDIO, "neither sound nor picture in it")
        self.result = Read(self.audio is not None, self.video is not None)
        self.pictures = _Pictures(wish, on_picture)
        self.sounds = _Sounds(path, wish, on_sound)

    def run(self) -> Read:
        streams = [s for s in (self.audio, self.video) if s is not None]
        for one in streams:
            one.codec_context.thread_count = 1  # callers run several files at once
        if self.wish.start > 0:
            jump(self.container, self.zero + self.wish.start)
        done = {id(s): False for s in streams}
        for packet in self.container.demux(streams):
            if packet.stream is self.video:
                self._note_end(packet)
            if packet.size == 0 and packet.dts is not None:
                continue  # Theora's "the same picture again"; a decoder would take it for the end
            if done[id(packet.stream)]:
                if all(done.values()):
                    break
                continue
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame | av.AudioFrame) and self._frame(frame):
                    done[id(packet.stream)] = True
        self.pictures.finish(self.result.video_seconds)
        self.sounds.finish()
        self.result.audio_seconds = self.wish.start + self.sounds.count / self.wish.rate if self.audio else 0.0
        self.result.width, self.result.height = self.pictures.shape
        if self.wish.end is None and self.wish.sound and self.wish.picture:
            self._check_complete()
        return self.result

    def _frame(self, frame: av.VideoFrame | av.AudioFrame) -> bool:
        """Pass a frame on; True when it is after the requested end."""
        time = None
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - self.zero
        if isinstance(frame, av.VideoFrame):
            self.pictures.push(time, frame)
        else:
            self.sounds.push(time, frame)
        return self.wish.end is not None and time is not None and time > self.wish.end

    def _note_end(self, packet: av.Packet[Stream]) -> None:
        if packet.pts is not None and not packet.is_discard:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
            self.result.video_seconds = max(end, self.result.video_seconds)

    def _check_complete(self) -> None:
        """A header that promises clearly more than was decoded means a cut-off file."""
        if self.audio is not None and not self.sounds.count and self.video is None:
            raise MediaError(self.path, Reason.EMPTY, "the audio stream holds no samples")
        declared = self.container.duration
        if declared is None or self.container.format.name in _ESTIMATED:
            return
        promised, found = declared / av.time_base, max(self.result.audio_seconds, self.result.video_seconds)
        if promised - self.zero - found > max(_MISSING_S, 0.02 * promised):
            detail = f"cut off: the header declares {promised:.2f} s, {found:.2f} s could be decoded"
            raise MediaError(self.path, Reason.UNREADABLE, detail)


class _Pictures:
    """Picks frames at the ticks of the wish and makes them small."""

    def __init__(self, wish: Wish, hand_on: Callable[[Thumbnail], None]) -> None:
        self.wish, self.hand_on = wish, hand_on
        self.tick = round(wish.start * wish.fps)
        self.last = math.inf if wish.end is None else round(wish.end * wish.fps)
        self.shape = (0, 0)  # width, height
        self.shown: av.VideoFrame | None = None
        self._time = 0.0
        self._small: tuple[av.VideoFrame, Thumbnail] | None = None
        self._scale = VideoReformatter()

    def push(self, time: float | None, frame: av.VideoFrame) -> None:
        time = self._time if time is None else time  # without a clock: as it comes
        if time < 0:
            return
        self._time = time
        turned = round(frame.rotation / 90) % 2
        self.shape = (frame.height, frame.width) if turned else (frame.width, frame.height)
        if self.shown is None:
            self.shown = frame  # ticks before the first frame show the first frame
        self._until(math.floor(time * self.wish.fps + 0.5))
        self.shown = frame

    def finish(self, end: float) -> None:
        if self.shown is not None:
            self._until(min(math.floor(end * self.wish.fps + 0.5), self.last))

    def _until(self, tick: float) -> None:
        while self.shown is not None and self.tick < min(tick, self.last):
            self.hand_on(self._thumbnail(self.shown))
            self.tick += 1

    def _thumbnail(self, frame: av.VideoFrame) -> Thumbnail:
        if self._small is None or self._small[0] is not frame:
            size = self.wish.size
            grey = self._scale.reformat(
                frame, width=size, height=size, format="gray", interpolation="AREA", **ONE_THREAD
            )
            turns = round(frame.rotation / 90) % 4
            self._small = (frame, np.ascontiguousarray(np.rot90(grey.to_ndarray(), turns)))
        return self._small[1]


class _Sounds:
    """Mixes to mono, resamples, and keeps the clock with silence where it is needed."""

    def __init__(self, path: Path, wish: Wish, hand_on: Callable[[Sound], None]) -> None:
        self.path, self.wish, self.hand_on = path, wish, hand_on
        self.count = 0  # samples handed on
        self.most = math.inf if wish.end is None else round((wish.end - wish.start) * wish.rate)
        self._resampler: AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None

    def push(self, time: float | None, frame: av.AudioFrame) -> None:
        due = self.count if time is None else round((time - self.wish.start) * self.wish.rate)
        gap = due - self.count
        if gap > _FAR_S * self.wish.rate:
            raise MediaError(self.path, Reason.UNREADABLE, f"its sound jumps to {time:.0f} s")
        if gap > 0 and (not self.count or gap > _GAP_S * self.wish.rate):
            self._drain()
            self._give(np.zeros(gap, np.float32))
        skip = -gap if not self.count and gap < 0 else 0  # before the start
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            self._drain()
            self._format, self._resampler = form, AudioResampler("flt", "mono", self.wish.rate)
        if self._resampler is None or skip >= frame.samples * self.wish.rate / frame.sample_rate:
            return
        frame.pts = None
        for part in self._resampler.resample(frame):
            self._give(part.to_ndarray()[0][skip:])
            skip = 0

    def finish(self) -> None:
        self._drain()

    def _drain(self) -> None:
        if self._resampler is not None:
            for part in self._resampler.resample(None):
                self._give(part.to_ndarray()[0])
            self._resampler, self._format = None, None

    def _give(self, samples: Sound) -> None:
        samples = samples[: int(min(len(samples), self.most - self.count))]
        if not np.isfinite(samples).all():
            raise MediaError(self.path, Reason.NOT_FINITE, "the sound holds NaN or infinite samples")
        if len(samples):
            self.count += len(samples)
            self.hand_on(samples)
