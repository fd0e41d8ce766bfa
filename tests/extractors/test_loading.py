"""Official files into networks: strictness, wrappers, hashes. Small networks; the real layouts are in test_paper_*."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from av_bench import extractors, registry, weights
from av_bench.contracts import MissingRequirement
from av_bench.extractors import frontends
from av_bench.extractors.panns import Panns
from av_bench.weights import BadWeights
from av_bench.weights.fill import check_stored, load_into, read


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: value + 1 for key, value in nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict().items()}


def saved(content: object, folder: Path) -> Path:
    path = folder / "weights.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "iteration": 7, "sampler": {"order": np.arange(4), "rate": np.float64(0.1)}},
        lambda s: {"epoch": 15, "state_dict": {f"module.{k}": v for k, v in s.items()}, "optimizer": {"lr": 0.1}},
    ],
    ids=["flat", "model-with-numpy", "state_dict-with-module-prefix"],
)
def test_official_wrappers_are_opened(wrap: object, tmp_path: Path) -> None:
    expected, module = state(), network()
    path = saved(wrap(expected), tmp_path)  # type: ignore[operator]
    digest = load_into(module, read(path, "panns"))
    assert digest == weights.file_sha256(path)
    for key, value in module.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_half_precision_files_become_float32_and_counters_stay_integers(tmp_path: Path) -> None:
    halved = {key: value.half() if value.is_floating_point() else value for key, value in state().items()}
    module = network()
    load_into(module, read(saved(halved, tmp_path), "panns"))
    assert {value.dtype for key, value in module.state_dict().items() if "tracked" not in key} == {torch.float32}
    assert module.state_dict()["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), r"1 missing keys \(0\.weight\)"),
        (lambda s: s.update({"2.extra": torch.zeros(1)}), r"1 unexpected keys \(2\.extra\)"),
        (lambda s: s.update({"0.weight": torch.zeros(2, 4)}), r"0\.weight \(2, 4\) instead of \(2, 3\)"),
        (lambda s: s["0.weight"].fill_(torch.inf), r"1 tensors that are not finite \(0\.weight\)"),
        (lambda s: s["1.running_mean"].fill_(torch.nan), r"1 tensors that are not finite \(1\.running_mean\)"),
    ],
    ids=["missing", "unexpected", "shape", "infinite", "nan-buffer"],
)
def test_what_does_not_fit_is_named(change: object, message: str, tmp_path: Path) -> None:
    wrong = state()
    change(wrong)  # type: ignore[operator]
    with pytest.raises(BadWeights, match=message):
        load_into(network(), read(saved(wrong, tmp_path), "panns"))
    with pytest.raises(BadWeights, match=message):
        load_into(network(), read(wrong, "panns"))


def test_only_keys_that_match_the_pattern_are_ignored(tmp_path: Path) -> None:
    more = state() | {"tower.text.weight": torch.zeros(1)}
    load_into(network(), read(saved(more, tmp_path), "panns"), ignore=r"tower\.text\.")
    with pytest.raises(BadWeights, match=r"tower\.text\.weight"):
        load_into(network(), read(saved(more, tmp_path), "panns"), ignore=r"tower\.audio\.")


def test_hash_is_known_before_the_network_is_built(tmp_path: Path) -> None:
    """The plan of a run names fingerprints of extractors that it may never have to build."""
    for weights_given in (state(), saved(state(), tmp_path)):
        assert load_into(network(), read(weights_given, "panns")) == Panns.weights_hash_of(weights_given)
    changed = state()
    changed["0.bias"] = changed["0.bias"] + 1e-3
    assert Panns.weights_hash_of(changed) != Panns.weights_hash_of(state())


@pytest.mark.parametrize("name", [n for n in registry.OWN["extractors"] if not n.startswith(("nano", "onsets"))])
def test_absent_weights_are_named_at_once_with_the_command(name: str) -> None:
    extractor: Any = registry.load("extractors", name)
    command = rf"av-bench weights pull {re.escape(extractor.weights_name)}"
    for attempt in (lambda: extractors.load(name), lambda: extractor.weights_hash_of(None)):
        with pytest.raises(MissingRequirement, match=command):
            attempt()


def test_a_buffer_without_values_is_an_error_not_garbage() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.register_buffer("table", torch.zeros(1), persistent=False)

    with torch.device("meta"):
        module = Forgetful()
    with pytest.raises(RuntimeError, match="table"):
        load_into(module, read(nn.Linear(1, 1).state_dict(prefix="layer."), "panns"))


@pytest.mark.parametrize(
    ("name", "entry", "kind"),
    [("clap-text", "laion-clap", "roberta-base"), ("msclap-text", "ms-clap", "gpt2")],
)
def test_absent_vocabulary_is_named_at_once_too(
    name: str, entry: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The weights being there, a plan still fails before any clip is decoded."""
    require = weights.require
    monkeypatch.setattr(weights, "require", lambda n: saved(state(), tmp_path) if n == entry else require(n))
    with pytest.raises(MissingRequirement, match=f"av-bench weights pull {kind}-vocab"):
        registry.load("extractors", name).weights_hash_of(None)


def test_a_checkpoint_with_another_mel_matrix_is_refused(tmp_path: Path) -> None:
    bank = frontends.mel_bank(16_000, 512, 64, 50.0, 8000.0, scale="slaney", unit_area=True).T
    other = frontends.mel_bank(16_000, 512, 64, 50.0, 7900.0, scale="slaney", unit_area=True).T
    check_stored(read(saved({"melW": bank.contiguous()}, tmp_path), "panns"), "melW", bank)
    with pytest.raises(BadWeights, match="melW differs"):
        check_stored(read(saved({"melW": other.contiguous()}, tmp_path), "panns"), "melW", bank)
