"""What the harness checks in every file a foreign generator hands over."""

from __future__ import annotations

import io
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import SILENCE_PEAK, MediaError, Reason
from model_zoo.external.contract import OutputRow

_FORMATS = {"WAV": ".wav", "WAVEX": ".wav", "FLAC": ".flac"}
_SLACK = 0.05  # seconds by which a file may differ from what is declared: codecs and vocoders pad to whole frames
_SAME_LEVEL = 0.05  # dB: files of one model this close in level were made so
_ENOUGH = 4  # files that are not silent before a common level means anything
_AT_MOST = 64


@dataclass(frozen=True)
class Native:
    """What a model gives: rate in Hz, lengths in seconds (``step``: lengths are multiples of it)."""

    rate: int | None = None
    min_s: float | None = None
    max_s: float | None = None
    step_s: float | None = None

    def request(self, seconds: float) -> float | None:
        """The shortest length the model can give that covers ``seconds``, None when it cannot."""
        wanted = max(seconds, self.min_s or 0.0)
        if self.step_s:
            steps = int(np.ceil(round(wanted / self.step_s, 6)))
            wanted = round(steps * self.step_s, 6)
        return None if self.max_s is not None and wanted > self.max_s + 1e-6 else wanted


@dataclass(frozen=True)
class CheckedFile:
    """An accepted file: its bytes as they came, and what they hold."""

    payload: bytes
    suffix: str
    sample_rate: int
    channels: int
    n_samples: int


def check(row: OutputRow, folder: Path, native: Native) -> CheckedFile:
    """The file of an ok row. Raises MediaError: path-escape, missing-file, empty, unreadable, not-finite, wrong-rate,
    wrong-length. (Too short for the protocol and silent are judged where all files are.)
    """
    assert row.path is not None
    payload = _inside(folder, row.path)
    data, rate, suffix = _read(payload, row.path)
    samples, channels = data.shape
    if not np.isfinite(data).all():
        raise MediaError(row.path, Reason.NOT_FINITE, "the file holds NaN or infinite samples")
    if rate != row.sample_rate:
        raise MediaError(row.path, Reason.WRONG_RATE, f"the row says {row.sample_rate} Hz, the file {rate} Hz")
    if native.rate is not None and rate != native.rate:
        raise MediaError(row.path, Reason.WRONG_RATE, f"declared are {native.rate} Hz, the file has {rate} Hz")
    if row.n_samples is not None and row.n_samples != samples:
        raise MediaError(row.path, Reason.WRONG_LENGTH, f"the row says {row.n_samples} samples, the file has {samples}")
    if row.channels is not None and row.channels != channels:
        raise MediaError(
            row.path, Reason.WRONG_LENGTH, f"the row says {row.channels} channels, the file has {channels}"
        )
    if native.max_s is not None and samples / rate > native.max_s + _SLACK:
        detail = f"{samples / rate:.3f} s, the model is declared with at most {native.max_s:g} s"
        raise MediaError(row.path, Reason.WRONG_LENGTH, detail)
    return CheckedFile(payload, suffix, rate, channels, samples)


def _inside(folder: Path, name: str) -> bytes:
    """Bytes of a regular file below ``folder``: no absolute or climbing path, no link on the way."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in parts or "\0" in name:
        raise MediaError(
            name, Reason.PATH_ESCAPE, "paths must be relative to the output folder and must not contain '..'"
        )
    path = folder
    for part in parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise MediaError(name, Reason.MISSING_FILE, f"the row names a file that is not there ({error})") from error
        if stat.S_ISLNK(mode):
            raise MediaError(name, Reason.PATH_ESCAPE, f"{part} is a symbolic link")
    if not stat.S_ISREG(mode):
        raise MediaError(name, Reason.PATH_ESCAPE, "not a regular file")
    payload = path.read_bytes()
    if not payload:
        raise MediaError(name, Reason.EMPTY, "the file has zero bytes")
    return payload


def _read(payload: bytes, name: str) -> tuple[NDArray[np.float32], int, str]:
    """``(samples, channels)``, rate and suffix of a wav or flac file."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(payload)) as handle:
            kind, rate = handle.format, int(handle.samplerate)
            data: NDArray[np.float32] = handle.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise MediaError(name, Reason.UNREADABLE, f"not a wav or flac file: {error}") from error
    if kind not in _FORMATS:
        raise MediaError(name, Reason.UNREADABLE, f"format {kind}; samples must be wav or flac")
    if data.size == 0:
        raise MediaError(name, Reason.EMPTY, "the file holds no samples")
    return data, rate, _FORMATS[kind]


def common_level(paths: Sequence[Path]) -> str | None:
    """Says so when all files have one peak, or one RMS: their loudness was set after generation.

    Looks at the first 64 files in the order given; silent ones tell nothing, and fewer than four are not evidence.
    """
    import soundfile

    peaks, levels = [], []
    for path in paths[:_AT_MOST]:
        data, _ = soundfile.read(path, dtype="float32", always_2d=True)
        peak = float(np.abs(data).max()) if data.size else 0.0
        if peak > SILENCE_PEAK:
            peaks.append(20 * np.log10(peak))
            levels.append(10 * np.log10(float(np.mean(np.square(data, dtype=np.float64)))))
    if len(peaks) < _ENOUGH:
        return None
    for name, values in (("peak", peaks), ("RMS", levels)):
        if max(values) - min(values) < _SAME_LEVEL:
            return f"all {len(values)} files have the same {name} ({np.mean(values):.2f} dBFS)"
    return None
