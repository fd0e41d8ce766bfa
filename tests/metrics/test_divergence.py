"""KL divergence: direction, closed forms, no epsilon, per row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av_bench.contracts import MetricError
from av_bench.metrics import kl_divergence
from tests.metrics.tester import (
    check_refuses_bad_arrays,
    check_row_wise,
    check_value,
    closed_form,
    pipeline_arrays,
    pipeline_values,
)


@pytest.mark.parametrize("identity", ["kl_dir", "kl_dir_asym", "kl_shift_invariant", "kl_peaky", "kl_batchmean"])
def test_shared_closed_forms(identity: str) -> None:
    case = closed_form(identity)
    expected = case["expected"]
    if isinstance(expected, dict):
        expected = expected.get("gt_to_pred", expected.get("av_bench"))
    values = kl_divergence(case["input"]["gt_logits"], case["input"]["pred_logits"])
    check_value(values.mean(), expected, rel=0, tol=min(case["tol"], 1e-9))


def test_direction_is_reference_to_generated() -> None:
    half, quarter = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    check_value(kl_divergence(half, quarter), [0.5 * np.log(2) + 0.5 * np.log(2 / 3)])
    check_value(kl_divergence(quarter, half), [0.25 * np.log(0.5) + 0.75 * np.log(1.5)])


def test_no_epsilon_on_saturated_logits() -> None:
    check_value(kl_divergence([[1000.0, 0.0]], [[0.0, 1000.0]]), [1000.0])
    # Logits 20 apart: 20 tanh(10). With 1e-6 added to the probability, as others do, it would stop at 13.8.
    check_value(kl_divergence([[20.0, 0.0]], [[0.0, 20.0]]), [20 * np.tanh(10)])


def test_sums_over_classes_and_leaves_the_mean_over_clips_to_the_caller() -> None:
    certain, uniform = np.log([0.9, 0.05, 0.05]), np.zeros(3)
    expected = 0.9 * np.log(2.7) + 0.1 * np.log(0.15)
    check_value(kl_divergence([certain, uniform], [uniform, uniform + 7]), [expected, 0.0], tol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([1e-9, 1.0, 50.0]), shift=st.floats(-500, 500))
def test_never_negative_and_shift_free(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = scale * rng.normal(size=(2, 4, 9))
    assert (kl_divergence(a, b) >= 0).all()
    check_value(kl_divergence(a, a), np.zeros(4), tol=0)
    check_value(kl_divergence(a + shift, b), kl_divergence(a, b), rel=1e-9, tol=1e-10)


def test_row_wise() -> None:
    check_row_wise(kl_divergence, *np.random.default_rng(0).normal(size=(2, 7, 5)))


@pytest.mark.parametrize("network", ["panns", "passt"])
def test_equals_the_original_tool(network: str) -> None:
    reference, generated = pipeline_arrays("features_gt.npz"), pipeline_arrays("features_pred.npz")
    assert (reference["stems"] == generated["stems"]).all()
    values = kl_divergence(reference[f"{network}_logits"], generated[f"{network}_logits"])
    check_value(values, pipeline_values(f"kl_{network}", reference["stems"]), rel=1e-5)  # the original is float32


def test_refusals() -> None:
    check_refuses_bad_arrays(kl_divergence, *np.random.default_rng(0).normal(size=(2, 4, 5)))
    with pytest.raises(MetricError, match=r"shape \(2, 3\), generated has \(3, 3\); .* same clips"):
        kl_divergence(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(MetricError, match="overflows"), np.errstate(all="ignore"):
        kl_divergence([[1e308, -1e308]], [[-1e308, 1e308]])
