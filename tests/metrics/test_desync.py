"""DeSync: the grid, the argmax, and what stands beside it."""

from __future__ import annotations

import numpy as np
import pytest

from av_bench.contracts import MetricError
from av_bench.metrics import desync, expected_offset, offset_grid, offset_histogram, signed_offsets
from tests.metrics.tester import (
    check_refuses_bad_arrays,
    check_row_wise,
    check_value,
    closed_form,
    pipeline_arrays,
    pipeline_values,
)


def peaks(*crops: list[int], height: float = 1.0) -> np.ndarray:
    """Logits ``(n, crops, 21)`` from the class of each clip, one list per crop."""
    return height * np.eye(21)[np.array(crops).T]


def test_shared_closed_form() -> None:
    case = closed_form("desync")
    values = desync(peaks(case["input"]["argmax_first"], case["input"]["argmax_last"]))
    check_value(values.mean(), case["expected"], tol=1e-12)


def test_grid() -> None:
    grid = offset_grid()
    check_value(grid[[0, 10, 11, 20]], [-2.0, 0.0, 0.2, 2.0], tol=1e-15)
    assert grid[10] == 0.0
    check_value(np.diff(grid), np.full(20, 0.2))


def test_closed_forms() -> None:
    logits = peaks([10, 0, 15], [10, 20, 9])
    check_value(desync(logits), [0.0, 2.0, 0.6])
    check_value(signed_offsets(logits), [[0.0, 0.0], [-2.0, 2.0], [1.0, -0.2]])
    assert offset_histogram(logits).tolist() == [1] + [0] * 8 + [1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def test_expected_offset() -> None:
    # Undecided: mean |offset| of the grid = 2 * (0.2 + ... + 2.0) / 21 = 22 / 21; decided: as the argmax.
    check_value(expected_offset(np.zeros((1, 2, 21))), [22 / 21])
    check_value(expected_offset(peaks([0, 10], [5, 10], height=1e4)), [1.5, 0.0], tol=1e-12)


def test_ties_go_to_the_lowest_class() -> None:
    check_value(desync(np.zeros((1, 1, 21))), [2.0])


@pytest.mark.parametrize("function", [desync, expected_offset, signed_offsets])
def test_row_wise(function: object) -> None:
    check_row_wise(function, np.random.default_rng(0).normal(size=(9, 2, 21)))  # type: ignore[arg-type]


def test_equals_the_original_tool() -> None:
    stored = pipeline_arrays("desync.npz")
    offsets = np.abs(signed_offsets(stored["logits"].transpose(1, 0, 2)))
    for crop, name in enumerate(("desync_cropA", "desync_cropB")):
        check_value(offsets[:, crop], pipeline_values(name, stored["stems"]), rel=0, tol=1e-6)
    check_value(offset_grid(), stored["grid"], rel=0, tol=1e-6)


def test_refusals() -> None:
    for function in (desync, signed_offsets, expected_offset, offset_histogram):
        check_refuses_bad_arrays(function, np.random.default_rng(0).normal(size=(3, 2, 21)))
    with pytest.raises(MetricError, match="20 classes, expected 21"):
        desync(np.zeros((3, 2, 20)))
    with pytest.raises(MetricError, match=r"shape \(3, 0, 21\)"):
        desync(np.zeros((3, 0, 21)))
