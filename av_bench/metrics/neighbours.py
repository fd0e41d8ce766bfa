"""Density and coverage: is what was generated like the reference, and is all of the reference there?

Around each reference row lies a ball that reaches to its k-th nearest reference neighbour.

* **Density**: in how many such balls a generated row lies, divided by k, averaged over generated rows. About 1 when
  both sides come from one distribution, above 1 when the generated rows crowd where the reference is dense, near 0 for
  noise that lies elsewhere.
* **Coverage**: the share of reference rows whose ball holds at least one generated row, 0 to 1. A model that
  collapsed onto few sounds keeps its density and loses coverage.

Source: Naeem et al. (ICML 2020), equations 4 and 5; k = 5 as there. Distances are Euclidean; blocks bound memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from av_bench.metrics.checks import FloatArray, as_floats, require_at_least, require_rows, require_same
from av_bench.metrics.kernel import blocks, squared_distances

METRIC = "density_coverage"
NEIGHBOURS = 5


class DensityCoverage(NamedTuple):
    """``density`` ``(m,)`` of every generated row and ``coverage`` ``(n,)`` (0 or 1) of every reference row.

    The values of the set are their means.
    """

    density: FloatArray
    coverage: FloatArray


def density_coverage(reference: ArrayLike, generated: ArrayLike, neighbours: int = NEIGHBOURS) -> DensityCoverage:
    """Density and coverage of ``(n, d)`` reference and ``(m, d)`` generated rows.

    Raises MetricError unless there are more than ``neighbours`` reference rows.

    Examples
    --------
    >>> found = density_coverage([[0.0], [1.0], [2.0]], [[0.4], [9.0]], neighbours=1)
    >>> found.density.tolist(), found.coverage.tolist()
    ([2.0, 0.0], [1.0, 1.0, 0.0])
    """
    require_at_least(neighbours, 1, METRIC, "neighbours")
    x = as_floats(reference, METRIC, "reference", "(rows, dimensions)", 2)
    y = as_floats(generated, METRIC, "generated", "(rows, dimensions)", 2)
    require_rows(x, neighbours + 1, METRIC, "reference", f"each row needs {neighbours} neighbours")
    require_rows(y, 1, METRIC, "generated", "nothing to compare")
    require_same(x, y, METRIC, axis=1)
    centre = x.mean(axis=0)
    x, y = x - centre, y - centre
    radii = _squared_radii(x, neighbours)
    density, coverage = np.zeros(len(y)), np.zeros(len(x))
    for part in blocks(len(y), len(x)):
        inside = squared_distances(y[part], x) <= radii
        density[part] = inside.sum(axis=1) / neighbours
        coverage[inside.any(axis=0)] = 1.0
    return DensityCoverage(density, coverage)


def _squared_radii(rows: FloatArray, neighbours: int) -> FloatArray:
    """Squared distance ``(n,)`` from each row to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for part in blocks(len(rows), len(rows)):
        squares = squared_distances(rows[part], rows)
        squares[np.arange(len(squares)), np.arange(part.start, part.stop)] = np.inf
        radii[part] = np.partition(squares, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii
