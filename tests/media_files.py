"""Real media files for tests, written with PyAV and soundfile."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def numbered_frame(index: int, size: int = 64) -> NDArray[np.uint8]:
    """A frame whose grey level tells its number: four vertical bars hold the base-4 digits of ``index``."""
    frame = np.zeros((size, size, 3), np.uint8)
    bar = size // 4
    for digit in range(4):
        frame[:, digit * bar : (digit + 1) * bar] = 32 + 64 * ((index >> (2 * digit)) & 3)
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """Read back what ``numbered_frame`` wrote, from (height, width, 3)."""
    width = frame.shape[1]
    bar = width // 4
    index = 0
    for digit in range(4):
        level = float(frame[:, digit * bar + bar // 4 : digit * bar + 3 * bar // 4].mean())
        index |= round((level - 32) / 64) << (2 * digit)
    return index


def write_video(
    path: Path,
    *,
    seconds: float = 1.0,
    fps: float = 25,
    size: int = 64,
    audio: NDArray[np.float32] | None = None,
    sample_rate: int = 44_100,
    video_delay: float = 0.0,
    with_video: bool = True,
) -> None:
    """An mp4 of numbered frames with an optional AAC track ``(channels, samples)``."""
    with av.open(str(path), "w") as container:
        stream = None
        if with_video:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast"})
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        sound = None
        if audio is not None:
            layout = "mono" if audio.shape[0] == 1 else "stereo"
            sound = container.add_stream("aac", rate=sample_rate, layout=layout)
            sound.bit_rate = 192_000
        if stream is not None:
            for index in range(round(seconds * fps)):
                frame = av.VideoFrame.from_ndarray(numbered_frame(index, size), format="rgb24")
                frame.pts = index + round(video_delay * fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if sound is not None and audio is not None:
            for start in range(0, audio.shape[1], 1024):
                block = np.ascontiguousarray(audio[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate = sample_rate
                frame.pts = start
                container.mux(sound.encode(frame))
            container.mux(sound.encode())


def tone(seconds: float, sample_rate: int = 44_100, hertz: float = 440.0, channels: int = 1) -> NDArray[np.float32]:
    """A sine ``(channels, samples)`` of amplitude 0.5."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.tile(0.5 * np.sin(2 * np.pi * hertz * time), (channels, 1)).astype(np.float32)
