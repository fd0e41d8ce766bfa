"""Features of the scored clips as aligned arrays, read from the store ahead of the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from av_bench.contracts import Clip, Need
from av_bench.features.extraction import Extraction
from av_bench.features.reference_pack import Reference
from av_bench.features.sides import Sides
from av_bench.features.store import Features, pair_key, text_key

AHEAD = 2  # needs that are read while a metric computes


@dataclass
class FeatureArrays:
    """Features of the scored clips, read from the store once per extractor, side and sample.

    ``needs`` are all that will be asked for, in that order: outputs of one extractor are in the same shards and are
    read together, and one thread reads what comes next while the metric before it computes.
    """

    extraction: Extraction
    sides: Sides
    reference: Reference | None = None
    needs: Sequence[Need] = ()
    _cache: dict[tuple[Need, int], list[NDArray[Any]]] = field(default_factory=dict)
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "av-bench-features"))

    def __enter__(self) -> FeatureArrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.shutdown(cancel_futures=True)

    def get(self, need: Need, clips: Sequence[Clip], k: int) -> list[NDArray[Any]]:
        """One array per clip, of sample ``k``. FeaturesLost as the store says."""
        found = self._reader.submit(self._get, need, clips, k).result()
        if need in self.needs:
            place = self.needs.index(need) + 1
            for following in self.needs[place : place + AHEAD]:  # an error is raised when it is asked for
                self._reader.submit(self._get, following, clips, k)
        return found

    def _get(self, need: Need, clips: Sequence[Clip], k: int) -> list[NDArray[Any]]:
        if (need, k) not in self._cache:
            together = [n for n in self.needs if (n.extractor, n.side) == (need.extractor, need.side)]
            rows = self._read(need, clips, k)
            for other in {need, *together}:
                self._cache[other, k] = [row[other.output] for row in rows]
        return self._cache[need, k]

    def _read(self, need: Need, clips: Sequence[Clip], k: int) -> list[Features]:
        extraction, seconds = self.extraction, self.extraction.seconds
        if extraction.networks.is_pair(need.extractor):
            fingerprint = extraction.networks.pair_fingerprint(need.extractor)
            pairs = [p for p in self.sides.pairs(clips, need.side) if p[1].sample == k]
            keys = [pair_key(v.key(seconds), a.key(seconds)) for v, a in pairs]
        else:
            fingerprint = extraction.networks.fingerprint(need.extractor)
            keys = [self._key(need, clip, k) for clip in clips]
        found = extraction.store.require(fingerprint, keys)
        return [found[key] for key in keys]

    def _key(self, need: Need, clip: Clip, k: int) -> str:
        if need.side == "text" and not (self.reference and self.reference.covers(need)):
            return text_key(clip.text or "")
        reference = self.sides.reference
        if need.side == "generated":
            medium = self.sides.generated[clip.id][k]
        else:
            medium = (reference.video if need.side == "video" else reference.audio)[clip.id]
        return medium.key(self.extraction.seconds)
