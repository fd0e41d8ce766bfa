"""The garbage collector's thresholds during a run."""

from __future__ import annotations

import gc

import pytest

from av_bench.runtime.garbage import rare_collections

BEFORE = gc.get_threshold()


def failing() -> None:
    """An error inside, after a look at the collector."""
    with rare_collections():
        assert gc.isenabled()
        assert gc.get_threshold() > BEFORE
        raise ValueError("x")


def test_thresholds_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"):
        failing()
    assert gc.get_threshold() == BEFORE
