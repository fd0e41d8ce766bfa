"""Cosine similarity and the mean of unit views."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av_bench.contracts import MetricError
from av_bench.metrics import cosine_similarity, mean_of_unit_views
from tests.metrics.tester import (
    check_refuses_bad_arrays,
    check_row_wise,
    check_value,
    closed_form,
    pipeline_arrays,
    pipeline_values,
)


def test_shared_mean_of_views() -> None:
    case = closed_form("ib_mean_of_views")
    video, audio = (mean_of_unit_views(case["input"][key]) for key in ("video_views", "audio_clips"))
    check_value(cosine_similarity(video[None], audio[None]), [case["expected"]])


def test_shared_clap_mean() -> None:
    case = closed_form("clap_mean_cos")
    check_value(cosine_similarity(case["input"]["text"], case["input"]["audio"]).mean(), case["expected"])


def test_closed_forms() -> None:
    check_value(
        cosine_similarity([[1, 0], [2, 0], [1, 1], [0, 3]], [[5, 0], [-1, 0], [0, 2], [4, 3]]),
        [1.0, -1.0, np.sqrt(0.5), 0.6],
    )
    check_value(mean_of_unit_views([[3, 0], [0, 4], [-8, 0], [0, 1]]), [0.0, 0.5])  # not unit length again


@given(st.floats(1e-150, 1e150), st.floats(1e-150, 1e150))
def test_length_does_not_count(p: float, q: float) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5))
    check_value(cosine_similarity(p * a, q * b), cosine_similarity(a, b))


def test_row_wise() -> None:
    check_row_wise(cosine_similarity, *np.random.default_rng(0).normal(size=(2, 7, 5)))


@pytest.mark.parametrize(
    ("key", "file", "first", "second"),
    [("ib", "video", "imagebind_video", "imagebind_audio"), ("clap", "text", "clap_text", "clap_audio")],
)
def test_equals_the_original_tool(key: str, file: str, first: str, second: str) -> None:
    a, b = pipeline_arrays(f"features_{file}.npz"), pipeline_arrays("features_pred.npz")
    values = cosine_similarity(a[first], b[second])
    check_value(values, pipeline_values(key, b["stems"]), rel=0, tol=1e-6)  # the original is float32


def test_refusals() -> None:
    check_refuses_bad_arrays(cosine_similarity, *np.random.default_rng(0).normal(size=(2, 4, 5)))
    check_refuses_bad_arrays(mean_of_unit_views, np.random.default_rng(0).normal(size=(4, 5)))
    with pytest.raises(MetricError, match="b has 1 rows of zero length, the first is row 1"):
        cosine_similarity(np.ones((2, 2)), [[1, 0], [0, 0]])
    with pytest.raises(MetricError, match="views has 1 rows of zero length"):
        mean_of_unit_views([[1, 0], [0, 0]])
    with pytest.raises(MetricError, match="same clips"):
        cosine_similarity(np.ones((2, 2)), np.ones((3, 2)))
