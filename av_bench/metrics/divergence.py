"""KL divergence between the label distributions of reference and generated sound.

Conventions
-----------
* Reference first: ``KL(reference || generated)``, in nats, one value per clip; lower is better, 0 at best.
* Inputs are logits; both sides pass through a log-softmax, and no epsilon is added. A softmax over the logits of a
  multi-label tagger is the published convention, so the values do not compare with sigmoid ones.

Source: Iashin & Rahtu (BMVC 2021), section 4.2, as used by MMAudio (arXiv 2412.15322), section 4.1. Tools that add
1e-6 to the generated probabilities (audioldm_eval) saturate near 13.8 nats and give other numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from av_bench.metrics.checks import FloatArray, as_floats, require_finite_result, require_rows, require_same

METRIC = "kl_divergence"


def validate(reference: FloatArray, generated: FloatArray) -> None:
    """Raise MetricError unless both sides hold the same clips and classes."""
    require_rows(reference, 1, METRIC, "reference_logits", "nothing to compare")
    require_same(reference, generated, METRIC)


def kl_divergence(reference_logits: ArrayLike, generated_logits: ArrayLike) -> FloatArray:
    """``KL(reference || generated)`` of every clip.

    Parameters
    ----------
    reference_logits, generated_logits : ``(n, classes)``
        Row i of both belongs to the same clip.

    Returns
    -------
    ``(n,)`` float64, nats, at least 0. The metric of a set is the mean.

    Raises
    ------
    MetricError
        Different shapes, values that are not finite.

    Examples
    --------
    >>> kl_divergence([[0.0, 0.0]], [[0.0, 0.0]]).tolist()
    [0.0]
    """
    reference = as_floats(reference_logits, METRIC, "reference_logits", "(clips, classes)", 2)
    generated = as_floats(generated_logits, METRIC, "generated_logits", "(clips, classes)", 2)
    validate(reference, generated)
    log_p, log_q = log_softmax(reference, axis=1), log_softmax(generated, axis=1)
    values: FloatArray = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    require_finite_result(values, METRIC)
    # Gibbs' inequality: a sum below zero is rounding.
    return np.maximum(values, 0.0)
