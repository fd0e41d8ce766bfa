"""The metric: how far the brightness of the generated audio is from the reference's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import MetricInputs, Need
from av_bench.metrics.columns import PerClipMetric


class CentroidGap(PerClipMetric):
    """Mean over clips of the absolute difference of the spectral centroids, in kHz.

    ``PerClipMetric`` makes mean, interval and per-clip values of ``values``. Arguments after ``name`` are
    its options in a protocol; when all of them have a default, ``--metrics +centroid_gap`` works on every protocol.
    """

    unit = "kHz"

    def __init__(self, name: str, extractor: str = "example-centroid", output: str = "embedding") -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        super().__init__(name, (self.reference, self.generated))

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """``(n,)``, one value per clip; NaN where it is undefined."""
        gap = inputs.stacked(self.generated)[:, 0] - inputs.stacked(self.reference)[:, 0]
        values: NDArray[np.float64] = np.abs(gap).astype(np.float64)
        return values
