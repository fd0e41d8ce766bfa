"""Inception score: closed forms, the published shuffle, and the sizes at which it means nothing."""

from __future__ import annotations

import numpy as np
import pytest

from av_bench.contracts import MetricError, UsageError
from av_bench.metrics import inception_score
from tests.metrics.tester import check_refuses_bad_arrays, check_value, closed_form


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    return 1000.0 * np.eye(count)[classes]


@pytest.mark.parametrize("identity", ["is_uniform", "is_two_point"])
def test_shared_closed_forms(identity: str) -> None:
    case = closed_form(identity)
    given = case["input"]
    mean, std = inception_score(
        given["logits"], given["splits"], given.get("seed", 2020), shuffle=given.get("shuffle", True)
    )
    check_value([mean, std], [case["expected"]["mean"], case["expected"]["std"]], tol=case["tol"])


def test_shared_shuffled_cycle() -> None:
    expected = closed_form("is_onehot_cycle4")["expected"]
    logits = np.zeros((400, 4))
    logits[np.arange(400), np.arange(400) % 4] = 1000.0
    check_value(inception_score(logits), (expected["mean"], expected["std"]))


@pytest.mark.parametrize(("identity", "match"), [("is_small_N", "10 rows for 10"), ("is_N_lt_splits", "7 rows for 10")])
def test_shared_sizes_that_mean_nothing(identity: str, match: str) -> None:
    given = closed_form(identity)["input"]
    with pytest.raises(MetricError, match=match):
        inception_score(np.random.default_rng(0).normal(size=(given["N"], 5)), given["splits"])


def test_rows_that_say_nothing_score_one() -> None:
    check_value(inception_score(np.full((20, 7), 3.0)), (1.0, 0.0))


def test_two_kinds_of_rows() -> None:
    # Split means are (0.4, 0.2, 0.4); by symmetry every row has the same divergence from them.
    rows = np.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]] * 10)
    expected = (0.7 / 0.4) ** 0.7 * (0.1 / 0.4) ** 0.1
    check_value(inception_score(rows, splits=5, shuffle=False), (expected, 0.0))


@pytest.mark.parametrize(("rows", "match"), [(10, "10 rows for 10"), (7, "7 rows for 10")])
def test_sizes_that_mean_nothing_are_refused(rows: int, match: str) -> None:
    with pytest.raises(MetricError, match=match):
        inception_score(np.random.default_rng(0).normal(size=(rows, 5)))


def test_shuffled_cycle_is_the_entropy_of_what_each_split_got() -> None:
    order = np.random.RandomState(2020).permutation(400)
    shares = [np.bincount(part % 4, minlength=4) / 40 for part in order.reshape(10, 40)]
    expected = [np.exp(-(p * np.log(p)).sum()) for p in shares]
    found = inception_score(one_hot(np.arange(400) % 4, 4))
    check_value(found, (np.mean(expected), np.std(expected)))


@pytest.mark.parametrize("classes", [2, 7])
def test_sharp_and_balanced_reaches_the_number_of_classes(classes: int) -> None:
    logits = one_hot(np.arange(5 * classes) % classes, classes)
    check_value(inception_score(logits, splits=5, shuffle=False), (classes, 0.0), tol=1e-12)


def test_splits_are_contiguous_and_uneven() -> None:
    # 5 rows in 2 splits: rows 0-1 (one class: score 1) and rows 2-4 (three classes: score 3); population std is 1.
    logits = one_hot(np.array([0, 0, 0, 1, 2]), 3)
    check_value(inception_score(logits, splits=2, shuffle=False), (2.0, 1.0), tol=1e-12)


def test_shuffle_is_numpys_legacy_permutation() -> None:
    logits = np.random.default_rng(0).normal(size=(37, 4)) * 3
    order = np.random.RandomState(11).permutation(37)
    check_value(inception_score(logits, 4, 11), inception_score(logits[order], 4, shuffle=False), tol=1e-12)


def test_depends_on_order_and_seed_but_not_with_one_split() -> None:
    logits = np.random.default_rng(0).normal(size=(60, 8)) * 2
    assert abs(inception_score(logits)[0] - inception_score(logits[::-1])[0]) > 1e-6
    assert abs(inception_score(logits)[0] - inception_score(logits, seed=1)[0]) > 1e-6
    check_value(inception_score(logits, splits=1), inception_score(logits[::-1], splits=1), tol=1e-12)


def test_between_one_and_the_number_of_classes() -> None:
    for scale in (0.0, 0.1, 3.0, 300.0):
        mean, std = inception_score(np.random.default_rng(1).normal(size=(40, 6)) * scale)
        assert 1.0 - 1e-12 <= mean <= 6.0
        assert std >= 0.0


def test_refusals() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 3))
    check_refuses_bad_arrays(inception_score, logits)
    with pytest.raises(MetricError, match=r"4 rows for 4 splits; .* at least 5 clips"):
        inception_score(logits[:4], splits=4)
    assert inception_score(logits[:5], splits=4)[0] >= 1.0
    with pytest.raises(MetricError, match="needs at least 2"):
        inception_score(logits[:1], splits=1)
    with pytest.raises(UsageError, match="splits is 0"):
        inception_score(logits, splits=0)
