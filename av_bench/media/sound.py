"""The sound of one file while it is decoded: its clock, its level, and as much of it as will be asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from av import AudioFrame
from numpy.typing import NDArray

from av_bench.contracts import MediaError, Reason

Block = NDArray[np.float32]  # (channels, samples)

FAR_SECONDS = 3600.0  # a file whose sound or picture jumps this far has a broken clock, not a pause
_GAP_SECONDS = 0.05  # frames further apart than this are separated by silence, not glued together
_WHOLE_BYTES = 256 << 20  # sound that takes more is kept as far as the window needs
_MARGIN_SECONDS = 1.0  # kept after the window: more than any resampling filter reaches
_BLOCK = 1 << 16  # samples of silence made, or of sound looked at, at once


class Sound:
    """Takes decoded frames in order. ``window`` is the number of seconds that will be asked for, None for all.

    Sound is kept whole up to 256 MiB, so that the mean of the file and the filters at its end are what they always
    were; of more than that the window is kept, and the mean is summed up in float64.
    """

    def __init__(self, path: Path, zero: float, window: float | None) -> None:
        self.path = path
        self.rate = 0
        self.samples = 0  # of the whole file
        self.whole = True
        self._zero = zero
        self.window = math.inf if window is None else window  # s
        self._blocks: list[Block] = []
        self._new: list[Block] = []  # not looked at yet
        self._new_samples = 0
        self._peak = 0.0
        self._channels = 0
        self._silence = 0
        self._sum = 0.0  # of the mono mix
        self._finite = True

    @property
    def seconds(self) -> float:
        """Length so far."""
        return self.samples / (self.rate or 1)

    def push(self, frame: AudioFrame) -> None:
        """Take a frame: what lies before second 0 is dropped, a gap is filled with silence. MediaError."""
        block, rate = float_samples(frame), int(frame.sample_rate)
        if self.rate and rate != self.rate:
            raise MediaError(self.path, Reason.UNREADABLE, f"the sample rate changes from {self.rate} to {rate} Hz")
        if self._channels and block.shape[0] != self._channels:
            raise MediaError(self.path, Reason.UNREADABLE, "the number of channels changes inside the file")
        start = self.samples if frame.time is None else round((frame.time - self._zero) * rate)
        gap = start - self.samples
        self.rate = rate
        if gap < 0 and not self.samples:
            block = block[:, min(-gap, block.shape[1]) :]  # before second 0
        elif gap > 0 and (not self.samples or gap > _GAP_SECONDS * rate):
            for silence in self._silent(gap, block.shape[0]):
                self._take(silence)
        self._take(block)

    def _silent(self, samples: int, channels: int) -> Iterator[Block]:
        self._silence += samples
        if self._silence > FAR_SECONDS * self.rate:
            jump = f"its sound jumps from {self.seconds:.1f} s to {self.seconds + samples / self.rate:.1f} s"
            raise MediaError(self.path, Reason.UNREADABLE, f"{jump}: the clock of the file is broken")
        for start in range(0, samples, _BLOCK):
            yield np.zeros((channels, min(_BLOCK, samples - start)), np.float32)

    def _take(self, block: Block) -> None:
        if not block.shape[1]:
            return
        self._channels = block.shape[0]
        self.samples += block.shape[1]
        self._new.append(block)
        self._new_samples += block.shape[1]
        if self._new_samples >= _BLOCK:
            self._look()
        if self.whole:
            self._blocks.append(block)
            if self.window < math.inf:
                self._stay_small(math.ceil((self.window + _MARGIN_SECONDS) * self.rate))

    def _look(self) -> None:
        """Level and mean of the new blocks, together: for a single short frame it costs as much as decoding."""
        if not self._new:
            return
        found = np.concatenate(self._new, axis=1)
        self._finite = self._finite and bool(np.isfinite(found).all())
        self._peak = max(self._peak, float(np.abs(found).max()))
        mono, start = found.mean(axis=0, dtype=np.float64), 0
        for block in self._new:  # summed frame by frame, which the last bits of the mean depend on
            self._sum += float(mono[start : start + block.shape[1]].sum())
            start += block.shape[1]
        self._new, self._new_samples = [], 0

    def _stay_small(self, wanted: int) -> None:
        """Drop what is after the window once the whole takes too much memory."""
        if self.samples > wanted and 4 * self.samples * self._channels > _WHOLE_BYTES:
            self.whole = False
            kept, have = [], 0
            for block in self._blocks:
                kept.append(block[:, : wanted - have])
                have += kept[-1].shape[1]
                if have == wanted:
                    break
            self._blocks = [np.concatenate(kept, axis=1)]

    def tensor(self) -> torch.Tensor:
        """Float32 ``(channels, samples)`` as far as it was kept. MediaError: empty, not-finite."""
        if not self.samples:
            raise MediaError(self.path, Reason.EMPTY, "the audio stream holds no samples")
        self._look()
        if not self._finite:
            raise MediaError(self.path, Reason.NOT_FINITE, "the audio holds NaN or infinite samples")
        return torch.from_numpy(np.concatenate(self._blocks, axis=1))

    @property
    def peak(self) -> float:
        """Largest absolute sample of the whole file."""
        self._look()
        return self._peak

    @property
    def mean(self) -> float:
        """Mean of the mono mix of the whole file."""
        self._look()
        return self._sum / max(self.samples, 1)


def float_samples(frame: AudioFrame) -> Block:
    """An audio frame as float32 ``(channels, samples)``; integers are divided by their full scale."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint8:
        return np.asarray((array.astype(np.float32) - 128.0) / 128.0, dtype=np.float32)
    if np.issubdtype(array.dtype, np.integer):
        return np.asarray(array / float(2 ** (8 * array.dtype.itemsize - 1)), dtype=np.float32)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
        return np.ascontiguousarray(array, dtype=np.float32)
