"""What the package's own extractors share beyond the contract: weights of the lock file, and ``features`` for files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import Decoded, Extractor, MetricError, PairExtractor, UsageError
from av_bench.media.decode import decode
from av_bench.runtime.devices import single_precision
from av_bench.weights.fill import Weights, weights_hash


class BaseExtractor(Extractor):
    """An extractor whose weights are an entry of the lock file (``weights_name``; "" for one without weights)."""

    weights_name: ClassVar[str] = ""

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the weights that ``build(weights)`` would load, without building."""
        return weights_hash(weights, cls.weights_name)

    def run(self, items: Sequence[torch.Tensor]) -> list[dict[str, NDArray[np.float32]]]:
        """As the contract says, in full float32 on every device."""
        with single_precision():
            return super().run(items)

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
        return decode(path, requests, seconds, audio=self.modality == "audio", window=seconds)


class BasePairExtractor(PairExtractor):
    """A pair extractor whose weights are an entry of the lock file."""

    weights_name: ClassVar[str] = ""

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """sha256 of the weights that ``build(weights)`` would load, without building."""
        return weights_hash(weights, cls.weights_name)

    def run(
        self, video: Sequence[NDArray[np.float32]], audio: Sequence[NDArray[np.float32]]
    ) -> list[dict[str, NDArray[np.float32]]]:
        """As the contract says, in full float32 on every device."""
        with single_precision():
            return super().run(video, audio)
