"""Extractors of a run: known by fingerprint from the start, built only when a feature is really missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from av_bench import registry
from av_bench.contracts import Flavour, Need, UsageError


class Networks:
    """All extractors a set of needs asks for, by name."""

    def __init__(self, needs: Iterable[Need], device: str, flavour: Flavour) -> None:
        self.device, self.flavour = device, flavour
        self._classes: dict[str, Any] = {}
        self._built: dict[str, Any] = {}
        self._fingerprints: dict[str, str] = {}
        self.sides: dict[str, set[str]] = {}
        for need in needs:
            self._add(need.extractor, need.side)

    def _add(self, name: str, side: str) -> None:
        cls = self._classes.setdefault(name, registry.load("extractors", name))
        self.sides.setdefault(name, set()).add(side)
        if self.is_pair(name):
            if side not in ("generated", "reference"):
                raise UsageError(f"extractor {name} compares a video with audio; side {side!r} makes no sense")
            self._add(cls.video, "video")
            self._add(cls.audio, side)

    def is_pair(self, name: str) -> bool:
        """Whether the extractor takes features of two media."""
        return hasattr(self._classes[name], "audio")

    @property
    def names(self) -> list[str]:
        """All extractors, sorted."""
        return sorted(self._classes)

    def of(self, side: str) -> list[str]:
        """Single-medium extractors that run on a side."""
        return [n for n in self.names if side in self.sides[n] and not self.is_pair(n)]

    def pairs(self, side: str) -> list[str]:
        """Pair extractors whose audio comes from a side."""
        return [n for n in self.names if side in self.sides[n] and self.is_pair(n)]

    def cls(self, name: str) -> Any:
        """The class, for its declarations."""
        return self._classes[name]

    def check(self, seconds: float) -> None:
        """What can be known before anything is built: weights are there (MissingRequirement), and the protocol's
        ``seconds`` are enough (UsageError)."""
        for name in self.names:
            if not self.is_pair(name):
                self._classes[name].check_seconds(seconds)
            self.fingerprint(name)

    def fingerprint(self, name: str) -> str:
        """Without building the network. Raises MissingRequirement when the weights are absent."""
        if name not in self._fingerprints:
            cls = self._classes[name]
            self._fingerprints[name] = cls.fingerprint_for(cls.weights_hash_of(None), self.device, self.flavour)
        return self._fingerprints[name]

    def fingerprints(self, name: str) -> set[str]:
        """The fingerprint on every kind of device: the same network to rounding."""
        cls = self._classes[name]
        return {cls.fingerprint_for(cls.weights_hash_of(None), d, self.flavour) for d in ("cpu", "cuda")}

    def built(self, name: str) -> Any:
        """The extractor itself, built on first use."""
        if name not in self._built:
            self._built[name] = self._classes[name].build(None, device=self.device, flavour=self.flavour)
        return self._built[name]

    def release(self, *finished: str) -> None:
        """Forget the networks that only the finished sides needed; asked for again, they are built again."""
        self.forget([n for n in self._built if self.sides[n] <= set(finished)])

    def forget(self, names: Sequence[str]) -> None:
        """Take networks out of memory."""
        for name in names:
            self._built.pop(name, None)

    def run(self, extractor: Any, items: Sequence[torch.Tensor]) -> Any:
        """``extractor.run(items)``; if the device is full even for one item, with the other networks moved off it."""
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return extractor.run(items)
        # Here, where the error has let go of all that the failed pass had made.
        others = [e for e in self._built.values() if e is not extractor and e.module is not None]
        for other in others:
            other.module.cpu()
        torch.cuda.empty_cache()
        try:
            return extractor.run(items)
        finally:
            for other in others:
                other.module.to(other.device)
