"""A video to watch: the clip's own picture with the generated sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from av_bench.contracts import MediaError, Reason
from av_bench.media.headers import open_recording
from av_bench.runtime.files import atomic_path

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

    VideoPacket = av.Packet[VideoStream]

RATES = (8_000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
BIT_RATE = 128_000
_BLOCK = 1024
_TICK = Fraction(1, 48_000)  # of coded pictures: MPEG-4 takes no finer clock than 1/65535


def mux(video: Path, audio: Path, target: Path, seconds: float) -> None:
    """Write ``target`` (mp4): the first ``seconds`` of the video's picture and the audio file as AAC.

    Second 0 is the start of the video's container, as in decoding. Packets are copied; a file whose first picture is
    no keyframe of its own (one that was cut without re-encoding it) is decoded and coded instead. The sound is coded
    at its own rate, or the next higher one AAC knows. MediaError when either cannot be read.
    """
    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    try:
        with (
            atomic_path(target, keep_suffix=True) as temporary,
            open_recording(video) as source,
            av.open(str(temporary), "w") as sink,
        ):
            if not source.streams.video:
                raise MediaError(video, Reason.NO_VIDEO, "the file has no video stream")
            packets = _packets(source, seconds)
            frames = None if packets else _frames(video, seconds)
            first = None if frames is None else next(frames, None)
            if packets:
                copied = sink.add_stream_from_template(source.streams.video[0])
            elif first is None:
                raise MediaError(video, Reason.NO_VIDEO, f"no picture in the first {seconds:g} s")
            else:
                copied = _picture_stream(sink, first[1], source.streams.video[0].average_rate)
            coded = sink.add_stream("aac", rate=next((r for r in RATES if r >= rate), 48_000), layout="mono")
            coded.bit_rate = BIT_RATE
            coded.codec_context.options = {"aac_coder": "fast"}  # half the time, and no further from the wave
            for packet in packets:
                packet.stream = copied
                sink.mux(packet)
            if first is not None and frames is not None:
                _encode_picture(sink, copied, chain([first], frames))
            _encode(sink, coded, samples[: round(seconds * rate)].mean(axis=1), rate)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(video, Reason.UNREADABLE, f"cannot be copied beside {audio.name}: {error}") from error


def _zero(source: InputContainer) -> float:
    """Start of the container in s."""
    return float(max(0, source.start_time or 0) / av.time_base)


def _packets(source: InputContainer, seconds: float) -> list[VideoPacket]:
    """Packets of the picture shown in [0, ``seconds``), counted from 0; none when they cannot be decoded by themselves.

    That is so when the first is not a keyframe, or when earlier ones are needed: those before the start of an edit list
    (marked to be discarded after decoding) and those before second 0.
    """
    picture, zero = source.streams.video[0], _zero(source)
    kept: list[VideoPacket] = []
    for packet in source.demux(picture):
        if packet.pts is None:
            continue
        if packet.dts is not None and float(packet.dts * packet.time_base) - zero >= seconds:
            break
        time = float(packet.pts * packet.time_base) - zero
        if time >= seconds:
            continue
        if packet.is_discard or time < 0 or not (kept or packet.is_keyframe):
            return []
        kept.append(packet)
    for packet in kept:
        shift = round(zero / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
    return kept


def _frames(video: Path, seconds: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(time in s, RGB picture turned upright) of the frames in [0, ``seconds``)."""
    with open_recording(video) as source:
        zero = _zero(source)
        for frame in source.decode(video=0):
            if frame.pts is None or frame.time_base is None:
                continue
            time = float(frame.pts * frame.time_base) - zero
            if time >= seconds:
                return
            if time >= 0:
                turns = round(frame.rotation / 90) % 4
                yield time, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _picture_stream(sink: OutputContainer, first: NDArray[np.uint8], rate: Fraction | None) -> VideoStream:
    """H.264 (MPEG-4 where there is no x264) of the first picture's size, cut to even numbers."""
    if "libx264" in av.codecs_available:
        stream = sink.add_stream("libx264", rate=rate or 25, options={"crf": "18"})
    else:
        stream = sink.add_stream("mpeg4", rate=rate or 25, options={"qscale": "2"})
    stream.height, stream.width = (size // 2 * 2 for size in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = _TICK
    return stream


def _encode_picture(
    sink: OutputContainer, stream: VideoStream, frames: Iterable[tuple[float, NDArray[np.uint8]]]
) -> None:
    for time, picture in frames:
        cut = np.ascontiguousarray(picture[: stream.height, : stream.width])
        frame = av.VideoFrame.from_ndarray(cut, format="rgb24")
        frame.pts, frame.time_base = round(time / _TICK), _TICK
        sink.mux(stream.encode(frame))
    sink.mux(stream.encode(None))


def _encode(sink: OutputContainer, stream: AudioStream, samples: NDArray[np.float32], rate: int) -> None:
    resampler = av.AudioResampler("fltp", "mono", stream.rate)
    for start in range(0, len(samples), _BLOCK):
        block = np.clip(samples[None, start : start + _BLOCK], -1, 1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, start
        for part in resampler.resample(frame):
            sink.mux(stream.encode(part))
    for part in resampler.resample(None):
        sink.mux(stream.encode(part))
    sink.mux(stream.encode(None))
