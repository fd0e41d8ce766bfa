"""What every metric must withstand: closed forms, order, batches and bad input, stated once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av_bench.contracts import MetricError

SHARED = Path(__file__).resolve().parents[3] / "shared"
CLOSED_FORMS = SHARED / "golden" / "protocol" / "closed_form.json"
ONSET_CASES = SHARED / "golden" / "protocol" / "onset_toy.json"
PIPELINE = SHARED / "golden" / "pipeline"

Function = Callable[..., Any]


def need(path: Path) -> Path:
    """The path, or a skip that says what is missing."""
    if not path.exists():
        pytest.skip(f"{path.name} is not there: the folder 'shared' beside the repository holds it")
    return path


def closed_form(identity: str) -> dict[str, Any]:
    """One case of the shared closed forms."""
    cases = {case["id"]: case for case in json.loads(need(CLOSED_FORMS).read_text())}
    return cases[identity]


def pipeline_arrays(name: str) -> dict[str, np.ndarray]:
    """Arrays of one file that the original tool wrote for three real clips."""
    with np.load(need(PIPELINE / name)) as stored:
        return {key: stored[key] for key in stored.files}


def pipeline_values(name: str, stems: Sequence[str]) -> np.ndarray:
    """The original tool's per-clip values, in the order of ``stems``."""
    values = json.loads(need(PIPELINE / "per_clip.json").read_text())[name]
    return np.array([values[str(stem)] for stem in stems])


def check_value(actual: Any, expected: Any, rel: float = 1e-9, tol: float = 1e-12) -> None:
    """Equal within the tolerance of pure mathematics, and of real floating type."""
    assert np.asarray(actual).dtype == np.float64, "metrics compute in float64"
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=tol)


def check_row_wise(function: Function, *arrays: np.ndarray) -> None:
    """One value per row that depends on that row alone: no order, no batch, no other rows."""
    whole = function(*arrays)
    n = len(arrays[0])
    assert whole.shape[0] == n
    assert len(np.unique(np.round(whole, 9))) > 1, "constant values would pass any order"
    order = np.random.default_rng(0).permutation(n)
    check_value(function(*(a[order] for a in arrays)), whole[order])
    for size in (1, 2, n - 1):
        parts = [function(*(a[i : i + size] for a in arrays)) for i in range(0, n, size)]
        check_value(np.concatenate(parts), whole)


def check_order_free(function: Function, *arrays: np.ndarray, rel: float = 1e-9) -> None:
    """One value for the set, whatever the order of each side's rows."""
    rng = np.random.default_rng(1)
    check_value(function(*(a[rng.permutation(len(a))] for a in arrays)), function(*arrays), rel=rel)


def check_refuses_bad_arrays(function: Function, *arrays: np.ndarray) -> None:
    """NaN, infinity, missing axes, text and no rows are refused in every argument, with a message that helps."""
    for position in range(len(arrays)):

        def call(bad: Any, position: int = position) -> None:
            function(*arrays[:position], bad, *arrays[position + 1 :])

        good = arrays[position].astype(np.float64)
        for value in (np.nan, np.inf, -np.inf):
            broken = good.copy()
            broken[(-1,) * good.ndim] = value
            with pytest.raises(MetricError, match=r"NaN or infinite, the first at index \("):
                call(broken)
        with pytest.raises(MetricError, match=r"has shape \(.*\), expected \("):
            call(good[0])
        with pytest.raises(MetricError, match="pass real numbers"):
            call(good.astype(str))
        with pytest.raises(MetricError, match=r"\b0 rows|has shape"):
            call(good[:0])
