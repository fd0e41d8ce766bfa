"""Whole training runs: exact resume, switches that change rounding only, validation, metrics, averages, failures."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from av_bench.contracts import Clip, ClipSet, Generator, MissingRequirement, UsageError
from av_bench.runtime.files import lock
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.features.write import ShardWriter
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training import checkpoints
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.ema import decay, gamma_of
from model_zoo.mmaudio.training.journal import read_log
from model_zoo.mmaudio.training.loop import Evaluation, Trainer, TrainingFailed, train
from model_zoo.mmaudio.training.objective import update
from model_zoo.mmaudio.training.recipe import FlowRecipe, read_recipe, snapshots_at_end
from model_zoo.mmaudio.training.snapshots import Snapshots
from tests.model_zoo.mmaudio.training_tools import (
    NETWORK,
    SHAPES,
    Carrier,
    config_file,
    samples,
    text_features,
    tiny_recipe,
)

ROOT = Path(__file__).resolve().parents[3]


# ----------------------------------------------------------------------- resume


def weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.name: load_file(p) for p in sorted((out / "weights").glob("*.safetensors"))}


def same_bits(a: Mapping[str, Mapping[str, torch.Tensor]], b: Mapping[str, Mapping[str, torch.Tensor]]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[f][k], b[f][k]) for f in a for k in a[f] | b[f])


def events(out: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    return [{k: v for k, v in e.items() if k != "samples_per_second"} for e in read_log(out / "log.jsonl")]


KILLED_TRAINING = """
import sys
from tests.kill_server import kill_at
kill_at(int(sys.argv[1]), sys.argv[2], sys.argv[3])
from av_bench.cli.app import main
sys.argv = ["av-bench", *sys.argv[4:]]
main()
"""


def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    """SIGKILL while the third checkpoint (each is seven changes) is written; then resumed: same bits, same log."""
    recipe = tiny_recipe(tmp_path, steps=30, every={"log": 7, "validate": 12, "snapshot": 5, "checkpoint": 5})
    config, broken, unbroken = config_file(tmp_path / "tiny.yaml", recipe), tmp_path / "broken", tmp_path / "unbroken"
    kill = ["-c", KILLED_TRAINING, "20", str(broken / "checkpoints"), str(tmp_path / "changes")]
    command = [sys.executable, *kill, "train", str(config), "--out", str(broken), "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    left = checkpoints.load_latest(broken / "checkpoints")
    assert left is not None
    assert left.step == 10
    assert list((broken / "checkpoints").glob(".*.part"))
    assert not (broken / "weights").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(read_recipe(config), broken, quiet=True)
        train(read_recipe(config), unbroken, quiet=True)
    finally:
        torch.set_num_threads(threads)
    assert set(weights(broken)) == {"last.safetensors", "ema-0.05.safetensors"}
    assert same_bits(weights(broken), weights(unbroken))
    assert events(broken) == events(unbroken)
    names = [sorted(p.name for p in (out / "snapshots").iterdir()) for out in (broken, unbroken)]
    assert names[0] == names[1]


def test_training_continues_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing stops until step 4 was made; what is written is step 2 all the same, and the run ends as any other."""
    reached, written = threading.Event(), []
    write = checkpoints.save

    def slow(root: Path, step: int, *rest: Any) -> Path:
        assert reached.wait(60)
        written.append(step)
        return write(root, step, *rest)

    monkeypatch.setattr(checkpoints, "save", slow)
    every = {"log": 0, "validate": 0, "snapshot": 0, "checkpoint": 2}
    options: dict[str, Any] = {"steps": 4, "every": every, "ema": {"final": []}}
    trainer = Trainer(
        tiny_recipe(tmp_path, run={"background": True}, **options), tmp_path / "a", Cluster(0, 1, torch.device("cpu"))
    )
    step = trainer.train_step

    def seen() -> torch.Tensor:
        losses = step()
        if trainer.step == 4:
            assert written == []
            reached.set()
        return losses

    monkeypatch.setattr(trainer, "train_step", seen)
    trainer.run()
    trainer.close()
    assert written == [2, 4]
    train(tiny_recipe(tmp_path, **options), tmp_path / "b", quiet=True)
    for name in ("step-000000002", "step-000000004"):
        first, second = (
            (tmp_path / out / "checkpoints" / name / "tensors.safetensors").read_bytes() for out in ("a", "b")
        )
        assert first == second


def test_a_checkpoint_that_cannot_be_written_in_the_background_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Path:
        raise MissingRequirement("checkpoint of step 2 could not be written")

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.raises(MissingRequirement, match="step 2 could not be written"):
        train(tiny_recipe(tmp_path, run={"background": True}), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "weights").exists()


def test_started_again_when_done_changes_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    train(recipe, tmp_path / "out", quiet=True)
    before, log = weights(tmp_path / "out"), events(tmp_path / "out")
    train(recipe, tmp_path / "out", quiet=True)
    assert same_bits(before, weights(tmp_path / "out"))
    assert events(tmp_path / "out") == log
    longer = tiny_recipe(tmp_path, steps=8)
    train(longer, tmp_path / "out", quiet=True)
    train(longer, tmp_path / "straight", quiet=True)
    assert same_bits(weights(tmp_path / "out"), weights(tmp_path / "straight"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 6}, "seed"), ({"batch": 6}, "batch"), ({"optimiser": {"rate": 1e-5}}, "optimiser")],
)
def test_another_recipe_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    train(tiny_recipe(tmp_path, steps=2), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match=f"another {message}"):
        train(tiny_recipe(tmp_path, **change), tmp_path / "out", quiet=True)


def changed_features(path: Path) -> Path:
    """A folder like the recipe's, with as many samples, but other latents."""
    with ShardWriter(path, 7, "fp32") as writer:
        writer.add_text("", text_features(""))
        for sample in samples(24, seed=77):
            writer.append(replace(sample, mean=3 * sample.mean + 5))
    return path


def test_other_features_of_the_same_size_are_refused(tmp_path: Path) -> None:
    """A copy elsewhere goes on; other content does not, whatever its folder is called."""
    train(tiny_recipe(tmp_path, steps=2), tmp_path / "out", quiet=True)
    other = {"train": [{"path": str(changed_features(tmp_path / "other")), "repeat": 2}]}
    with pytest.raises(UsageError, match="another content of the training features"):
        train(tiny_recipe(tmp_path, data=other), tmp_path / "out", quiet=True)
    shutil.copytree(tmp_path / "features", tmp_path / "moved")
    moved = {"train": [{"path": str(tmp_path / "moved"), "repeat": 2}]}
    train(tiny_recipe(tmp_path, steps=3, data=moved), tmp_path / "out", quiet=True)


def test_resumed_run_keeps_the_statistics_of_its_checkpoint(tmp_path: Path) -> None:
    """A checkpoint from before features had a digest: what is trained with is what is saved."""
    train(tiny_recipe(tmp_path, steps=2), tmp_path / "out", quiet=True)
    state = tmp_path / "out" / "checkpoints" / "step-000000002" / "state.json"
    content = json.loads(state.read_text())
    del content["state"]["data"]
    state.write_text(json.dumps(content))
    other = {"train": [{"path": str(changed_features(tmp_path / "other")), "repeat": 2}]}
    trainer = Trainer(tiny_recipe(tmp_path, data=other), tmp_path / "out", Cluster(0, 1, torch.device("cpu")))
    trainer.close()
    assert trainer.step == 2
    assert torch.equal(trainer.normalise.mean, trainer.network.latent_mean)
    assert torch.equal(trainer.normalise.std, trainer.network.latent_std)


def limited(recipe: FlowRecipe, out: Path, limit: int) -> None:
    """Training that cannot write a file of more than ``limit`` bytes; exit code 4 when it says so."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(recipe, out, quiet=True)
    except MissingRequirement as error:
        os._exit(4 if "the last good one is step 2" in str(error) else 1)
    os._exit(0)


def test_full_disk_stops_the_run_and_room_lets_it_go_on(tmp_path: Path) -> None:
    """The kernel refuses the checkpoint of step 4 half-way; step 2's is intact and the run goes on from it."""
    recipe = tiny_recipe(tmp_path, every={"snapshot": 0})
    train(tiny_recipe(tmp_path, every={"snapshot": 0}, steps=2), tmp_path / "out", quiet=True)
    process = multiprocessing.get_context("spawn").Process(target=limited, args=(recipe, tmp_path / "out", 100_000))
    process.start()
    process.join(120)
    assert process.exitcode == 4
    assert [p.name for p in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-000000002"]
    train(recipe, tmp_path / "out", quiet=True)
    train(recipe, tmp_path / "straight", quiet=True)
    found, expected = (weights(tmp_path / name)["last.safetensors"] for name in ("out", "straight"))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)
    assert [e["step"] for e in events(tmp_path / "out")] == [e["step"] for e in events(tmp_path / "straight")]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    recipe, out = tiny_recipe(tmp_path), tmp_path / "out"
    for folder in ("checkpoints", "snapshots", "weights"):
        (out / folder).mkdir(parents=True)
        (out / folder / ".sigma-0.05.1234.part").write_bytes(b"x" * 1000)
    (out / "checkpoints" / ".step-000000002.5678.part").mkdir()
    train(recipe, out, quiet=True)
    assert not list(out.rglob("*.part"))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with lock(tmp_path / "out" / ".lock") as mine:
        assert mine
        with pytest.raises(UsageError, match="written by another training run"):
            train(tiny_recipe(tmp_path), tmp_path / "out", quiet=True)
    train(tiny_recipe(tmp_path), tmp_path / "out", quiet=True)


@pytest.mark.parametrize("run", [{"accumulate": 3}, {"checkpointing": True}])
def test_switches_change_rounding_only(tmp_path: Path, run: dict[str, Any]) -> None:
    train(tiny_recipe(tmp_path), tmp_path / "plain", quiet=True)
    train(tiny_recipe(tmp_path, run=run), tmp_path / "switched", quiet=True)
    found, expected = (weights(tmp_path / name)["last.safetensors"] for name in ("switched", "plain"))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_checkpointing_recomputes_the_blocks(tmp_path: Path) -> None:
    """Fewer bytes are kept for the backward pass."""
    from model_zoo.mmaudio.training.objective import losses

    kept = {}
    for on in (False, True):
        recipe = tiny_recipe(tmp_path, run={"checkpointing": on})
        trainer = Trainer(recipe, tmp_path / f"{on}", Cluster(0, 1, torch.device("cpu")), quiet=True)
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses(trainer.module, trainer.loader(0), trainer.normalise)
        kept[on] = total
        trainer.close()
    assert kept[True] < 0.7 * kept[False]


# ----------------------------------------------------------------------- validation, metrics, failure


def test_validation_is_fixed_and_complete(tmp_path: Path) -> None:
    """With a rate of 0 nothing is learned, so every validation gives the same numbers."""
    recipe = tiny_recipe(tmp_path, optimiser={"rate": 0.0, "weight_decay": 0.0}, batch=10)
    train(recipe, tmp_path / "out", quiet=True)
    first, second = [e for e in events(tmp_path / "out") if e["kind"] == "validation"]
    assert first | {"step": 6} == second
    assert first["samples"] == 24 == sum(first["count_by_t"])
    assert len(first["count_by_t"]) == 25
    filled = [count for count in first["count_by_t"] if count]
    assert len(first["loss_by_t"]) == len(filled)
    weighted = sum(c * v for c, v in zip(filled, first["loss_by_t"], strict=True)) / 24
    assert first["loss"] == pytest.approx(weighted, rel=1e-9)


def test_metrics_get_a_network_with_the_current_weights(tmp_path: Path) -> None:
    seen: list[tuple[Any, ClipSet]] = []

    def evaluator(generator: Generator, clips: ClipSet) -> Mapping[str, float]:
        seen.append((generator, clips))
        return {"FD": 4.5 - len(seen)}

    clips = ClipSet("set", "1", (Clip("a"),))
    evaluation = Evaluation(evaluator, clips, Carrier)  # type: ignore[arg-type]
    recipe = tiny_recipe(tmp_path, every={"metrics": 3, "checkpoint": 3})
    train(recipe, tmp_path / "out", evaluation, quiet=True)
    assert [e["FD"] for e in events(tmp_path / "out") if e["kind"] == "metrics"] == [3.5, 2.5]
    assert all(c is clips for _, c in seen)
    networks = [carrier.network.state_dict() for carrier, _ in seen]
    for step, state in zip((3, 6), networks, strict=True):
        saved = load_file(tmp_path / "out" / "checkpoints" / f"step-{step:09d}" / "tensors.safetensors")
        assert all(torch.equal(saved[f"weights/{k}"], v) for k, v in state.items())


def test_nothing_stays_on_the_device_when_an_evaluation_runs_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the samples, or while codec and conditions are moved there."""
    places: list[str] = []

    def told(device: torch.device | str) -> None:
        places.append(torch.device(device).type)

    class Moving(Carrier):
        def place(self, device: str) -> None:
            told(device)

    def out_of_memory(*_: object) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    network = FlowNetwork(NetworkConfig(**NETWORK))  # type: ignore[arg-type]
    monkeypatch.setattr(network, "to", told)
    clips = ClipSet("none", "1", (Clip("a"),))
    for evaluation in (Evaluation(out_of_memory, clips, Moving), Evaluation(Mapping, clips, out_of_memory)):  # type: ignore[arg-type, type-abstract]
        places.clear()
        kind, values = evaluation.attempt(network, 3)
        assert kind == "metrics-failed"
        assert "out of memory" in values["reason"]
        assert places
        assert places[-1] == "cpu"
        assert set(places) == {"cpu"}


def test_loss_that_is_no_number_stops_before_anything_is_saved(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, optimiser={"rate": 1e30, "clip": 1e30}, every={"log": 0, "validate": 0})
    with pytest.raises(TrainingFailed, match="not finite at or before step"):
        train(recipe, tmp_path / "out", quiet=True)
    found = checkpoints.load_latest(tmp_path / "out" / "checkpoints")
    assert found is None or all(bool(v.isfinite().all()) for v in found.tensors.values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("every", [{"log": 1}, {"log": 0}, {"log": 0, "snapshot": 0, "validate": 0, "checkpoint": 4}])
def test_gradient_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, every: dict[str, int]
) -> None:
    """The loss of the step is still fine, the weights are not any more; nothing of them is kept."""
    taken = 0

    def broken(optimiser: torch.optim.Optimizer, rate: float, clip: float) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == 4:
            next(p.grad for p in optimiser.param_groups[0]["params"] if p.grad is not None).fill_(value)
        return update(optimiser, rate, clip)

    monkeypatch.setattr("model_zoo.mmaudio.training.loop.update", broken)
    with pytest.raises(TrainingFailed, match="norm of the gradient is not finite at or before step 4"):
        train(tiny_recipe(tmp_path, every=every), tmp_path / "out", quiet=True)
    for file in (tmp_path / "out").rglob("*.safetensors"):
        assert all(bool(v.isfinite().all()) for v in load_file(file).values()), file


def test_validation_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, optimiser={"rate": 1e30, "clip": 1e30}, every={"log": 0, "validate": 1})
    with pytest.raises(TrainingFailed, match="not finite at or before step 1"):
        train(recipe, tmp_path / "out", quiet=True)


def test_log_holds_rates_and_norms(tmp_path: Path) -> None:
    train(tiny_recipe(tmp_path), tmp_path / "out", quiet=True)
    lines = [e for e in read_log(tmp_path / "out" / "log.jsonl") if e["kind"] == "train"]
    assert [e["step"] for e in lines] == [1, 2, 3, 4, 5, 6]
    assert [e["rate"] for e in lines] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 1e-4, 1e-5])
    assert all(e["gradient_norm"] > 0 and e["samples_per_second"] > 0 and math.isfinite(e["loss"]) for e in lines)


# ----------------------------------------------------------------------- averages


def test_final_averages_are_those_of_the_weights_of_every_step(tmp_path: Path) -> None:
    """From the checkpoints of every step; a width that was not tracked comes from the snapshots."""
    recipe = tiny_recipe(
        tmp_path,
        steps=48,
        optimiser={"rate": 1e-2},
        schedule={"milestones": []},
        ema={"final": [0.05, 0.1, 0.08], "snapshots": 12},
        every={"validate": 0, "checkpoint": 1, "snapshot": 2},
        run={"keep": 99},
    )
    out = tmp_path / "out"
    train(recipe, out, quiet=True)
    taken = sorted({step for _, step in Snapshots(out / "snapshots", 2).entries()})
    assert taken == snapshots_at_end(48, 2, 12)  # what the config was judged by
    key = "fused_blocks.0.linear1.weight"
    saved = sorted((out / "checkpoints").iterdir())
    history = torch.stack([load_file(p / "tensors.safetensors")[f"weights/{key}"] for p in saved]).double()
    expected = {}
    for sigma in recipe.ema.final:
        average = history[0]
        for number in range(1, 48):
            average = average.lerp(history[number], 1 - decay(number + 1, gamma_of(sigma)))
        expected[sigma] = average
    found = {s: load_file(out / "weights" / f"ema-{s:g}.safetensors")[key].double() for s in expected}
    apart = float((expected[0.05] - expected[0.1]).norm())
    assert apart > 1e-2
    errors = {sigma: float((found[sigma] - expected[sigma]).norm()) / apart for sigma in expected}
    assert max(errors[0.05], errors[0.1]) < 1e-4
    assert errors[0.08] < 0.05, errors  # synthesised: a least-squares fit to the snapshots of the tracked widths
    assert len(list((out / "snapshots").iterdir())) == 2 * 12  # of 2 x 24 that were taken


# ----------------------------------------------------------------------- the empty text


def test_empty_text_comes_from_the_official_form_of_file_or_from_a_tensor_by_name(tmp_path: Path) -> None:
    """Published as a torch file whose first item is the features; also a safetensors file with a named tensor."""
    feature = torch.randn(SHAPES["text"])
    torch.save(feature[None], tmp_path / "batch.pth")
    torch.save([feature], tmp_path / "list.pth")
    save_file({"empty_string_feat": feature}, tmp_path / "named.safetensors")
    for name in ("batch.pth", "list.pth", "named.safetensors"):
        recipe = tiny_recipe(tmp_path, empty_text=str(tmp_path / name))
        trainer = Trainer(recipe, tmp_path / "out", Cluster(0, 1, torch.device("cpu")), quiet=True)
        trainer.close()
        assert torch.equal(trainer.network.empty_string_feat.detach(), feature), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(1, 5, 7), r"holds \(5, 7\), expected \(5, 6\)"),
        (torch.full((1, 5, 6), math.nan), "all finite"),
        ({"text": torch.zeros(5, 6)}, "neither a tensor empty_string_feat"),
        ([], "neither a tensor empty_string_feat"),
        (None, "no such weight file"),
    ],
)
def test_other_empty_text_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    if content is not None:
        torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(UsageError, match=f"empty_text .*{message}"):
        train(tiny_recipe(tmp_path, empty_text=str(tmp_path / "empty.pth")), tmp_path / "out", quiet=True)
