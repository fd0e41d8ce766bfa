"""Columns of kernel distance, density and coverage: on any embedding, optional in the protocols."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import Metric, MetricInputs, Need, Score
from av_bench.metrics.columns import PerClipMetric, flat_rows
from av_bench.metrics.kernel import kernel_effects
from av_bench.metrics.neighbours import DensityCoverage, density_coverage
from av_bench.metrics.set_scores import by_clip, set_score


class KernelDistance(Metric):
    """Kernel audio distance: unbiased squared MMD of the two sides' embeddings, times 100."""

    minimum = 4

    def __init__(self, name: str, extractor: str, output: str = "embedding") -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        super().__init__(name, (self.reference, self.generated))

    def compute(self, inputs: MetricInputs) -> Score:
        """Value with the interval of its influence values; the bandwidth is a detail."""
        reference, rows_reference = flat_rows(inputs, self.reference)
        generated, rows_generated = flat_rows(inputs, self.generated)
        found = kernel_effects(reference, generated)
        effects = by_clip(found.reference, rows_reference) + by_clip(found.generated, rows_generated)
        details = {"rows": len(generated), "bandwidth": found.bandwidth}
        return set_score(found.value, inputs.clips, effects, details=details)


class _Neighbours(PerClipMetric):
    """Density or coverage of one row per clip and side."""

    higher_is_better = True

    def __init__(self, name: str, extractor: str, output: str = "embedding", neighbours: int = 5) -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        self.neighbours = neighbours
        self.minimum = neighbours + 1  # type: ignore[misc]
        super().__init__(name, (self.reference, self.generated))

    def both(self, inputs: MetricInputs) -> DensityCoverage:
        """Density of every generated row and coverage of every reference row."""
        return density_coverage(inputs.stacked(self.reference), inputs.stacked(self.generated), self.neighbours)


class Density(_Neighbours):
    """How densely the generated side lies where the reference is: near 0 for noise."""

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip, of its generated row."""
        return self.both(inputs).density


class Coverage(_Neighbours):
    """Share of the reference that has a generated neighbour: low for a collapsed model."""

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip, of its reference row: 0 or 1."""
        return self.both(inputs).coverage
