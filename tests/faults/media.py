"""Small media files that are odd on purpose."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.media_files import number_of, numbered_frame

RATE = 16_000


def frames_of(pictures: Any) -> list[int]:
    """Numbers that ``numbered_frame`` wrote into uint8 ``(n, 3, h, w)``."""
    return [number_of(picture.permute(1, 2, 0).numpy()) for picture in pictures]


def write_wav(
    path: Path,
    samples: NDArray[Any],
    *,
    channels: int = 1,
    rate: int = RATE,
    declared: int | None = None,
    block: int | None = None,
) -> None:
    """A wav of int16, float32 or float64 ``(samples, channels)``, whose header may say anything."""
    body, bits = samples.tobytes(), 8 * samples.itemsize
    block = channels * samples.itemsize if block is None else block
    kind = 3 if samples.dtype.kind == "f" else 1
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * block, block, bits)
    size = len(body) if declared is None else declared
    path.write_bytes(
        struct.pack("<4sI4s", b"RIFF", min(size + 36, 2**32 - 1), b"WAVE")
        + head
        + struct.pack("<4sI", b"data", size)
        + body
    )


def write_film(
    path: Path,
    *,
    seconds: float = 2.0,
    start: float = 0.0,
    sound_start: float | None = None,
    codec: str = "libx264",
    sound: str | None = "aac",
    sizes: Iterable[tuple[float, int, int]] = ((0.0, 64, 64),),
    bframes: int = 0,
    form: str | None = None,
) -> None:
    """Numbered frames at 25 per second and a tone, both stamped from ``start`` (s) on, the sound from ``sound_start``.

    ``sizes`` are (from when, width, height): each part is coded by an encoder of its own into one stream.
    """
    rate, parts = (48_000 if sound == "libopus" else RATE), [*sizes, (seconds, 0, 0)]
    with av.open(str(path), "w", format=form) as sink:
        picture = sink.add_stream(codec, rate=25, width=parts[0][1], height=parts[0][2])
        picture.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            picture.options = {"crf": "12", "x264-params": f"bframes={bframes}:b-adapt=0"}
        elif bframes:
            picture.options = {"bf": str(bframes)}
        tone = sink.add_stream(sound, rate=rate, layout="mono") if sound is not None else None
        for number, ((begin, width, height), (end, _, _)) in enumerate(pairwise(parts)):
            coder: Any = picture
            if number:
                coder = av.CodecContext.create(codec, "w")
                coder.width, coder.height, coder.pix_fmt, coder.time_base = width, height, "yuv420p", Fraction(1, 25)
                coder.options = {"crf": "12", "x264-params": "bframes=0"}
            shown = [_shown(index, width, height) for index in range(round(begin * 25), round(end * 25))]
            for packet in _encoded(coder, shown, round((begin + start) * 25)):
                packet.stream = picture
                sink.mux(packet)
        if tone is not None:
            count = 960 if sound == "libopus" else 1024
            wave = (0.5 * np.sin(np.arange(round(seconds * rate)) * 0.2)).astype(np.float32)
            first = round((start if sound_start is None else sound_start) * rate)
            for at in range(0, len(wave), count):
                frame = av.AudioFrame.from_ndarray(wave[None, at : at + count], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, first + at, Fraction(1, rate)
                sink.mux(tone.encode(frame))
            sink.mux(tone.encode(None))


def _shown(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """``numbered_frame`` of any size; ``width`` is a multiple of 64."""
    row = np.repeat(numbered_frame(index)[:1], width // 64, axis=1)
    return np.repeat(row, height, axis=0)


def _encoded(coder: Any, shown: Iterable[NDArray[np.uint8]], first: int) -> Iterable[Any]:
    for index, array in enumerate(shown):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
        frame.pts, frame.time_base = first + index, Fraction(1, 25)
        yield from coder.encode(frame)
    yield from coder.encode(None)


def empty_every_second_frame(film: Path, target: Path) -> None:
    """Copy the picture so that every second packet is empty, which says "the same picture again" (as in Theora)."""
    with av.open(str(film)) as source, av.open(str(target), "w", format="nut") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for number, coded in enumerate(source.demux(video=0)):
            if coded.pts is None:
                continue
            packet = coded
            if number % 2:
                packet = av.Packet(0)
                packet.pts, packet.dts, packet.duration = coded.pts, coded.dts, coded.duration
                packet.time_base = coded.time_base
            packet.stream = stream
            sink.mux(packet)
