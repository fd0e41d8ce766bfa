"""Fingerprints of one media file: Chromaprint for the sound, a perceptual hash over time for the picture.

Sound: Chromaprint (32 bits every 0.124 s, each from about 2.6 s of sound), computed by the FFmpeg that the package
``imageio-ffmpeg`` carries. Chromaprint looks at chroma, so codecs, loudness and equalisation hardly move it.

Picture: luminance thumbnails at 8 frames/s. A 64-bit code covers 16 frames (2 s): the signs of the 64 lowest
coefficients of a three-dimensional cosine transform, 4 x 4 in space and the frequencies 1 to 4 in time. The constant in
time is left out, so a logo, a static background or a brightness change moves few bits, and what is hashed is the
motion. A second set of codes of the central 85 % lets a cropped copy meet its original.

Where nothing moves, or nothing sounds, there is no code: silence and still pictures match everything.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import MediaError, MissingRequirement, Reason, VideoRequest
from av_bench.media.decode import DecodedMedia, decode

CHROMA_RATE = 11025  # Hz, Chromaprint's own rate: it resamples no further
CHROMA_HOP = 1365 / CHROMA_RATE  # s between codes
CHROMA_SPAN = 2.6  # s of sound behind a code
VIDEO_FPS = 8.0
WINDOW = 16  # frames of a video code
THUMB = 64
CROP = 0.85
_GRID = 32
_QUIET = 10 ** (-60 / 20)  # full scale: below -60 dB RMS there is no sound to recognise
_STILL = 0.06  # grey levels (of 255) of motion below which codec noise would be hashed (a still picture: up to 0.03)
_BLACK = 24
ARRAYS = ("audio", "audio_valid", "video", "video_crop", "video_valid", "weak", "weak_crop")
REQUEST = VideoRequest(VIDEO_FPS, THUMB, "squash")

Codes32 = NDArray[np.uint32]
Codes64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Fingerprint:
    """Codes of one file.

    ``audio`` (n,) uint32 at ``CHROMA_HOP``; ``video`` and ``video_crop`` (m,) uint64, code i starts at frame i of
    ``VIDEO_FPS``; the masks say which codes stand on sound and on motion. Empty arrays where there is no such stream.
    ``seconds`` is the length of (sound, picture).
    """

    audio: Codes32
    audio_valid: NDArray[np.bool_]
    video: Codes64
    video_crop: Codes64
    video_valid: NDArray[np.bool_]
    weak: NDArray[np.uint8]  # (m, 3): the three least certain bits of each video code
    weak_crop: NDArray[np.uint8]
    seconds: tuple[float, float]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)


def read(path: Path) -> tuple[DecodedMedia, bool]:
    """Decode a file for the audit; the second value says whether it has a picture."""
    try:
        return decode(path, [REQUEST]), True
    except MediaError as error:
        if error.reason is not Reason.NO_VIDEO:
            raise
        return decode(path), False


def fingerprint(path: Path) -> Fingerprint:
    """Both fingerprints of a file. Raises MediaError; a missing stream gives empty codes."""
    media, has_video = read(path)
    audio, audio_valid, audio_seconds = np.zeros(0, np.uint32), np.zeros(0, bool), 0.0
    if media.audio is not None:
        wave = media.waveform(CHROMA_RATE, None).numpy()
        audio, audio_valid, audio_seconds = *sound_codes(wave), media.audio_seconds
    thumbs = luminance(media) if has_video else np.zeros((0, THUMB, THUMB), np.float32)
    video, valid, weak = picture_codes(thumbs)
    crop, _, weak_crop = picture_codes(central(thumbs, CROP))
    seconds = (audio_seconds, len(thumbs) / VIDEO_FPS)
    return Fingerprint(audio, audio_valid, video, crop, valid, weak, weak_crop, seconds)


# --------------------------------------------------------------------------- sound


@cache
def ffmpeg() -> str:
    """The FFmpeg binary of imageio-ffmpeg; MissingRequirement without it."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingRequirement(
            "audio fingerprints need the package imageio-ffmpeg (its FFmpeg holds Chromaprint): "
            "pip install 'av-bench[audit]'"
        ) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def sound_codes(wave: NDArray[np.float32]) -> tuple[Codes32, NDArray[np.bool_]]:
    """Chromaprint of mono sound at ``CHROMA_RATE``, and a mask of the codes that stand on audible sound."""
    peak = float(np.abs(wave).max(initial=0.0))
    scaled = wave * (0.9 / peak) if peak > 0 else wave  # quiet sound keeps its bits when it becomes 16-bit
    pcm = np.round(scaled * 32767).astype("<i2")
    command = [ffmpeg(), "-v", "error", "-f", "s16le", "-ar", str(CHROMA_RATE), "-ac", "1", "-i", "pipe:0"]
    done = subprocess.run(
        [*command, "-f", "chromaprint", "-fp_format", "raw", "pipe:1"], input=pcm.tobytes(), capture_output=True
    )
    if done.returncode != 0 and len(wave) > 3 * CHROMA_RATE:
        raise MissingRequirement(f"FFmpeg cannot compute Chromaprint: {done.stderr.decode(errors='replace').strip()}")
    codes = np.frombuffer(done.stdout, "<u4").astype(np.uint32)
    starts = (np.arange(len(codes)) * CHROMA_HOP * CHROMA_RATE).astype(int)
    power = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    ends = np.minimum(starts + int(CHROMA_SPAN * CHROMA_RATE), len(wave))
    rms = np.sqrt((power[ends] - power[starts]) / np.maximum(ends - starts, 1))
    return codes, rms > _QUIET


# --------------------------------------------------------------------------- picture


def luminance(media: DecodedMedia) -> NDArray[np.float32]:
    """Thumbnails ``(frames, THUMB, THUMB)`` in grey levels 0-255, black borders cut away."""
    rgb = media.frames(REQUEST).numpy()
    grey = np.tensordot(rgb.astype(np.float32), np.array([0.299, 0.587, 0.114], np.float32), axes=([1], [0]))
    if not len(grey):
        return np.zeros((0, THUMB, THUMB), np.float32)
    top, bottom = _border(grey.max(axis=(0, 2)))
    left, right = _border(grey.max(axis=(0, 1)))
    if (top, bottom, left, right) == (0, THUMB, 0, THUMB):
        return grey.astype(np.float32)
    return resized(grey[:, top:bottom, left:right], THUMB)


def _border(brightest: NDArray[Any]) -> tuple[int, int]:
    """First and last + 1 line inside black borders. A border is black to a sharp edge; a dark scene has none."""
    bright = np.flatnonzero(brightest > _BLACK)
    if len(bright) < THUMB // 3:
        return 0, THUMB
    first, last = int(bright[0]), int(bright[-1])
    sharp = 2 * _BLACK  # the line after the edge
    top = first if first and brightest[min(first + 1, last)] > sharp else 0
    bottom = last + 1 if last < THUMB - 1 and brightest[max(last - 1, first)] > sharp else THUMB
    return top, bottom


def resized(frames: NDArray[Any], size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Frames ``(n, h, w)`` at ``size`` (both sides, or height and width), antialiased bilinear."""
    import torch

    data = torch.from_numpy(np.ascontiguousarray(frames, np.float32))[:, None]
    out: NDArray[np.float32] = torch.nn.functional.interpolate(data, size, mode="bilinear", antialias=True)[
        :, 0
    ].numpy()
    return out


def central(frames: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The central ``share`` of the frames."""
    margin = round(frames.shape[1] * (1 - share) / 2)
    return frames[:, margin : frames.shape[1] - margin, margin : frames.shape[2] - margin]


@cache
def _cosines(length: int, first: int, count: int) -> NDArray[np.float32]:
    """Rows ``first .. first + count - 1`` of an orthonormal cosine transform, ``(count, length)``."""
    k = np.arange(first, first + count)[:, None]
    basis = np.cos(np.pi * k * (2 * np.arange(length)[None] + 1) / (2 * length)) * np.sqrt(2 / length)
    basis[k[:, 0] == 0] /= np.sqrt(2)
    rounded: NDArray[np.float32] = basis.astype(np.float32)
    return rounded


def picture_codes(thumbs: NDArray[np.float32]) -> tuple[Codes64, NDArray[np.bool_], NDArray[np.uint8]]:
    """Codes ``(m,)``, their mask, and the three weakest bits of each, ``(m, 3)``; m = frames - 15."""
    count = len(thumbs) - WINDOW + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros((0, 3), np.uint8)
    small = resized(thumbs, _GRID)
    space = _cosines(_GRID, 0, 4)
    flat = np.einsum("ui,vj,tij->tuv", space, space, small, optimize=True).reshape(len(small), 16) / _GRID
    windows = np.lib.stride_tricks.sliding_window_view(flat, WINDOW, axis=0)  # (m, 16, WINDOW)
    coefficients = np.einsum("kt,mct->mkc", _cosines(WINDOW, 1, 4), windows).reshape(count, 64) / np.sqrt(WINDOW)
    bits = (coefficients > 0).astype(np.uint64)
    codes: Codes64 = (bits << np.arange(64, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    weak = np.argsort(np.abs(coefficients), axis=1)[:, :3].astype(np.uint8)
    return codes, np.sqrt((coefficients**2).sum(axis=1)) > _STILL, weak
