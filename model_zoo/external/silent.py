"""Copies of videos without their sound, so that no model has access to the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av

from av_bench.contracts import MediaError, Reason
from av_bench.media.headers import open_recording
from av_bench.runtime.files import atomic_path, file_digest, home

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    VideoPacket = av.Packet[VideoStream]

_SILENCE_RATE = 44_100
_BROADCAST = ("mpegts", "mpeg")  # formats whose clock starts anywhere; all others start at 0


@dataclass(frozen=True)
class SilentVideo:
    """A copy with its video stream only; ``duration`` in seconds."""

    path: Path
    fps: float | None
    width: int
    height: int
    duration: float


def silent_copy(video: Path, folder: Path | None = None) -> SilentVideo:
    """The video stream of ``video`` in a file of its own: packets are copied, nothing is encoded again.

    Other streams and the metadata of the file stay behind (a title can give the class away). Copies are named after
    the sha256 of the source and kept in the cache folder. Raises MediaError: missing-file, no-video, unreadable.
    """
    if not video.is_file():
        raise MediaError(video, Reason.MISSING_FILE, "no such file")
    target = (folder or home() / "silent") / f"{file_digest(video)}{video.suffix.lower()}"
    try:
        if not target.is_file():
            _remux(video, target)
        return _probe(target)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(video, Reason.UNREADABLE, f"no silent copy could be made: {error}") from error


def at_rate(video: SilentVideo, fps: float, silence: bool = False) -> Path:
    """A silent copy at another frame rate: H.264 at its own size (an odd row or column is cut off), near lossless.

    Frames are dropped or repeated as FFmpeg's ``fps`` filter does, which is what official preparations call; where the
    video starts late, its first frame stands until then, so that readers that only count frames stay in time. Copies
    are kept beside the silent copy. ``silence`` adds a track of digital zeros as long as the picture, for readers that
    insist on one. Raises MediaError: unreadable.
    """
    rate = Fraction(fps).limit_denominator(1001)
    target = video.path.with_name(f"{video.path.stem}-fps{rate.numerator}-{rate.denominator}{'-quiet' * silence}.mp4")
    try:
        if not target.is_file():
            _encode(video.path, target, rate, silence)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(
            video.path, Reason.UNREADABLE, f"no copy at {fps:g} frames/s could be made: {error}"
        ) from error
    return target


def _encode(source: Path, target: Path, rate: Fraction, silence: bool) -> None:
    with (
        atomic_path(target, keep_suffix=True) as part,
        open_recording(source) as given,
        av.open(str(part), "w") as made,
    ):
        stream = given.streams.video[0]
        coded = made.add_stream("libx264", rate=rate, options={"crf": "10", "threads": "1"})
        coded.width, coded.height = stream.codec_context.width // 2 * 2, stream.codec_context.height // 2 * 2
        coded.pix_fmt = "yuv420p"
        quiet = made.add_stream("aac", rate=_SILENCE_RATE, layout="mono") if silence else None
        graph = av.filter.Graph()
        cut = f"{coded.width}:{coded.height}:0:0"
        zero = (given.start_time or 0) / av.time_base if given.format.name in _BROADCAST else 0.0
        filters = [
            ("fps", f"fps={rate}:start_time={zero}"),
            ("crop", cut),
            ("format", "yuv420p"),
            ("buffersink", None),
        ]
        nodes = [graph.add_buffer(template=stream), *(graph.add(*pair) for pair in filters)]
        for first, second in pairwise(nodes):
            first.link_to(second)
        graph.configure()
        frames = 0
        for frame in chain(given.decode(stream), [None]):
            graph.push(frame)
            for ready in _ready(graph):
                frames += 1
                ready.pict_type = av.video.frame.PictureType.NONE
                made.mux(coded.encode(ready))
        made.mux(coded.encode(None))
        if quiet is not None:
            _add_silence(made, quiet, float(frames / rate))


def _add_silence(made: OutputContainer, stream: AudioStream, seconds: float) -> None:
    """Digital zeros of at least this length."""
    for number in range(int(seconds * _SILENCE_RATE) // 1024 + 2):
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.planes[0].update(bytes(4 * 1024))
        frame.rate, frame.pts, frame.time_base = _SILENCE_RATE, 1024 * number, Fraction(1, _SILENCE_RATE)
        made.mux(stream.encode(frame))
    made.mux(stream.encode(None))


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """Frames that a filter graph has finished."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _remux(source: Path, target: Path) -> None:
    with (
        atomic_path(target, keep_suffix=True) as part,
        open_recording(source) as given,
        av.open(str(part), "w") as made,
    ):
        moving = [s for s in given.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not moving:
            raise MediaError(source, Reason.NO_VIDEO, "the file has no video stream")
        stream = made.add_stream_from_template(moving[0])
        for packet in _with_decoding_times(p for p in given.demux(moving[0]) if p.size):
            packet.stream = stream
            made.mux(packet)


def _with_decoding_times(packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    """Packets in file order; those Matroska stores without a decoding time get one a frame before the next."""
    waiting: list[VideoPacket] = []
    for packet in packets:
        waiting.append(packet)
        if (time := packet.dts) is None:
            continue
        for earlier in reversed(waiting[:-1]):
            time -= max(1, earlier.duration or 1)
            earlier.dts = time
        yield from waiting
        waiting = []
    if waiting:  # no packet has one: pictures are stored in the order they are shown
        for packet in waiting:
            packet.dts = packet.pts
        yield from waiting


def _probe(path: Path) -> SilentVideo:
    with open_recording(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate) if stream.average_rate else None
        duration = (container.duration or 0) / av.time_base
        return SilentVideo(path, fps, stream.codec_context.width, stream.codec_context.height, duration)
