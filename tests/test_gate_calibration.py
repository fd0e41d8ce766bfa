"""The gate's promise, on a small fixed simulation; ``benchmarks/gate.py`` has the large ones."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from tests.conftest import ROOT

PAIRS = 120


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """``benchmarks/gate.py`` as a module."""
    spec = importlib.util.spec_from_file_location("gate_simulation", ROOT / "benchmarks" / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_an_unchanged_model_seldom_fails_and_a_changed_one_does(simulation: ModuleType) -> None:
    source = simulation.Known(simulation.metrics_of(simulation.KNOWN), 64, np.random.default_rng(1))
    alarms = simulation.rates(lambda: source.pair("none", False), PAIRS)
    assert set(alarms) == {"whole gate", *simulation.KNOWN}
    most = stats.binom.ppf(0.99, PAIRS, 0.05)  # of a gate that fails in exactly 5 %
    assert alarms["whole gate"] <= most
    assert all(count <= stats.binom.ppf(0.999, PAIRS, 0.02) for name, count in alarms.items() if name != "whole gate")
    found = simulation.rates(lambda: source.pair("gain", True), 12)
    assert found["FD-nano"] == found["KAD-nano"] == found["whole gate"] == 12
    replaced = simulation.rates(lambda: source.pair("replaced", True), 12)
    assert replaced["KL-nano"] >= 9


def test_the_simulation_would_notice_intervals_that_are_too_narrow(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half of the noise the same simulation raises alarms in far more than 5 % of pairs."""
    from av_bench.metrics.paired import PairedEffect

    error = PairedEffect.error.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(PairedEffect, "error", property(lambda self: error(self) / 2))
    source = simulation.Known(simulation.metrics_of(simulation.KNOWN), 64, np.random.default_rng(1))
    alarms = simulation.rates(lambda: source.pair("none", False), 40)
    assert alarms["whole gate"] > stats.binom.ppf(0.999, 40, 0.05)
