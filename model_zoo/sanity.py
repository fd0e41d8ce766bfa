"""Generators that need no network: ceilings, floors and known damage.

``oracle`` is the reference audio (the ceiling), optionally damaged. ``shuffled`` is another clip's reference audio: the
floor of the paired metrics only, since FD and IS see the same recordings. ``noise`` is level-matched white noise, the
floor of FD and IS. ``silence`` is digital zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from av_bench.contracts import Clip, ClipSet, Generated, Generator, MediaError, Reason, UsageError, clip_seed
from av_bench.media.decode import DecodedMedia, decode
from model_zoo.options import ORACLE


class _FromReference(Generator):
    """Shared by all: takes a clip's reference audio, cut to the window, and turns it into a sample."""

    small = True

    def __init__(self) -> None:
        self.seconds = 0.0

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Remember the window; refuse sets without reference audio."""
        del seed
        self.seconds = seconds
        if all(clip.reference_audio is None for clip in clips.clips):
            raise UsageError(f"model {self.name} is made from the reference audio, and set {clips.name} has none")

    def source(self, clip: Clip) -> Clip:
        """The clip whose audio is used."""
        return clip

    def change(self, audio: torch.Tensor, sample_rate: int, seed: int) -> torch.Tensor:
        """``(channels, samples)`` -> ``(channels, samples)``."""
        del sample_rate, seed
        return audio

    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """One sample per clip and k; a clip whose source cannot be read yields the reason."""
        for clip in clips:
            source = self.source(clip).reference_audio
            try:
                media = self._decode(source, clip)
            except MediaError as error:
                for k in range(samples):
                    yield Generated(clip.id, k, reason=Reason.GENERATOR_FAILED, detail=str(error))
                continue
            audio = media.channels(media.sample_rate, self.seconds)
            for k in range(samples):
                changed = self.change(audio.clone(), media.sample_rate, clip_seed(seed, clip.id, k))
                yield Generated(clip.id, k, changed, media.sample_rate)

    def _decode(self, source: Path | None, clip: Clip) -> DecodedMedia:
        if source is None:
            raise MediaError(clip.id, Reason.NO_AUDIO, "the clip has no reference audio")
        media = decode(source, window=self.seconds)
        if media.audio is None:
            raise MediaError(source, Reason.NO_AUDIO, "the file has no audio stream")
        return media


class Oracle(_FromReference):
    """The reference audio itself, optionally damaged (see ``options``)."""

    name = "oracle"
    options: ClassVar[Mapping[str, str]] = ORACLE

    def __init__(
        self,
        shift: float = 0.0,
        lowpass: float | None = None,
        gain: float = 0.0,
        noise: float | None = None,
        mix: float | None = None,
    ) -> None:
        super().__init__()
        for key, value in {"shift": shift, "lowpass": lowpass, "gain": gain, "noise": noise, "mix": mix}.items():
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise UsageError(f"model oracle: {key} must be a number, got {value!r}")
        self.shift, self.lowpass, self.gain, self.noise, self.mix = shift, lowpass, gain, noise, mix
        self.is_reference = not (shift or lowpass or gain or noise is not None or mix)

    def change(self, audio: torch.Tensor, sample_rate: int, seed: int) -> torch.Tensor:
        """Apply the damages in the order mix, low-pass, noise, shift, gain."""
        if self.mix is not None:
            audio = audio + _delayed(audio, round(self.mix * sample_rate))
        if self.lowpass is not None:
            audio = _lowpassed(audio, self.lowpass, sample_rate)
        if self.noise is not None:
            audio = audio + _white(audio, seed) * 10 ** (self.noise / 20)
        if self.shift:
            audio = _delayed(audio, round(self.shift * sample_rate))
        return audio * 10 ** (self.gain / 20)


class Shuffled(_FromReference):
    """Another clip's reference audio: a seeded derangement of the list that avoids clips of the same recording."""

    name = "shuffled"

    def __init__(self) -> None:
        super().__init__()
        self.partner: dict[str, Clip] = {}

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Draw the derangement over the whole list."""
        super().setup(clips, seconds, seed)
        if len(clips.clips) < 2:
            raise UsageError("model shuffled needs at least two clips: there is no other clip to take the audio from")
        order = derangement([clip.cluster for clip in clips.clips], clip_seed(seed, "derangement"))
        self.partner = {clip.id: clips.clips[j] for clip, j in zip(clips.clips, order, strict=True)}

    def source(self, clip: Clip) -> Clip:
        """The partner."""
        return self.partner[clip.id]


class Noise(_FromReference):
    """White noise with the RMS of the clip's reference audio, its rate and channels."""

    name = "noise"

    def change(self, audio: torch.Tensor, sample_rate: int, seed: int) -> torch.Tensor:
        """Replace the audio by noise."""
        del sample_rate
        return _white(audio, seed)


class Silence(_FromReference):
    """Digital zero, as long as the reference audio."""

    name = "silence"

    def change(self, audio: torch.Tensor, sample_rate: int, seed: int) -> torch.Tensor:
        """Replace the audio by zeros."""
        del sample_rate, seed
        return torch.zeros_like(audio)


def derangement(clusters: Sequence[str], seed: int) -> list[int]:
    """Permutation without fixed points, and, where possible, without a partner of the same cluster.

    Shuffles, then repairs each offending position by a swap with a later one that fits both.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    count = len(clusters)
    order = [int(i) for i in rng.permutation(count)]

    def fits(i: int, j: int, strict: bool) -> bool:
        return i != j and (not strict or clusters[i] != clusters[j])

    for strict in (True, False):
        for i in range(count):
            if fits(i, order[i], strict):
                continue
            for step in range(1, count):
                other = (i + step) % count
                if fits(i, order[other], strict) and fits(other, order[i], strict):
                    order[i], order[other] = order[other], order[i]
                    break
    return order


def _white(audio: torch.Tensor, seed: int) -> torch.Tensor:
    """White noise of the audio's shape and RMS."""
    rng = np.random.Generator(np.random.PCG64(seed))
    noise = torch.from_numpy(rng.standard_normal(tuple(audio.shape), dtype=np.float32))
    return noise * audio.square().mean().sqrt()


def _delayed(audio: torch.Tensor, samples: int) -> torch.Tensor:
    """Shift by ``samples`` (positive: later), zeros move in, the length stays."""
    out = torch.zeros_like(audio)
    count = audio.shape[1]
    if abs(samples) >= count:
        return out
    if samples >= 0:
        out[:, samples:] = audio[:, : count - samples]
    else:
        out[:, :samples] = audio[:, -samples:]
    return out


def _lowpassed(audio: torch.Tensor, cutoff: float, sample_rate: int) -> torch.Tensor:
    from scipy.signal import butter, sosfiltfilt

    if not 0 < cutoff < sample_rate / 2:
        raise UsageError(f"model oracle: lowpass must lie between 0 and {sample_rate / 2:g} Hz, got {cutoff:g}")
    sections = butter(4, cutoff, fs=sample_rate, output="sos")  # forward and backward: 8th order in all
    return torch.from_numpy(np.ascontiguousarray(sosfiltfilt(sections, audio.numpy()), dtype=np.float32))
