"""Base classes of extractors: from media or text to named features, and from two features to those of the pair."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from av_bench.contracts.errors import UsageError
from av_bench.contracts.media import Modality, VideoRequest
from av_bench.contracts.metrics import Flavour

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Row = dict[str, NDArray[np.float32]]
    Weights = str | Path | Mapping[str, torch.Tensor] | None

_HEX = 16  # digits of a fingerprint


class Extractor(ABC):
    """Front end and network: one media file, or one text, in; named features out.

    A subclass sets ``name`` and ``outputs`` and writes ``build``, ``prepare`` and ``forward``; every other member has
    the default given here. ``fingerprint`` covers name, front-end version, weights, precision, device type and, where
    ``flavour_matters``, the flavour: when one of them changes, no feature of before is used again. Whoever changes what
    ``prepare`` or ``forward`` give must raise ``front_end_version``.
    """

    name: ClassVar[str]
    outputs: ClassVar[Mapping[str, str]]  # output -> shape in words, e.g. {"embedding": "(B, 768)"}
    modality: ClassVar[Modality] = "audio"
    front_end_version: ClassVar[int] = 1
    flavour_matters: ClassVar[bool] = False
    video_request: ClassVar[VideoRequest | None] = None  # frames wanted, for modality video
    shortest: ClassVar[float] = 0.0  # seconds that a protocol must score at least
    small: ClassVar[bool] = False  # of small operations: on a CPU, several threads call ``forward``, one clip each
    batch_size: int = 16

    def __init__(
        self, module: torch.nn.Module | None, weights_hash: str, device: str = "cpu", flavour: Flavour = "paper"
    ) -> None:
        import torch

        self.module = module.to(device).eval().requires_grad_(False) if module is not None else None
        self.weights_hash = weights_hash
        self.device = torch.device(device)
        self.flavour: Flavour = flavour

    @classmethod
    @abstractmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Build the network and load ``weights``; None means the extractor's own."""

    @abstractmethod
    def prepare(self, item: Any, seconds: float) -> torch.Tensor:  # noqa: ANN401 - a subclass narrows it
        """One ``Decoded`` (a ``str`` for modality text) -> network input without batch axis, on the CPU.

        MediaError excludes the clip with its reason.
        """

    @abstractmethod
    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` on ``self.device`` -> the declared outputs, each ``(B, ...)``."""

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """Hash of the weights that ``build(weights)`` would load, without building; "none" where there are none."""
        del weights
        return "none"

    @classmethod
    def fingerprint_for(cls, weights_hash: str, device: str, flavour: Flavour) -> str:
        """The fingerprint of an extractor that need not be built yet. Networks always run in full float32."""
        parts: list[Any] = [cls.name, cls.front_end_version, weights_hash, "fp32", _device_type(device)]
        if cls.flavour_matters:
            parts.append(flavour)
        return f"{cls.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_HEX]}"

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

    def run(self, items: Sequence[torch.Tensor]) -> list[Row]:
        """Prepared inputs -> one dict of arrays per item.

        On a CPU each item is a batch of its own: features then do not depend, not even in the last bit, on the company
        a clip was in, and little speed is lost. On a GPU the items run together, shape by shape, and the batch is
        halved on out-of-memory.
        """
        import torch

        if self.device.type == "cpu":
            rows = (self._run_batch(item[None]) for item in items)
            return [{key: value[0] for key, value in row.items()} for row in rows]
        done: dict[int, Row] = {}
        for shape in dict.fromkeys(tuple(item.shape) for item in items):
            members = [i for i, item in enumerate(items) if tuple(item.shape) == shape]
            outputs = self._run_batch(torch.stack([items[i] for i in members]))
            for j, i in enumerate(members):
                done[i] = {key: value[j] for key, value in outputs.items()}
        return [done[i] for i in range(len(items))]

    def _run_batch(self, batch: torch.Tensor) -> Row:
        import numpy as np
        import torch

        outputs = None
        try:
            with torch.inference_mode():
                outputs = self.forward(batch.to(self.device))
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
        if outputs is None:  # not within the handler: until it ends, the error keeps all that the failed pass had made
            torch.cuda.empty_cache()
            half = (len(batch) + 1) // 2
            first, second = self._run_batch(batch[:half]), self._run_batch(batch[half:])
            return {key: np.concatenate([first[key], second[key]]) for key in first}
        return {key: _array(value) for key, value in outputs.items()}


class PairExtractor(ABC):
    """Features of two media in, features of the pair out (a sync head); stored under both hashes.

    A subclass sets ``name``, ``outputs``, ``video`` and ``audio`` and writes ``build`` and ``forward``.
    """

    name: ClassVar[str]
    outputs: ClassVar[Mapping[str, str]]
    video: ClassVar[str]  # extractor whose output ``video_output`` is the first input
    audio: ClassVar[str]  # extractor whose output ``audio_output`` is the second input
    video_output: ClassVar[str] = "tokens"
    audio_output: ClassVar[str] = "tokens"
    front_end_version: ClassVar[int] = 1
    small: ClassVar[bool] = False  # of small operations: on a CPU they run on one thread
    batch_size: int = 32

    def __init__(self, module: torch.nn.Module, weights_hash: str, device: str = "cpu") -> None:
        import torch

        self.module = module.to(device).eval().requires_grad_(False)
        self.weights_hash = weights_hash
        self.device = torch.device(device)

    @classmethod
    @abstractmethod
    def build(cls, weights: Weights, device: str = "cpu", flavour: Flavour = "paper") -> Self:
        """Build the head and load ``weights``; None means the extractor's own."""

    @abstractmethod
    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, ...)`` features of both media on ``self.device`` -> the declared outputs, each ``(B, ...)``."""

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """Hash of the weights that ``build(weights)`` would load, without building; "none" where there are none."""
        del weights
        return "none"

    @classmethod
    def fingerprint_for(cls, weights_hash: str, device: str, flavour: Flavour) -> str:
        """As for an extractor; flavour counts because it changes what goes in. Version 1 is left out, as ever."""
        parts: list[Any] = [cls.name, weights_hash, "fp32", _device_type(device), flavour]
        if cls.front_end_version != 1:
            parts.append(cls.front_end_version)
        return f"{cls.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_HEX]}"

    def run(self, video: Sequence[NDArray[np.float32]], audio: Sequence[NDArray[np.float32]]) -> list[Row]:
        """Aligned lists of features -> one dict of arrays per pair; on a CPU pair by pair, as extractors do."""
        import numpy as np
        import torch

        if self.device.type == "cpu" and len(video) > 1:
            return [row for v, a in zip(video, audio, strict=True) for row in self.run([v], [a])]
        with torch.inference_mode():
            first = torch.from_numpy(np.stack(video)).to(self.device)
            second = torch.from_numpy(np.stack(audio)).to(self.device)
            outputs = {key: _array(value) for key, value in self.forward(first, second).items()}
        return [{key: value[i] for key, value in outputs.items()} for i in range(len(video))]


def _array(value: torch.Tensor) -> NDArray[np.float32]:
    """As float32, but float64 stays: times keep their precision."""
    import torch

    kept = value if value.dtype == torch.float64 else value.float()
    array: NDArray[np.float32] = kept.cpu().numpy()
    return array


def _device_type(device: str) -> str:
    return device.partition(":")[0]
