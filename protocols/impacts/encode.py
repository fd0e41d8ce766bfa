"""Frames and sound into an MP4 (H.264 + AAC) and back, the same bytes for the same input on one build of FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import MediaError, Reason, UsageError
from av_bench.runtime.files import atomic_path


class Options(TypedDict, total=False):
    """Choices of the encoder: ``crf`` (x264 quality, 23), ``preset`` (veryfast), ``audio_bitrate`` (160000 bit/s)."""

    crf: int
    preset: str
    audio_bitrate: int


def write_mp4(
    path: Path | str, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int, fps: float,
    **options: Unpack[Options],
) -> Path:  # fmt: skip
    """Writes ``frames`` (n, height, width, 3) and ``audio`` (channels, samples) in [-1, 1]; returns the path.

    Height and width must be even (yuv420p), channels 1 or 2. The file appears under its name only when complete.
    One thread and bit-exact flags keep the bytes reproducible from 64 x 64 pixels on. Of smaller frames (32, 48) x264
    now and then makes other packets, for a reason not known: 1 file in 100 beside other load, none of 1,000 larger
    ones. The AAC encoder's priming is marked in the file's edit list, so that decoders return the sound in place.
    """
    path = Path(path)
    _check(path, frames, audio)
    with atomic_path(path) as part:
        _encode(part, frames, audio, sample_rate, fps, options)
    return path


def _check(path: Path, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
    shaped = frames.ndim == 4 and frames.shape[3] == 3 and frames.dtype == np.uint8
    if not shaped or not frames.size or frames.shape[1] % 2 or frames.shape[2] % 2:
        got = f"{frames.dtype} {frames.shape}"
        raise UsageError(f"{path}: frames are {got}; give uint8 (n, height, width, 3) of even height and width")
    if audio.ndim != 2 or audio.shape[0] not in (1, 2) or not audio.size:
        raise UsageError(f"{path}: audio is {audio.shape}; give (channels, samples) with one or two channels")


def _encode(
    part: Path, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int, fps: float, options: Options
) -> None:
    import av

    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=rate)
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.time_base = 1 / rate
        quality = {"preset": str(options.get("preset", "veryfast")), "crf": str(options.get("crf", 23))}
        video.options = {**quality, "flags": "+bitexact"}
        sound = container.add_stream("aac", rate=sample_rate)
        sound.layout = "stereo" if audio.shape[0] == 2 else "mono"
        sound.bit_rate = options.get("audio_bitrate", 160_000)
        sound.codec_context.thread_count = 1
        # the fast coder takes a quarter of the time and, at this bitrate, stays closer to the waveform
        sound.codec_context.options = {"flags": "+bitexact", "aac_coder": "fast"}
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.ascontiguousarray(audio, np.float32)
        wave = av.AudioFrame.from_ndarray(samples, format="fltp", layout=sound.layout.name)
        wave.sample_rate, wave.pts, wave.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(sound.encode(wave))
        container.mux(sound.encode(None))


def read_mp4(path: Path | str) -> tuple[NDArray[np.uint8], NDArray[np.float32], int, float]:
    """Frames ``(n, height, width, 3)``, audio ``(channels, samples)``, sample rate (Hz) and frame rate of a file.

    For files written here. Raises MediaError when the file cannot be decoded.
    """
    import av

    path = Path(path)
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            video.codec_context.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
            if video.average_rate is None:
                raise MediaError(path, Reason.UNREADABLE, "its pictures have no rate; render or copy it again")
            fps = float(video.average_rate)
        with av.open(str(path)) as container:
            sound = container.streams.audio[0]
            blocks = [frame.to_ndarray() for frame in container.decode(sound)]
            sample_rate = int(sound.rate)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise MediaError(path, Reason.UNREADABLE, f"cannot be decoded ({error}); render or copy it again") from error
    return np.stack(frames), np.concatenate(blocks, axis=1).astype(np.float32), sample_rate, fps
