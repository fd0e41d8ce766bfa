"""Fine-tuning: what a training starts from, what is frozen, adapters, rates; and equal trainings as equal files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import UsageError
from av_bench.weights import BadWeights
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.load import load_trained, read_about, read_flow
from model_zoo.mmaudio.flow.lora import Lora
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.loop import Trainer, train
from model_zoo.mmaudio.training.recipe import FlowRecipe, read_recipe
from model_zoo.mmaudio.training.result import Result
from tests.model_zoo.mmaudio.training_tools import NETWORK, config_file, tiny_recipe

ROOT = Path(__file__).resolve().parents[3]
CONFIG = NetworkConfig(**NETWORK)  # type: ignore[arg-type]
LORA = {"rank": 2, "targets": ["*.attn.qkv", "*_input_proj.*.w1"]}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of another training: statistics and empty text that are not those of the features."""
    torch.manual_seed(3)
    made = FlowNetwork(
        CONFIG,
        latent_mean=torch.full((4,), 0.7),
        latent_std=torch.full((4,), 1.5),
        empty_string=torch.full((5, 6), 0.1),
    )
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    recipe = tiny_recipe(tmp_path)
    Result(tmp_path / "start", recipe, CONFIG, 1).write("last", made.state_dict())
    return tmp_path / "start" / "last.safetensors"


def trainer(path: Path, recipe: FlowRecipe) -> Trainer:
    made = Trainer(recipe, path / "out", Cluster(0, 1, torch.device("cpu")), quiet=True)
    made.close()
    return made


def test_training_starts_from_the_weights_and_keeps_their_statistics(tmp_path: Path, start: Path) -> None:
    before = load_file(start)
    made = trainer(tmp_path, tiny_recipe(tmp_path, init=str(start)))
    state = made.network.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert torch.equal(made.normalise.mean.flatten(), torch.full((4,), 0.7))
    weights = train(tiny_recipe(tmp_path, init=str(start), steps=2), tmp_path / "tuned", quiet=True)
    after = load_file(weights / "last.safetensors")
    fixed = ("latent_mean", "latent_std", "empty_string_feat")
    assert all(torch.equal(after[key], before[key]) for key in fixed)
    assert not torch.equal(after["final_layer.conv.weight"], before["final_layer.conv.weight"])
    about = read_about(weights / "last.safetensors")
    assert (about["init"], about["init_digest"]) == (str(start), read_flow(str(start)).digest)


def test_frozen_parts_stay_and_rates_differ(tmp_path: Path, start: Path) -> None:
    options: dict[str, Any] = {
        "init": str(start),
        "frozen": ["*_input_proj.*", "t_embed.*"],
        "rates": [{"match": "final_layer.*", "factor": 0.25}],
        "schedule": {"warmup": 0},
    }
    before = load_file(start)
    made = trainer(tmp_path, tiny_recipe(tmp_path, **options))
    made.train_step()
    assert [group["lr"] for group in made.optimiser.param_groups] == [0.25 * 1e-3, 1e-3]
    moved = {k: float((v - before[k]).abs().max()) for k, v in made.network.state_dict().items()}
    still = {key for key, value in moved.items() if value == 0}
    assert {k for k in moved if "_input_proj." in k or k.startswith("t_embed.")} <= still
    assert "joint_blocks.0.latent_block.attn.qkv.weight" not in still
    # Adam's first step is about the rate, whatever the gradient
    assert moved["final_layer.conv.bias"] == pytest.approx(0.25e-3, rel=0.05)
    assert moved["fused_blocks.0.linear1.bias"] == pytest.approx(1e-3, rel=0.05)


def test_adapters_start_at_nothing_train_alone_and_are_small(tmp_path: Path, start: Path) -> None:
    recipe = tiny_recipe(tmp_path, init=str(start), lora=LORA | {"merged": True, "alpha": 4.0}, steps=3)
    first = trainer(tmp_path, recipe)
    batch = first._batch(0)
    base = FlowNetwork(CONFIG)
    base.load_official(load_file(start))
    inputs = (batch.noise, batch.rows.clip, batch.rows.sync, batch.rows.text, batch.t)
    torch.testing.assert_close(first.network(*inputs), base(*inputs), rtol=0, atol=0)
    weights = train(recipe, tmp_path / "out", quiet=True)
    names = {p.name for p in weights.iterdir()}
    assert names == {f"{n}{m}.safetensors" for n in ("last", "ema-0.05") for m in ("", "-merged")}
    adapters = load_file(weights / "last.safetensors")
    assert all(key.endswith((".up", ".down")) for key in adapters)
    assert sum(v.numel() for v in adapters.values()) < 0.2 * sum(v.numel() for v in load_file(start).values())
    merged, made = (
        load_file(weights / "last-merged.safetensors"),
        load_trained(weights / "last.safetensors", CONFIG, "tiny"),
    )
    assert all(torch.equal(merged[key], value) for key, value in made.state_dict().items())
    key = "joint_blocks.0.latent_block.attn.qkv"
    wanted = load_file(start)[f"{key}.weight"] + 2.0 * adapters[f"{key}.up"] @ adapters[f"{key}.down"]
    torch.testing.assert_close(merged[f"{key}.weight"], wanted)
    assert float(adapters[f"{key}.up"].abs().max()) > 0
    assert torch.equal(merged["fused_blocks.0.linear1.weight"], load_file(start)["fused_blocks.0.linear1.weight"])


KILLED = """
import sys
from tests.kill_server import kill_at
kill_at(int(sys.argv[1]), sys.argv[2], sys.argv[3])
from av_bench.cli.app import main
sys.argv = ["av-bench", *sys.argv[4:]]
main()
"""


def test_a_fine_tuning_that_is_killed_ends_as_an_unbroken_one(tmp_path: Path, start: Path) -> None:
    """SIGKILL while the third checkpoint is written. The files are equal to the last byte."""
    recipe = tiny_recipe(
        tmp_path,
        steps=12,
        init=str(start),
        lora=LORA,
        rates=[{"match": "*.up", "factor": 2.0}],
        every={"log": 3, "validate": 0, "snapshot": 4, "checkpoint": 2},
    )
    config, broken, unbroken = config_file(tmp_path / "tiny.yaml", recipe), tmp_path / "broken", tmp_path / "unbroken"
    kill = ["-c", KILLED, "20", str(broken / "checkpoints"), str(tmp_path / "changes")]
    command = [sys.executable, *kill, "train", str(config), "--out", str(broken), "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for out in (broken, unbroken):
            train(read_recipe(config), out, quiet=True)
    finally:
        torch.set_num_threads(threads)
    files = [sorted((out / "weights").iterdir()) for out in (broken, unbroken)]
    assert [p.name for p in files[0]] == [p.name for p in files[1]] == ["ema-0.05.safetensors", "last.safetensors"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


def test_other_weights_to_start_from_are_another_training(tmp_path: Path, start: Path) -> None:
    train(tiny_recipe(tmp_path, init=str(start), steps=2), tmp_path / "out", quiet=True)
    moved = start.rename(tmp_path / "moved.safetensors")
    train(tiny_recipe(tmp_path, init=str(moved), steps=3), tmp_path / "out", quiet=True)
    tensors = load_file(moved)
    tensors["t_embed.mlp.0.bias"] += 1
    Result(tmp_path, tiny_recipe(tmp_path), CONFIG, 1).write("other", tensors)
    with pytest.raises(UsageError, match="another init: its weights"):
        train(tiny_recipe(tmp_path, init=str(tmp_path / "other.safetensors"), steps=4), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="another init: its weights"):
        train(tiny_recipe(tmp_path, steps=4), tmp_path / "out", quiet=True)


def adapters(tmp_path: Path, start: Path) -> Path:
    recipe = tiny_recipe(tmp_path, init=str(start), lora=LORA, steps=1)
    return train(recipe, tmp_path / "adapted", quiet=True) / "last.safetensors"


def test_adapters_of_other_weights_are_refused(tmp_path: Path, start: Path) -> None:
    file = adapters(tmp_path, start)
    other = load_file(start)
    other["t_embed.mlp.0.bias"] += 1
    Result(start.parent, tiny_recipe(tmp_path), CONFIG, 1).write("last", other)
    with pytest.raises(UsageError, match="adapters of other weights"):
        load_trained(file, CONFIG, "tiny")


def test_adapters_of_another_network_are_refused(tmp_path: Path, start: Path) -> None:
    from av_bench.weights import hash_of_mapping
    from model_zoo.mmaudio.flow.load import header_of
    from model_zoo.mmaudio.training.checkpoints import write_weights

    file = adapters(tmp_path, start)
    about = read_about(file)
    small = FlowNetwork(NetworkConfig(**NETWORK | {"hidden": 8}))  # type: ignore[arg-type]
    write_weights(start, small.state_dict(), header_of({"network": asdict(small.config)}))
    about["init_digest"] = hash_of_mapping(small.state_dict())
    write_weights(file, load_file(file), header_of(about))
    with pytest.raises(BadWeights, match="adapters of another network"):
        read_flow(str(file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"hidden": 32}}, "holds another network: hidden 16 instead of 32"),
        ({"network": {"rope": "none"}}, "rope aligned instead of none"),
        ({"init": "mmaudio-nan"}, "Did you mean 'mmaudio-nano'"),
        ({"init": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
        ({"init": "mmaudio-nano"}, "holds another network: latent_dim 48 instead of 4"),
        ({"frozen": ["audio_proj*"]}, "frozen: 'audio_proj\\*' fits no trained parameter"),
        ({"frozen": ["*"]}, "frozen leaves nothing to train"),
        ({"lora": {"rank": 2, "targets": ["*.qvk"]}}, "lora.targets: '\\*.qvk' fits no layer"),
        ({"rates": [{"match": "nothing", "factor": 2.0}]}, "'nothing' fits no trained parameter"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, start: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        trainer(tmp_path, tiny_recipe(tmp_path, **{"init": str(start), **changes}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 2}}, "lora needs init"),
        ({"init": "x", "lora": {"rank": 0}}, "rank must be at least 1"),
        ({"init": "x", "lora": {"rank": 1, "alpha": 0.0}}, "alpha must be a positive number"),
        ({"rates": [{"match": "*", "factor": -1.0}]}, "must be a positive number"),
    ],
)
def test_wrong_numbers_are_refused_with_the_recipe(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_recipe(tmp_path, **changes)


def test_equal_trainings_give_equal_files(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, steps=2)
    found = [train(recipe, tmp_path / name, quiet=True) for name in ("a", "b")]
    for name in ("last.safetensors", "ema-0.05.safetensors"):
        first, second = ((folder / name).read_bytes() for folder in found)
        assert first == second
    assert read_flow(str(found[0] / "last.safetensors")).digest == read_flow(str(found[1] / "last.safetensors")).digest


def test_a_header_of_version_0_1_is_still_read(tmp_path: Path, start: Path) -> None:
    from safetensors.torch import save_file

    old = {"network": json.dumps(asdict(CONFIG)), "recipe": "tiny", "step": "1", "weights": "last"}
    save_file(load_file(start), tmp_path / "old.safetensors", old)
    assert load_trained(tmp_path / "old.safetensors", CONFIG, "tiny").config == CONFIG
    assert Lora(4).scale == 1.0
