"""Columns of kernel distance, density and coverage: on any embedding, optional in the protocols."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from av_bench.contracts import Metric, MetricError, MetricInputs, Need, Score
from av_bench.metrics.checks import FloatArray
from av_bench.metrics.columns import flat_rows
from av_bench.metrics.kernel import kernel_effects
from av_bench.metrics.neighbours import NEIGHBOURS, DensityCoverage, density_coverage
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


class _Neighbours(Metric):
    """Density or coverage of one row per clip and side; its values per row depend on the whole set."""

    higher_is_better = True
    least: ClassVar[float] = 0.0

    def __init__(self, name: str, extractor: str, output: str = "embedding", neighbours: int = NEIGHBOURS) -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        self.neighbours = neighbours
        super().__init__(name, (self.reference, self.generated))

    @abstractmethod
    def chosen(self, found: DensityCoverage) -> FloatArray:
        """The values ``(n,)`` whose mean is the metric."""

    def compute(self, inputs: MetricInputs) -> Score:
        """Mean over rows, with the interval of the rows' values, radii held fixed."""
        reference, generated = inputs.stacked(self.reference), inputs.stacked(self.generated)
        if reference.ndim != 2:
            raise MetricError(f"{self.name} needs one row per clip, {self.reference.extractor} gives several")
        values = self.chosen(density_coverage(reference, generated, self.neighbours))
        value = float(values.mean())
        effects = (values - value) / len(values)
        return set_score(value, inputs.clips, effects, least=self.least, details={"neighbours": self.neighbours})


class Density(_Neighbours):
    """How densely the generated side lies where the reference is: near 0 for noise."""

    def chosen(self, found: DensityCoverage) -> FloatArray:
        """Of the generated rows."""
        return found.density


class Coverage(_Neighbours):
    """Share of the reference that has a generated neighbour: low for a collapsed model."""

    def chosen(self, found: DensityCoverage) -> FloatArray:
        """Of the reference rows: 0 or 1."""
        return found.coverage
