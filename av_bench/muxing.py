"""A video to watch: the clip's own picture with the generated sound."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from av_bench.accounts import Table
from av_bench.contracts import Clip, MediaError, Reason
from av_bench.progress import Reporter

RATES = (8_000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
BIT_RATE = 128_000
_BLOCK = 1024


def mux(video: Path, audio: Path, target: Path, seconds: float) -> None:
    """Write ``target`` (mp4): the first ``seconds`` of the video's picture, packets copied, and the audio file as AAC.

    Second 0 is the start of the video's container, as in decoding. The sound is coded at its own rate, or the next
    higher one AAC knows. MediaError when either cannot be read.
    """
    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.mp4")
    try:
        with av.open(str(video)) as source, av.open(str(temporary), "w") as sink:
            if not source.streams.video:
                raise MediaError(video, Reason.NO_VIDEO, "the file has no video stream")
            picture = source.streams.video[0]
            zero = max(0, source.start_time or 0) / av.time_base
            copied = sink.add_stream_from_template(picture)
            coded = sink.add_stream("aac", rate=next((r for r in RATES if r >= rate), 48_000), layout="mono")
            coded.bit_rate = BIT_RATE
            for packet in source.demux(picture):
                if packet.pts is None or packet.is_discard or float(packet.pts * packet.time_base) - zero >= seconds:
                    continue
                shift = round(zero / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, None if packet.dts is None else packet.dts - shift
                packet.stream = copied
                sink.mux(packet)
            _encode(sink, coded, samples[: round(seconds * rate)].mean(axis=1), rate)
        temporary.replace(target)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(video, Reason.UNREADABLE, f"cannot be copied beside {audio.name}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def videos(folder: Path, clips: Sequence[Clip], table: Table, seconds: float, reporter: Reporter) -> None:
    """One mp4 per scored sample that has a picture, named like the sample; those that are there are kept.

    A picture that cannot be copied costs its video only, and is said.
    """
    jobs = [(c, m) for c in clips if c.video is not None for m in table.samples[c.id]]
    with reporter.stage("videos", len(jobs)) as stage:
        for clip, medium in jobs:
            target = folder / f"{medium.path.stem}.mp4"
            if clip.video is not None and not target.is_file():
                try:
                    mux(clip.video, medium.path, target, seconds)
                except MediaError as error:
                    reporter.say(f"no video to watch of {clip.id}: {error}")
            stage.advance()


def _encode(sink: Any, stream: Any, samples: Any, rate: int) -> None:
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
