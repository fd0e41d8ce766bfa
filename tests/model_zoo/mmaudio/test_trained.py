"""What training wrote goes into sampling: sizes and switches from the file's header, odd files named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.weights import BadWeights
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.load import load_trained
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.sampling import published
from model_zoo.mmaudio.training import checkpoints

CONFIG = NetworkConfig(4, 16, 3, 1, 2, 32, 16, 200, clip_dim=3, sync_dim=3, text_dim=5, text_len=6, rope="none")


@pytest.fixture
def network() -> FlowNetwork:
    torch.manual_seed(3)
    made = FlowNetwork(CONFIG, latent_mean=torch.zeros(4), latent_std=torch.ones(4), empty_string=torch.randn(6, 5))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


@pytest.fixture
def file(network: FlowNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "ema-0.05.safetensors"
    header = {"network": json.dumps(asdict(CONFIG)), "recipe": "mine", "step": "10", "weights": "ema-0.05"}
    checkpoints.write_weights(path, dict(network.state_dict()), header)
    return path


def test_the_files_own_switches_count(network: FlowNetwork, file: Path) -> None:
    found = load_trained(file, replace(CONFIG, rope="aligned", hidden=32), "a variant")
    assert found.config == CONFIG
    raw = torch.randn(2, 16, 3), torch.randn(2, 200, 3), torch.randn(2, 6, 5)
    x, t = torch.randn(2, 32, 4), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        torch.testing.assert_close(found(x, *raw, t), network(x, *raw, t), rtol=0, atol=0)


def test_a_network_for_another_codec_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="latent_dim 4 instead of 20, clip_dim 3 instead of 1024"):
        published.MMAudioSmall16k(weights=str(file))


def test_damaged_and_missing_files_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="no such file"):
        load_trained(tmp_path / "none.safetensors", CONFIG, "a variant")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadWeights, match="not a readable safetensors file"):
        load_trained(file, CONFIG, "a variant")
    file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UsageError, match="its header has no network sizes"):
        load_trained(file, CONFIG, "a variant")
