"""Importing model files without their package, and building without drawing weights."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from av_bench.contracts import MissingRequirement
from av_bench.networks.packages import model_file, on_meta, quiet, uninitialised


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose __init__ files fail, as offline downloads at import time do."""
    inner = tmp_path / "rude_package" / "models"
    inner.mkdir(parents=True)
    (tmp_path / "rude_package/__init__.py").write_text("raise RuntimeError('download at import')")
    (inner / "__init__.py").write_text("raise RuntimeError('broken dependency')")
    (inner / "network.py").write_text("from .parts import WIDTH\nprint('noise')\nclass Net:\n    width = WIDTH\n")
    (inner / "parts.py").write_text("WIDTH = 7\n")
    (inner / "broken.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rude_package"


def test_model_file_is_imported_and_the_package_is_not(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = model_file(f"{package}.models.network")
    assert module.Net.width == 7
    assert module is model_file(f"{package}.models.network")
    assert capsys.readouterr().out == ""
    # Nothing pretends to be the package afterwards: whoever imports it gets its own behaviour.
    assert package not in sys.modules
    with pytest.raises(RuntimeError, match="download at import"):
        __import__(package)


@pytest.mark.parametrize("name", ["no_such_package.models.network", "rude_package.models.broken"])
def test_what_is_absent_is_named_with_the_cure(package: str, name: str) -> None:
    del package
    with pytest.raises(MissingRequirement, match=r"(no_such_package|a_module_that_nobody_has)[\s\S]*pip install"):
        model_file(name)
    assert "rude_package" not in sys.modules


def test_uninitialised_draws_nothing_and_restores_the_initialisers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with uninitialised():
        nn.Linear(64, 64)
        nn.init.trunc_normal_(torch.empty(3))
    assert torch.equal(torch.get_rng_state(), before)
    weight = torch.zeros(8, 8)
    nn.init.normal_(weight)
    assert weight.std() > 0.1


def test_on_meta_reserves_nothing_but_keeps_plain_numbers() -> None:
    with on_meta():
        layer = nn.Linear(1 << 20, 1 << 20)  # 4 TB
        rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
    assert layer.weight.is_meta
    assert rates == pytest.approx([0, 0.05, 0.1])


def test_quiet_swallows_output_but_not_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("error")
        print("noise")
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="real"), quiet():
        raise ValueError("real")
