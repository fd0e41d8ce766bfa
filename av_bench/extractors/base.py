"""What every extractor shares: fingerprint, batching, out-of-memory halving, and ``features`` for files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import Decoded, Flavour, MetricError, Modality, UsageError, VideoRequest
from av_bench.media.decode import decode
from av_bench.runtime.devices import single_precision
from av_bench.weights.fill import Weights, weights_hash


class BaseExtractor:
    """A network with its front end. Subclasses set the class variables and write ``build``, ``prepare``, ``forward``.

    ``fingerprint`` covers name, front-end version, weights hash, precision and flavour: any of them changed means
    other features, so nothing old is reused.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality] = "audio"
    outputs: ClassVar[Mapping[str, str]]
    weights_name: ClassVar[str] = ""  # entry of the weights lock file; "" for extractors without weights
    front_end_version: ClassVar[int] = 1
    flavour_matters: ClassVar[bool] = False
    video_request: ClassVar[VideoRequest | None] = None
    shortest: ClassVar[float] = 0.0  # seconds that a protocol must score at least
    batch_size: int = 16

    def __init__(
        self,
        module: torch.nn.Module | None,
        weights_hash: str,
        device: str = "cpu",
        flavour: Flavour = "paper",
    ) -> None:
        self.module = module.to(device).eval().requires_grad_(False) if module is not None else None
        self.weights_hash = weights_hash
        self.device = torch.device(device)
        self.flavour: Flavour = flavour

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> BaseExtractor:
        """Build the network and load ``weights`` (see ``av_bench.extractors.load``)."""
        raise NotImplementedError

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the weights that ``build(weights)`` would load, without building."""
        return weights_hash(weights, cls.weights_name)

    @classmethod
    def fingerprint_for(cls, weights_hash: str, device: str, flavour: Flavour) -> str:
        """The fingerprint of an extractor that need not be built yet. Networks always run in full float32."""
        parts: list[Any] = [cls.name, cls.front_end_version, weights_hash, "fp32", torch.device(device).type]
        if cls.flavour_matters:
            parts.append(flavour)
        return f"{cls.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    @classmethod
    def check_seconds(cls, seconds: float) -> None:
        """UsageError when a protocol of this many seconds gives the network less than it was trained on."""
        if seconds < cls.shortest:
            trained = f"{cls.name} was trained on windows of {cls.shortest:g} s"
            raise UsageError(f"{trained}, the protocol scores {seconds:g} s")

    @property
    def fingerprint(self) -> str:
        """Name and 16 hex digits."""
        return self.fingerprint_for(self.weights_hash, str(self.device), self.flavour)

    def prepare(self, item: Any, seconds: float) -> torch.Tensor:
        """One ``Decoded`` (or a text) -> network input without batch axis, on the CPU."""
        raise NotImplementedError

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` on ``self.device`` -> named outputs ``(B, ...)``."""
        raise NotImplementedError

    def run(self, items: Sequence[torch.Tensor]) -> list[dict[str, NDArray[np.float32]]]:
        """Prepared inputs -> one dict of arrays per item.

        On a CPU each item is a batch of its own: features then do not depend, not even in the last bit, on the company
        a clip was in, and little speed is lost. On a GPU the items run together, shape by shape, and the batch is
        halved on out-of-memory.
        """
        if self.device.type == "cpu":
            rows = (self._run_batch(item[None]) for item in items)
            return [{key: value[0] for key, value in row.items()} for row in rows]
        done: dict[int, dict[str, NDArray[np.float32]]] = {}
        shapes = dict.fromkeys(tuple(item.shape) for item in items)
        for shape in shapes:
            members = [i for i, item in enumerate(items) if tuple(item.shape) == shape]
            outputs = self._run_batch(torch.stack([items[i] for i in members]))
            for j, i in enumerate(members):
                done[i] = {key: value[j] for key, value in outputs.items()}
        return [done[i] for i in range(len(items))]

    def _run_batch(self, batch: torch.Tensor) -> dict[str, NDArray[np.float32]]:
        outputs = None
        try:
            with torch.inference_mode(), single_precision():
                outputs = self.forward(batch.to(self.device))
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
        if outputs is None:  # not within the handler: until it ends, the error keeps all that the failed pass had made
            torch.cuda.empty_cache()
            half = (len(batch) + 1) // 2
            first, second = self._run_batch(batch[:half]), self._run_batch(batch[half:])
            return {key: np.concatenate([first[key], second[key]]) for key in first}
        return {key: value.float().cpu().numpy() for key, value in outputs.items()}

    def features(self, paths: Sequence[Path | str], seconds: float) -> dict[str, NDArray[np.float32]]:
        """Media files (texts for a text extractor) -> arrays with one row per file, in the order given."""
        if not paths:
            raise UsageError(f"{self.name}: features() was called with no files")
        rows: list[dict[str, NDArray[np.float32]]] = []
        for start in range(0, len(paths), self.batch_size):
            items = [self.prepare(self._item(p, seconds), seconds) for p in paths[start : start + self.batch_size]]
            rows.extend(self.run(items))
        try:
            return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        except ValueError as error:
            detail = f"{self.name}: files gave features of different shapes ({error}); cut them to one length"
            raise MetricError(detail) from error

    def _item(self, path: Path | str, seconds: float) -> Decoded | str:
        if self.modality == "text":
            return str(path)
        requests = [self.video_request] if self.video_request is not None else []
        return decode(path, requests, seconds, audio=self.modality == "audio")


class BasePairExtractor:
    """Features of two media in, features of the pair out. Subclasses write ``build`` and ``forward``."""

    name: ClassVar[str]
    video: ClassVar[str]  # extractors whose ``tokens`` output is read
    audio: ClassVar[str]
    outputs: ClassVar[Mapping[str, str]]
    weights_name: ClassVar[str] = ""
    batch_size: int = 32

    def __init__(self, module: torch.nn.Module, weights_hash: str, device: str = "cpu") -> None:
        self.module = module.to(device).eval().requires_grad_(False)
        self.weights_hash = weights_hash
        self.device = torch.device(device)

    @classmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> BasePairExtractor:
        """Build the head and load ``weights``."""
        raise NotImplementedError

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the weights that ``build(weights)`` would load, without building."""
        return weights_hash(weights, cls.weights_name)

    @classmethod
    def fingerprint_for(cls, weights_hash: str, device: str, flavour: Flavour) -> str:
        """As for an extractor; flavour counts because it changes what goes in."""
        parts = [cls.name, weights_hash, "fp32", torch.device(device).type, flavour]
        return f"{cls.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` token features of both media -> named outputs ``(B, ...)``."""
        raise NotImplementedError

    def run(
        self, video: Sequence[NDArray[np.float32]], audio: Sequence[NDArray[np.float32]]
    ) -> list[dict[str, NDArray[np.float32]]]:
        """Aligned lists of token features -> one dict of arrays per pair; on a CPU pair by pair, as extractors do."""
        if self.device.type == "cpu" and len(video) > 1:
            return [row for v, a in zip(video, audio, strict=True) for row in self.run([v], [a])]
        with torch.inference_mode(), single_precision():
            first = torch.from_numpy(np.stack(video)).to(self.device)
            second = torch.from_numpy(np.stack(audio)).to(self.device)
            outputs = {key: value.float().cpu().numpy() for key, value in self.forward(first, second).items()}
        return [{key: value[i] for key, value in outputs.items()} for i in range(len(video))]
