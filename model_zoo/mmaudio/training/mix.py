"""The training mix: which samples make batch number ``step``, and every random number they get.

Both are functions of (seed, step, position in the global batch). There is no sampler state and no random state to save:
resuming, and spreading a batch over any number of processes or loader threads, cannot change a sample.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import UsageError
from model_zoo.mmaudio.features.read import FeatureSet, Ints, Rows, empty_rows
from model_zoo.mmaudio.training.exclusion import Exclusion

log = logging.getLogger(__name__)
_SHUFFLE, _TRAIN, _VALIDATION = 0, 1, 2  # third word of the key: streams that must not meet


@dataclass(frozen=True)
class Source:
    """One feature folder of the mix.

    ``repeat``: copies per epoch (paper, appendix H: 5x VGGSound for small, 3x for medium and large). ``share``: part of
    the recordings that is used (Table 5), chosen by a hash of their id. ``crops``: at most this many of a recording.
    ``video`` or ``text`` False: that modality is hidden for every sample (Table 4).
    """

    path: str
    repeat: int = 1
    share: float = 1.0
    crops: int | None = None
    video: bool = True
    text: bool = True

    def __post_init__(self) -> None:
        if self.repeat < 1 or not 0 < self.share <= 1 or (self.crops is not None and self.crops < 1):
            given = f"repeat {self.repeat}, share {self.share}, crops {self.crops}"
            raise UsageError(f"source {self.path}: {given}; repeat and crops must be at least 1, share in (0, 1]")

    def rows(self, features: FeatureSet, exclusion: Exclusion | None = None) -> Ints:
        """Rows of the folder that this source uses; how many ``exclusion`` took is logged."""
        exclusion = exclusion or Exclusion()
        taken = [key in exclusion for key in features.ids]
        used = [
            row
            for row, (key, crop) in enumerate(zip(features.ids, features.crops, strict=True))
            if (self.crops is None or crop < self.crops) and (self.share >= 1 or _unit_hash(key) < self.share)
        ]
        kept = [row for row in used if not taken[row]]
        if exclusion.names:
            log.warning("source %s: %d of %d samples left out by name", self.path, len(used) - len(kept), len(used))
        if not kept:
            raise UsageError(
                f"source {self.path}: share {self.share}, crops {self.crops} and {len(exclusion.names)} excluded names "
                "leave no sample"
            )
        return np.array(kept, dtype=np.int64)


def _unit_hash(key: str) -> float:
    """A number in [0, 1) that depends on the id alone: smaller shares are subsets of larger ones."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


@dataclass
class Batch:
    """What one step trains on. ``eps`` and ``noise`` (B, N, C), ``t`` (B,), the drop masks (B,) bool.

    ``eps`` resamples the VAE posterior, ``noise`` is the flow's start; True in a mask hides the modality.
    """

    rows: Rows
    eps: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    drop_video: torch.Tensor
    drop_text: torch.Tensor

    def __len__(self) -> int:
        return len(self.t)

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return self._map(lambda value: value.to(device, non_blocking=True), self.rows.to(device))

    def pin(self) -> Batch:
        """In page-locked memory, for copies that do not wait."""
        return self._map(lambda value: value.pin_memory(), self.rows.pin())

    def split(self, parts: int) -> list[Batch]:
        """Equal slices, without copying."""
        size = len(self) // parts
        cuts = [slice(k * size, (k + 1) * size) for k in range(parts)]
        return [
            self._map(
                itemgetter(cut),
                Rows(**{name: value[cut] for name, value in vars(self.rows).items()}),
            )
            for cut in cuts
        ]

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor], rows: Rows) -> Batch:
        names = ("eps", "noise", "t", "drop_video", "drop_text")
        return replace(self, rows=rows, **{name: change(vars(self)[name]) for name in names})


@dataclass(frozen=True)
class Dropout:
    """Chance that a sample loses its video (clip and sync together) and, independently, its text (paper, 3.5.2)."""

    video: float = 0.1
    text: float = 0.1


class Mix:
    """Several sources shuffled together.

    ``shapes`` (array name -> shape of a row) is what the network wants; every source is checked against it.
    ``excluded`` are names as an audit writes them (``exclusion``); UsageError when no sample has any of them.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, FeatureSet]],
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
        excluded: Collection[str] = (),
    ) -> None:
        self.seed, self.shapes = seed, dict(shapes)
        self.sources = list(sources)
        for source, features in self.sources:
            _check_shapes(source, features, self.shapes)
        kinds = {features.dtype for _, features in self.sources}
        self._dtype = torch.bfloat16 if kinds == {"bf16"} else torch.float32
        if len(kinds) > 1:
            raise UsageError(f"the sources are stored in different types ({', '.join(sorted(kinds))}); store all alike")
        exclusion = Exclusion(excluded)
        rows = [source.rows(features, exclusion) for source, features in self.sources]
        exclusion.check([features.ids[0] for _, features in self.sources])
        copies = [np.tile(r, source.repeat) for r, (source, _) in zip(rows, self.sources, strict=True)]
        self._row = np.concatenate(copies)
        self._source = np.repeat(np.arange(len(copies)), [len(c) for c in copies])
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        """Samples per epoch, copies counted."""
        return len(self._row)

    def steps_per_epoch(self, batch: int) -> int:
        """Whole batches in an epoch; what is left over is dropped, another remainder each epoch."""
        if len(self) < batch:
            raise UsageError(f"the mix holds {len(self)} samples, a batch wants {batch}; lower batch or raise repeat")
        return len(self) // batch

    def chosen(self, step: int, batch: int) -> Ints:
        """Numbers (batch,) of the samples of global batch ``step``."""
        epoch, place = divmod(step, self.steps_per_epoch(batch))
        return self._order(epoch)[place * batch : (place + 1) * batch]

    def batch(self, step: int, batch: int, dropout: Dropout, rank: int = 0, world: int = 1) -> Batch:
        """The part of global batch ``step`` that process ``rank`` of ``world`` trains on."""
        size = batch // world
        positions = np.arange(rank * size, (rank + 1) * size)
        chosen = self.chosen(step, batch)[positions]
        order = np.lexsort((self._row[chosen], self._source[chosen]))  # read each source front to back
        return self._assemble(chosen[order], positions[order], (step, _TRAIN), dropout)

    def fixed(self, first: int, last: int) -> Batch:
        """Samples ``first`` to ``last`` in stored order, with random numbers that depend on their place alone."""
        places = np.arange(first, last)
        return self._assemble(places, places, (0, _VALIDATION), Dropout(0.0, 0.0))

    def _assemble(self, chosen: Ints, positions: Ints, stream: tuple[int, int], dropout: Dropout) -> Batch:
        rows = empty_rows(len(chosen), self.shapes, self._dtype)
        hidden = np.zeros((len(chosen), 2), dtype=np.bool_)
        owner = self._source[chosen]
        for number in np.unique(owner):
            source, features = self.sources[number]
            first, last = int(np.searchsorted(owner, number)), int(np.searchsorted(owner, number, side="right"))
            features.read(self._row[chosen[first:last]], _window(rows, first, last))
            hidden[first:last] = (not source.video, not source.text)
        missing = np.stack([~rows.video.numpy(), ~rows.has_text.numpy()], axis=1)
        draws = draw(self.seed, stream, positions, self.shapes["mean"])
        masks = draws.uniform < (dropout.video, dropout.text)
        drop = torch.from_numpy(missing | hidden | masks)
        return Batch(rows, draws.eps, draws.noise, draws.t, drop[:, 0].contiguous(), drop[:, 1].contiguous())

    def _shuffled(self, epoch: int) -> Ints:
        return _stream(self.seed, (epoch, _SHUFFLE), 0).permutation(len(self))


def _window(rows: Rows, first: int, last: int) -> Rows:
    return Rows(**{name: value[first:last] for name, value in vars(rows).items()})


def _check_shapes(source: Source, features: FeatureSet, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in features.shapes.items():
        if shape != shapes[name]:
            raise UsageError(
                f"source {source.path}: {name} is {shape}, the network of this config wants {shapes[name]}; "
                "use features extracted for this variant and length"
            )


@dataclass
class Draws:
    """Random numbers of a batch: normal eps and noise (B, N, C), logit-normal t (B,), uniform (B, 2)."""

    eps: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    uniform: NDArray[np.float64]


def _stream(seed: int, stream: tuple[int, int], position: int) -> np.random.Generator:
    """A counter-based generator: its key is (seed, step or epoch), its counter starts at (stream, position)."""
    number, kind = stream
    return np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, kind, position]))


def draw(seed: int, stream: tuple[int, int], positions: Ints, shape: tuple[int, ...]) -> Draws:
    """All random numbers of the samples at ``positions``; t = sigmoid of a normal (logit-normal, mean 0, scale 1)."""
    eps = np.empty((len(positions), *shape), dtype=np.float32)
    noise = np.empty_like(eps)
    logits, uniform = np.empty(len(positions), dtype=np.float32), np.empty((len(positions), 2))
    for row, position in enumerate(positions):
        rng = _stream(seed, stream, int(position))
        logits[row] = rng.standard_normal(dtype=np.float32)
        uniform[row] = rng.random(2)
        rng.standard_normal(out=eps[row], dtype=np.float32)
        rng.standard_normal(out=noise[row], dtype=np.float32)
    t = torch.sigmoid(torch.from_numpy(logits))
    return Draws(torch.from_numpy(eps), torch.from_numpy(noise), t, uniform)


class Pinned(Protocol):
    """What a loader prepares."""

    def pin(self) -> Self:
        """In page-locked memory."""


P = TypeVar("P", bound=Pinned)


class Loader(Generic[P]):
    """Batches in order, prepared ahead by ``threads`` threads (0: made when asked for)."""

    def __init__(self, make: Callable[[int], P], threads: int, pin: bool = False) -> None:
        self._make, self._pin, self._ahead = make, pin, 2 * threads
        self._pool = ThreadPoolExecutor(threads, "batches") if threads else None
        self._coming: dict[int, Future[P]] = {}

    def __call__(self, step: int) -> P:
        """Batch of ``step``."""
        if self._pool is None:
            return self._prepare(step)
        for ahead in range(step, step + self._ahead + 1):
            if ahead not in self._coming:
                self._coming[ahead] = self._pool.submit(self._prepare, ahead)
        return self._coming.pop(step).result()

    def _prepare(self, step: int) -> P:
        batch = self._make(step)
        return batch.pin() if self._pin else batch

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
