"""The loop: golden step, analytic floor, schedules, exact resume, validation, metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.dataset import Rows
from model_zoo.mmaudio.logs import read_log
from model_zoo.mmaudio.mix import Batch
from model_zoo.mmaudio.network import FlowNetwork
from model_zoo.mmaudio.objective import Normaliser, adamw, gradients, losses, update
from model_zoo.mmaudio.recipe import Schedule, build
from model_zoo.mmaudio.shards import Sample, ShardWriter
from model_zoo.mmaudio.training import train
from tests.model_zoo.mmaudio.goldens import GOLDEN, needs_golden
from tests.model_zoo.mmaudio.training_tools import SHAPES, text_features, tiny_recipe

ROOT = Path(__file__).resolve().parents[3]


# ----------------------------------------------------------------------- golden step


@needs_golden
def test_golden_training_step() -> None:
    """Masks, losses per sample, gradient norms, and parameters after one AdamW step, against the published code's."""
    golden = torch.load(GOLDEN / "mmaudio_tiny" / "train_step_v1.pt", weights_only=True)
    state = torch.load(GOLDEN / "mmaudio_tiny" / "weights_v1.pt", weights_only=True)["state_dict"]
    config = NetworkConfig(
        latent_dim=5, clip_dim=32, sync_dim=24, text_dim=40, hidden=64, depth=5, fused_depth=3, heads=2,
        latent_len=31, clip_len=8, sync_len=24, text_len=7,
    )  # fmt: skip
    network = FlowNetwork(config)
    network.load_official(state)
    given = golden["inputs"]
    rows = Rows(
        given["a_mean"], given["a_std"], given["clip"], given["sync"], given["text"],
        given["video_exist"], given["text_exist"],
    )  # fmt: skip
    drops = given["null_video"] | ~given["video_exist"], given["null_text"] | ~given["text_exist"]
    batch = Batch(rows, given["eps"], given["x0"], given["t"], *drops)
    normalise = Normaliser(network.latent_mean.detach(), network.latent_std.detach())

    found = gradients(network, batch, normalise)
    torch.testing.assert_close(found, golden["loss_per_sample"], rtol=1e-4, atol=0)
    norms = {k: None if p.grad is None else float(p.grad.norm()) for k, p in network.named_parameters()}
    expected = golden["grad_norm_per_param_before_clip"]
    assert norms.keys() == expected.keys()
    largest = max(v for v in expected.values() if v is not None)
    for key, value in expected.items():
        assert (norms[key] is None) == (value is None), key
        if value is not None:
            assert norms[key] == pytest.approx(value, rel=1e-4, abs=1e-6 * largest), key
    a = golden["adamw"]
    norm = update(adamw(network, a["lr"], a["wd"], tuple(a["betas"]), a["eps"]), a["lr"], a["clip"])
    assert float(norm) == pytest.approx(golden["total_grad_norm"], rel=1e-4)
    for key, parameter in network.named_parameters():
        value, size = golden["param_sums_after_adamw_step"][key], float(parameter.detach().abs().sum())
        assert float(parameter.detach().double().sum()) == pytest.approx(value, rel=1e-5, abs=1e-6 * size + 2e-5), key


@needs_golden
def test_schedule_of_the_published_code() -> None:
    golden = json.loads((GOLDEN / "full_size" / "lr_schedule_small.json").read_text())
    schedule = Schedule(golden["warmup"], tuple(golden["milestones"]), golden["gamma"], "code")
    found = [golden["base"] * schedule.factor(i) for i in range(len(golden["lr_used_at_iteration"]))]
    assert found == pytest.approx(golden["lr_used_at_iteration"], rel=1e-12)


def test_paper_and_code_count_milestones_differently() -> None:
    paper, code = (build(Schedule, {"counting": name}, "") for name in ("paper", "code"))
    assert [paper.factor(s) for s in (0, 999, 1000, 239_999)] == pytest.approx([1 / 1001, 1000 / 1001, 1, 1])
    changes = {"paper": (240_000, 270_000), "code": (241_000, 271_000)}
    for schedule in (paper, code):
        first, second = changes[schedule.counting]
        found = [schedule.factor(s) for s in (first - 1, first, second - 1, second)]
        assert found == pytest.approx([1, 0.1, 0.1, 0.01])


# ----------------------------------------------------------------------- analytic floor


def floor(std: torch.Tensor) -> float:
    """Least possible loss when the data are normal with known mean and standard deviation s around it.

    With x_t = (1-t) x0 + t x1, x0 ~ N(0, 1), x1 ~ N(m, s^2), the velocity x1 - x0 and x_t are jointly normal, and the
    conditional variance is (1 + s^2) - (t s^2 - (1-t))^2 / ((1-t)^2 + t^2 s^2) = s^2 / ((1-t)^2 + t^2 s^2).
    No network can do better than its mean over elements and over t = sigmoid(normal).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    t = 1 / (1 + np.exp(-nodes))[:, None]
    s2 = std.double().numpy().reshape(1, -1) ** 2
    return float((weights[:, None] * s2 / ((1 - t) ** 2 + t**2 * s2)).sum(0).mean() / weights.sum())


def test_overfitting_one_batch_reaches_the_floor(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    with ShardWriter(tmp_path / "features", dtype="fp32") as writer:
        writer.add_text("", text_features(""))
        for n in range(4):
            mean = torch.randn(SHAPES["mean"], generator=generator)
            seen = [torch.randn(SHAPES[k], generator=generator) for k in ("clip", "sync")]
            std = torch.full(SHAPES["std"], 0.3 + 0.2 * n)
            writer.append(Sample(f"{n}", mean, std, *seen, f"text {n}", text_features(f"text {n}")))
    recipe = tiny_recipe(
        tmp_path,
        data={"train": [{"path": str(tmp_path / "features"), "repeat": 8}], "validation": []},
        dropout={"video": 0.0, "text": 0.0},
        batch=32,
        steps=400,
        optimiser={"rate": 5e-3},
        schedule={"warmup": 20, "milestones": [250, 350]},
        every={"log": 100, "validate": 0, "snapshot": 0, "checkpoint": 0},
    )
    train(recipe, tmp_path / "out", quiet=True)
    from model_zoo.mmaudio import setup
    from model_zoo.mmaudio.distributed import Cluster

    mix, _ = setup.mixes(recipe, Cluster(0, 1, torch.device("cpu")))
    network = setup.network(recipe, mix)
    network.load_state_dict(load_file(tmp_path / "out" / "weights" / "last.safetensors"))
    normalise = Normaliser(network.latent_mean.detach(), network.latent_std.detach())
    with torch.no_grad():
        unseen = [mix.batch(step, 32, recipe.dropout) for step in range(10_000, 10_040)]
        loss = float(torch.cat([losses(network, batch, normalise) for batch in unseen]).mean())
    stds = torch.stack([torch.full(SHAPES["std"], 0.3 + 0.2 * n) for n in range(4)]) / network.latent_std.detach()
    least = floor(stds)
    start = read_log(tmp_path / "out" / "log.jsonl")[0]["loss"]
    print(f"floor {least:.4f}, reached {loss:.4f}, first hundred steps {start:.4f}")
    assert 0.97 * least < loss < 1.1 * least  # 3 % for the finite sample of noise
    assert start > 1.3 * least
