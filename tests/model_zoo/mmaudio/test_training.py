"""The loop: golden step, analytic floor, schedules, what a run is taken up by, failing metrics, configs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import Clip, ClipSet, Generator, MetricError, MissingRequirement, UsageError
from av_bench.schema import build
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.features.read import Rows
from model_zoo.mmaudio.features.write import Sample, ShardWriter
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.journal import read_log
from model_zoo.mmaudio.training.loop import Evaluation, train
from model_zoo.mmaudio.training.mix import Batch
from model_zoo.mmaudio.training.objective import Matching, Normaliser, adamw, gradients, losses, update
from model_zoo.mmaudio.training.recipe import FlowRecipe, Schedule, read_recipe
from tests.model_zoo.mmaudio.goldens import GOLDEN, needs_golden
from tests.model_zoo.mmaudio.training_tools import SHAPES, Carrier, text_features, tiny_recipe

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

    found = gradients(network, batch, Matching(normalise))
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


@pytest.mark.slow
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
    from model_zoo.mmaudio.training import setup
    from model_zoo.mmaudio.training.distributed import Cluster

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


# ----------------------------------------------------------------------- metrics that fail


class Killed(BaseException):
    """Stands for a kill: nothing of the package catches it."""


def evaluation(out: Path, *failures: BaseException | None) -> Evaluation:
    """Raises its failures one call after the other; what is saved by then is its metric."""
    left = list(failures)

    def evaluator(_: Generator, __: ClipSet) -> Mapping[str, float]:
        failure = left.pop(0) if left else None
        if failure is not None:
            raise failure
        return {"saved": float(max(int(p.name[5:]) for p in (out / "checkpoints").glob("step-*")))}

    clips = ClipSet("set", "1", (Clip("a"),))
    return Evaluation(evaluator, clips, Carrier)  # type: ignore[arg-type]


def metrics(out: Path) -> list[dict[str, Any]]:
    return [e for e in read_log(out / "log.jsonl") if e["kind"].startswith("metrics")]


@pytest.mark.parametrize(
    "failure", [MissingRequirement("weights 'x' are missing"), MetricError("too few"), OSError(28, "No space left")]
)
def test_failing_metrics_are_said_and_training_goes_on(
    tmp_path: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, out = tiny_recipe(tmp_path, every={"metrics": 2}), tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        train(recipe, out, evaluation(out, None, failure), quiet=True)
    reason = f"{type(failure).__name__}: {failure}"
    assert metrics(out) == [
        {"step": 2, "kind": "metrics", "saved": 2.0},
        {"step": 4, "kind": "metrics-failed", "reason": reason},
        {"step": 6, "kind": "metrics", "saved": 6.0},  # the step's own checkpoint was there before
    ]
    assert f"step 4: no metrics, training continues: {reason}" in caplog.text
    assert (out / "weights" / "last.safetensors").is_file()


def test_metrics_that_a_kill_cut_off_are_made_on_the_way_on(tmp_path: Path) -> None:
    recipe, out = tiny_recipe(tmp_path, every={"metrics": 2}), tmp_path / "out"
    with pytest.raises(Killed):
        train(recipe, out, evaluation(out, None, Killed()), quiet=True)
    assert [e["step"] for e in metrics(out)] == [2]
    train(recipe, out, evaluation(out), quiet=True)
    assert [(e["step"], e["kind"], e["saved"]) for e in metrics(out)] == [(s, "metrics", s) for s in (2, 4, 6)]
    train(recipe, out, evaluation(out), quiet=True)
    assert len(metrics(out)) == 3


# ----------------------------------------------------------------------- what a run is taken up by


def without(tmp_path: Path, *names: str, steps: int, file: str = "names.txt") -> FlowRecipe:
    """A recipe that leaves recordings out by a text file."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("".join(f"{name}\n" for name in names))
    return tiny_recipe(tmp_path, steps=steps, data={"exclude": str(tmp_path / file)})


def test_an_exclusion_list_is_known_by_what_it_leaves(tmp_path: Path) -> None:
    """Another list that leaves as many samples is refused, the same one goes on wherever it lies."""
    out = tmp_path / "out"
    train(without(tmp_path, "0-003", steps=2), out, quiet=True)
    assert (out / "excluded.txt").read_text() == "0-003\n"
    with pytest.raises(UsageError, match=r"another list of excluded recordings \(--exclude, data.exclude\)"):
        train(without(tmp_path, "0-007", steps=4), out, quiet=True)
    with pytest.raises(UsageError, match=r"another number of samples \(46 then, 48 now\), list of excluded"):
        train(tiny_recipe(tmp_path, steps=4), out, quiet=True)
    assert (out / "excluded.txt").read_text() == "0-003\n"
    shutil.move(out, tmp_path / "moved")
    train(without(tmp_path, "0-003", steps=3, file="elsewhere/other.txt"), tmp_path / "moved", quiet=True)
    train(tiny_recipe(tmp_path, steps=4), tmp_path / "moved", quiet=True, excluded=frozenset({"0-003"}))


def test_a_checkpoint_of_before_lists_were_kept_goes_by_the_count(tmp_path: Path) -> None:
    """It holds the list's path, and no digest."""
    train(without(tmp_path, "0-003", steps=2), tmp_path / "out", quiet=True)
    file = tmp_path / "out" / "checkpoints" / "step-000000002" / "state.json"
    content = json.loads(file.read_text())
    del content["state"]["kept"]
    old = json.loads(content["state"]["recipe"])
    old["data"]["exclude"] = "out/excluded.txt"
    content["state"]["recipe"] = json.dumps(old, sort_keys=True)
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"number of samples \(46 then, 44 now\)"):
        train(without(tmp_path, "0-003", "0-004", steps=4), tmp_path / "out", quiet=True)
    train(without(tmp_path, "0-003", steps=4), tmp_path / "out", quiet=True)


def test_fewer_steps_than_were_done_are_refused(tmp_path: Path) -> None:
    train(tiny_recipe(tmp_path, steps=4), tmp_path / "out", quiet=True)
    before = (tmp_path / "out" / "weights" / "last.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"a training run of 4 steps, the config asks for 3.*Set steps to 4 or more"):
        train(tiny_recipe(tmp_path, steps=3), tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "weights" / "last.safetensors").read_bytes() == before


# ----------------------------------------------------------------------- configs that cannot be read


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"base: small_16k\n", ["batch=[1"], r"--change batch=\[1: not YAML"),
        ("base: small_16k\nname: caf\xe9\n".encode("latin-1"), [], r"mine.yaml: not UTF-8 text"),
        (b"base: 3\nname: mine\n", [], "mine.yaml: base: expected the name of a config, got 3"),
        (b"base: [small_16k]\n", [], r"mine.yaml: base: expected the name of a config, got \['small_16k'\]"),
        (b"base: ../here/mine.yaml\n", [], "its bases lead back to itself"),
        (b"base: small_16k\n", ["optimiser.rate=1" + "0" * 400], "optimiser: rate: expected a number"),
    ],
)
def test_a_config_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, content: bytes, changes: list[str], message: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "here" / "mine.yaml", changes)


def test_an_exclusion_list_of_another_encoding_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"data.exclude: .*names.txt: 'utf-8' codec"):
        train(tiny_recipe(tmp_path, data={"exclude": str(tmp_path / "names.txt")}), tmp_path / "out", quiet=True)
