"""Cosine similarity of paired embeddings: ImageBind (video, audio) and CLAP (text, audio) scores.

Conventions
-----------
* One value per clip from -1 to 1; higher is better. Tables print the ImageBind score times 100, CLAP unscaled; the
  functions here never scale.
* A clip seen in several views (crops, time windows) is the mean of its unit-length views, not made unit length
  again. The cosine does not feel the length of that mean, but it does feel the length of each view.

Source: Girdhar et al. (CVPR 2023) for ImageBind; Viertola et al. (2024) for its use as a score; MMAudio
(arXiv 2412.15322), section 4.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from av_bench.contracts import MetricError
from av_bench.metrics.checks import FloatArray, as_floats, require_rows, require_same


def validate(first: FloatArray, second: FloatArray) -> None:
    """Raise MetricError unless both sides hold the same clips and embedding size."""
    require_rows(first, 1, "cosine_similarity", "a", "nothing to compare")
    require_same(first, second, "cosine_similarity")


def cosine_similarity(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Cosine of every pair of rows of ``a`` ``(n, d)`` and ``b`` ``(n, d)``: ``(n,)`` float64.

    Raises MetricError for different shapes, values that are not finite, and rows of zero length.

    Examples
    --------
    >>> cosine_similarity([[3.0, 4.0]], [[3.0, 4.0]]).round(12).tolist()
    [1.0]
    """
    first = as_floats(a, "cosine_similarity", "a", "(clips, dimensions)", 2)
    second = as_floats(b, "cosine_similarity", "b", "(clips, dimensions)", 2)
    validate(first, second)
    cosines: FloatArray = (_unit(first, "cosine_similarity", "a") * _unit(second, "cosine_similarity", "b")).sum(axis=1)
    return np.clip(cosines, -1.0, 1.0)


def mean_of_unit_views(views: ArrayLike) -> FloatArray:
    """Mean ``(d,)`` of the unit-length views ``(v, d)`` of one clip, not scaled to unit length again.

    Examples
    --------
    >>> mean_of_unit_views([[3.0, 0.0], [0.0, 4.0]]).tolist()
    [0.5, 0.5]
    """
    array = as_floats(views, "mean_of_unit_views", "views", "(views, dimensions)", 2)
    require_rows(array, 1, "mean_of_unit_views", "views", "a clip has at least one view")
    mean: FloatArray = _unit(array, "mean_of_unit_views", "views").mean(axis=0)
    return mean


def _unit(rows: FloatArray, metric: str, name: str) -> FloatArray:
    # Scaling by the largest entry first keeps squares inside float64 for any finite row.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    zero = np.flatnonzero(largest[:, 0] == 0)
    if zero.size:
        raise MetricError(
            f"{metric}: {name} has {zero.size} rows of zero length, the first is row {zero[0]}; "
            "a zero embedding has no direction: leave the clip out or recompute its features"
        )
    scaled = rows / largest
    unit: FloatArray = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit
