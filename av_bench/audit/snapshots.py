"""Small pictures for the page of an audit: moments of a video, a spectrogram of its sound, as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from av_bench.audit import sound
from av_bench.audit.shapes import FPS
from av_bench.contracts import MediaError
from av_bench.media.headers import jump, open_recording
from av_bench.media.stream import Wish, stream

if TYPE_CHECKING:
    from av.container import InputContainer

_HEIGHT = 84  # pixels of a moment
_COLUMNS = 480  # of a spectrogram, at most
_QUALITY = 55  # of JPEG
_NEAR_S = 4.0  # a moment less far ahead is reached by decoding on, not by a jump


@lru_cache(maxsize=256)
def moments(path: Path, times: tuple[float, ...]) -> tuple[str, ...]:
    """The frames shown at ``times`` (s, rising) as JPEG; empty when the file has no picture."""
    try:
        with open_recording(path) as container:
            return tuple(_jpeg(frame) for frame in _frames(container, times))
    except (MediaError, av.error.FFmpegError, ValueError, OSError):
        return ()


def _frames(container: InputContainer, times: Sequence[float]) -> Iterator[NDArray[np.uint8]]:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        return
    zero, shown, at = max(0.0, (container.start_time or 0) / av.time_base), None, -1.0
    frames = container.decode(streams[0])
    for time in times:
        if time - at > _NEAR_S:
            jump(container, time + zero)
            frames = container.decode(streams[0])
        while at < time and (frame := next(frames, None)) is not None:
            if frame.pts is not None and frame.time_base is not None:
                shown, at = frame, float(frame.pts * frame.time_base) - zero
        if shown is not None:
            yield _small(shown)


def _small(frame: av.VideoFrame) -> NDArray[np.uint8]:
    width = max(2, round(_HEIGHT * frame.width / frame.height))
    array = frame.reformat(width=width, height=_HEIGHT, format="rgb24").to_ndarray()
    return np.rot90(np.asarray(array, np.uint8), round(frame.rotation / 90) % 4)


@lru_cache(maxsize=64)
def spectrogram(path: Path, begin: float, end: float) -> tuple[str, float, float] | None:
    """Sound of a file from ``begin`` to ``end`` (s) as JPEG, and the seconds it really covers; None without sound."""
    first = np.floor(begin * FPS) / FPS
    pieces: list[NDArray[np.float32]] = []
    wish = Wish(FPS, 8, sound.RATE, float(first), end, picture=False)
    try:
        stream(path, wish, lambda _: None, pieces.append)
    except MediaError:
        return None
    if not pieces:
        return None
    wave = np.concatenate(pieces)
    level = sound.spectrogram(wave)
    usual = max(1, -(-level.shape[1] // _COLUMNS))
    columns = level[:, : max(usual, level.shape[1] // usual * usual)]
    columns = columns.reshape(len(columns), -1, usual).mean(axis=2) if columns.shape[1] % usual == 0 else columns
    return _jpeg(columns[::-1], "magma"), float(first), len(wave) / sound.RATE


def _jpeg(pixels: NDArray[Any], colours: str | None = None) -> str:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="jpg", cmap=colours, pil_kwargs={"quality": _QUALITY})
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
