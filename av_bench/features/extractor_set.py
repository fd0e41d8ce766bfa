"""Extractors of a run: known by fingerprint from the start, built only when a feature is really missing."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench import registry
from av_bench.contracts import (
    Extractor,
    Flavour,
    Modality,
    Need,
    PairExtractor,
    Side,
    UsageError,
    plugin_boundary,
    unknown_name,
)
from av_bench.runtime.cores import torch_threads
from av_bench.runtime.devices import single_precision
from av_bench.runtime.prefetch import prefetch_map

Row = dict[str, NDArray[np.float32]]
Result = TypeVar("Result")
MODALITIES: dict[Side, Modality] = {"reference": "audio", "generated": "audio", "video": "video", "text": "text"}


def pair_fingerprint(name: str, *parts: str) -> str:
    """Fingerprint of a pair extractor from its network's and those of its video and audio inputs."""
    return f"{name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


class ExtractorSet:
    """All extractors a set of needs asks for, by name; those that take two media (pairs) bring their inputs along."""

    def __init__(self, needs: Iterable[Need], device: str, flavour: Flavour) -> None:
        self.device, self.flavour = device, flavour
        self._singles: dict[str, type[Extractor]] = {}
        self._pairs: dict[str, type[PairExtractor]] = {}
        self._built: dict[str, Extractor | PairExtractor] = {}
        self._fingerprints: dict[str, str] = {}
        self.sides: dict[str, set[str]] = {}
        for need in needs:
            self._add(need)

    def _add(self, need: Need) -> None:
        """Register the extractor of a need; UsageError when it has no such output or cannot run on that side."""
        name = need.extractor
        if name not in self._singles and name not in self._pairs:
            cls = registry.load("extractors", name)
            if issubclass(cls, PairExtractor):
                self._pairs[name] = cls
            else:
                self._singles[name] = cls
        self.sides.setdefault(name, set()).add(need.side)
        if name in self._pairs:
            self._check_output(need, self._pairs[name])
            if need.side not in ("generated", "reference"):
                raise UsageError(f"extractor {name} compares a video with audio; side {need.side!r} makes no sense")
            for inner in self.inputs_of(need):
                self._add(inner)
            return
        single = self._singles[name]
        self._check_output(need, single)
        if single.modality != MODALITIES[need.side]:
            raise UsageError(
                f"extractor {name} takes {single.modality}, and side {need.side!r} is {MODALITIES[need.side]}"
            )

    @staticmethod
    def _check_output(need: Need, cls: type[Extractor] | type[PairExtractor]) -> None:
        if need.output not in cls.outputs:
            raise UsageError(f"extractor {need.extractor}: {unknown_name('output', need.output, cls.outputs)}")

    def inputs_of(self, need: Need) -> tuple[Need, ...]:
        """The needs of a pair extractor's inputs, video first; none for other extractors."""
        cls = self._pairs.get(need.extractor)
        if cls is None:
            return ()
        return Need(cls.video, cls.video_output, "video"), Need(cls.audio, cls.audio_output, need.side)

    def is_pair(self, name: str) -> bool:
        """Whether the extractor takes features of two media."""
        return name in self._pairs

    @property
    def names(self) -> list[str]:
        """All extractors, sorted."""
        return sorted({*self._singles, *self._pairs})

    def of(self, side: str) -> list[str]:
        """Single-medium extractors that run on a side."""
        return [n for n in sorted(self._singles) if side in self.sides[n]]

    def pairs(self, side: str) -> list[str]:
        """Pair extractors whose audio comes from a side."""
        return [n for n in sorted(self._pairs) if side in self.sides[n]]

    def pair_class(self, name: str) -> type[PairExtractor]:
        """The class of a pair extractor, for its declarations."""
        return self._pairs[name]

    def _cls(self, name: str) -> type[Extractor] | type[PairExtractor]:
        return self._singles[name] if name in self._singles else self._pairs[name]

    @property
    def shortest(self) -> float:
        """Seconds that every network can take."""
        return max((cls.shortest for cls in self._singles.values()), default=0.0)

    def check(self, seconds: float) -> None:
        """What can be known before anything is built: weights are there (MissingRequirement), and the protocol's
        ``seconds`` are enough (UsageError)."""
        for name in self.names:
            if name in self._singles:
                self._singles[name].check_seconds(seconds)
            self.fingerprint(name)

    def fingerprint(self, name: str) -> str:
        """Without building the network. Raises MissingRequirement when the weights are absent."""
        if name not in self._fingerprints:
            cls = self._cls(name)
            with named_plugin(name):
                digest = cls.weights_hash_of(None)
                self._fingerprints[name] = cls.fingerprint_for(digest, self.device, self.flavour)
        return self._fingerprints[name]

    def pair_fingerprint(self, name: str) -> str:
        """Fingerprint of a pair extractor together with those of its inputs."""
        cls = self._pairs[name]
        return pair_fingerprint(name, *(self.fingerprint(n) for n in (name, cls.video, cls.audio)))

    def fingerprints(self, name: str) -> set[str]:
        """The fingerprint on every kind of device: the same network to rounding."""
        cls = self._cls(name)
        return {cls.fingerprint_for(cls.weights_hash_of(None), d, self.flavour) for d in ("cpu", "cuda")}

    def single(self, name: str) -> Extractor:
        """A single-medium extractor, built on first use."""
        found = self._build(name, self._singles[name].build)
        assert isinstance(found, Extractor)
        return found

    def pair(self, name: str) -> PairExtractor:
        """A pair extractor, built on first use."""
        found = self._build(name, self._pairs[name].build)
        assert isinstance(found, PairExtractor)
        return found

    def _build(
        self, name: str, build: Callable[..., Extractor] | Callable[..., PairExtractor]
    ) -> Extractor | PairExtractor:
        if name not in self._built:
            with named_plugin(name):
                self._built[name] = build(None, device=self.device, flavour=self.flavour)
        return self._built[name]

    def release(self, *finished: str) -> None:
        """Forget the networks that only the finished sides needed; asked for again, they are built again."""
        self.forget([n for n in self._built if self.sides[n] <= set(finished)])

    def forget(self, names: Sequence[str]) -> None:
        """Take networks out of memory."""
        for name in names:
            self._built.pop(name, None)

    def run(
        self, extractor: Extractor, items: Sequence[torch.Tensor], clips: Sequence[str], workers: int = 1
    ) -> Iterator[Row]:
        """Rows of prepared inputs, in order; ``clips`` are their ids, for the message when the extractor fails.

        On a CPU each item is a batch of its own, and ``workers`` of them run at once on one thread each when the
        extractor is of small operations.
        """
        if extractor.device.type != "cpu":
            yield from self._with_room(extractor, partial(extractor.run, items), clips)
            return

        def alone(job: tuple[torch.Tensor, str]) -> list[Row]:
            return self._with_room(extractor, partial(extractor.run, [job[0]]), [job[1]])

        jobs = list(zip(items, clips, strict=True))
        if not extractor.small:
            for rows in map(alone, jobs):
                yield from rows
            return
        with torch_threads(1):
            several = workers > 1 and len(jobs) > 1
            for rows in prefetch_map(alone, jobs, workers, 2 * workers) if several else map(alone, jobs):
                yield from rows

    def run_pair(
        self,
        extractor: PairExtractor,
        video: Sequence[NDArray[np.float32]],
        audio: Sequence[NDArray[np.float32]],
        clips: Sequence[str],
    ) -> list[Row]:
        """Rows of aligned pairs."""
        if extractor.device.type == "cpu":
            triples = zip(video, audio, clips, strict=True)
            rows = (self._with_room(extractor, partial(extractor.run, [v], [a]), [c]) for v, a, c in triples)
            with torch_threads(1) if extractor.small else contextlib.nullcontext():
                return [row for found in rows for row in found]
        return self._with_room(extractor, partial(extractor.run, video, audio), clips)

    def _with_room(
        self, extractor: Extractor | PairExtractor, work: Callable[[], Result], clips: Sequence[str]
    ) -> Result:
        """``work()``; if the device is full even for one item, again with the other networks moved off it."""
        with contextlib.suppress(torch.cuda.OutOfMemoryError), named_plugin(extractor.name, clips), single_precision():
            return work()
        # Here, where the error has let go of all that the failed pass had made.
        modules = [e.module for e in self._built.values() if e is not extractor and e.module is not None]
        for module in modules:
            module.cpu()
        torch.cuda.empty_cache()
        try:
            with named_plugin(extractor.name, clips), single_precision():
                return work()
        finally:
            for module in modules:
                module.to(self.device)


def named_plugin(name: str, clips: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Give an unexpected exception of an extractor its name, its package and the clips it was working on."""
    where = f", clip {', '.join(clips[:3])}{' ...' if len(clips) > 3 else ''}" if clips else ""
    return plugin_boundary(f"extractor {name} ({registry.origin('extractors', name)}){where}")
