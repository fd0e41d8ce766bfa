"""Model files of other people's packages: imported alone, without what their networks do not need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from av_bench.networks.packages import model_file, on_meta, uninitialised

MODEL = """
import torch
from heavy.sub import Layer, Unused
import heavy
from .initialisers import trunc_normal_

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.front_end = Layer(0.1), Unused(sr=16000)
        self.table = torch.nn.Parameter(torch.full((3,), 7.0))
        trunc_normal_(self.table)
        self.length = heavy.filters.window(5)
"""
INITIALISERS = """
def trunc_normal_(tensor):
    tensor.data.fill_(1.0)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``modelpackage``, whose ``__init__`` must not run, and ``heavy``, which fails when it is imported."""
    files = {
        "modelpackage/__init__.py": "raise RuntimeError('ran')",
        "modelpackage/net.py": MODEL,
        "modelpackage/initialisers.py": INITIALISERS,
        "heavy/__init__.py": "raise RuntimeError('imported')",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("packages")
def test_a_model_file_is_imported_without_what_its_network_does_not_need() -> None:
    before = set(sys.modules)
    names = {"heavy.sub.Layer": torch.nn.Dropout, "heavy.filters.window": lambda length: length}
    package = model_file("modelpackage.net", without=("heavy",), names=names)
    network = package.Net()
    assert isinstance(network.layer, torch.nn.Dropout)
    assert network.length == 5
    assert [name for name, _ in network.named_modules()] == ["", "layer"]  # what is not needed is not a module
    assert {name for name in set(sys.modules) - before if name.startswith(("modelpackage", "heavy"))} == set()
    assert model_file("modelpackage.net", without=("heavy",), names=names) is package
    with pytest.raises(RuntimeError, match="imported"):
        import heavy  # noqa: F401


@pytest.mark.usefixtures("packages")
def test_initialisers_of_a_model_file_are_silenced_with_those_of_torch() -> None:
    package = model_file("modelpackage.net", without=("heavy",), names={"heavy.filters.window": abs})
    assert package.Net().table.tolist() == [1, 1, 1]
    with uninitialised(package):
        assert package.Net().table.tolist() == [7, 7, 7]
        assert torch.nn.init.ones_(torch.zeros(1)).item() == 1
        assert torch.nn.init.normal_(torch.zeros(2)).tolist() == [0, 0]
    assert package.Net().table.tolist() == [1, 1, 1]
    assert torch.nn.init.normal_(torch.zeros(2)).tolist() != [0, 0]


def test_a_mask_without_values_is_its_own_triangle() -> None:
    with on_meta():
        mask = torch.empty(4, 4).fill_(-1.0)
        assert mask.triu_(1) is mask
        assert torch.nn.Linear(3, 2).weight.is_meta
