"""`av-bench train` for MMAudio: what the command hands to the training loop."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from av_bench.contracts import Clip, ClipSet, MetricError, MissingRequirement, UsageError
from av_bench.pipeline.plan import RunOptions, RunResult
from av_bench.training import commands
from av_bench.training.run_evaluator import RunEvaluator
from model_zoo.mmaudio.features.read import FeatureSet
from model_zoo.mmaudio.training.recipe import FlowRecipe, RunSettings
from tests.model_zoo.mmaudio.training_tools import tiny_recipe


def config(folder: Path, **changes: Any) -> Path:
    recipe = tiny_recipe(folder, **changes)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
    return path


def audit_of(ids: list[str], path: Path) -> Path:
    findings = [
        {"clip": i, "id": i, "train_list": "t", "test": {"file": "a", "line": 1}, "train": {"file": "b", "line": 1}}
        for i in ids
    ]
    content = {"version": 1, "kind": "lists", "rule": "id", "overlapping": ids, "findings": findings}
    path.write_text(json.dumps(content))
    return path


def test_an_audits_training_side_is_left_out(tmp_path: Path) -> None:
    file = config(tmp_path)
    ids = FeatureSet(str(tmp_path / "features")).ids
    audit = audit_of(list(ids[:4]), tmp_path / "audit.json")
    weights = commands.train_mmaudio(str(file), out=tmp_path / "run", exclude=audit, quiet=True)
    assert (weights / "last.safetensors").is_file()
    written = json.loads((tmp_path / "run/recipe.json").read_text())
    assert written["samples"] == 2 * (len(ids) - 4)
    assert (tmp_path / "run/excluded.txt").read_text().split() == sorted(ids[:4])
    assert written["excluded"] == 4
    other = audit_of(list(ids[4:8]), tmp_path / "other.json")
    with pytest.raises(UsageError, match="another list of excluded recordings"):
        commands.train_mmaudio(str(file), out=tmp_path / "run", exclude=other, changes=["steps=8"], quiet=True)
    assert (tmp_path / "run/excluded.txt").read_text().split() == sorted(ids[:4])  # of the run that is there
    (tmp_path / "run").rename(tmp_path / "moved")
    commands.train_mmaudio(str(file), out=tmp_path / "moved", exclude=audit, changes=["steps=8"], quiet=True)


def test_a_file_that_is_no_audit_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(UsageError, match="not an audit file"):
        commands.train_mmaudio("small_16k", out=tmp_path / "run", exclude=tmp_path / "audit.json")
    with pytest.raises(UsageError, match="small_16k"):
        commands.train_mmaudio("smal_16k", out=tmp_path / "run")


# ----------------------------------------------------------------------- devices


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FlowRecipe]:
    """Recipes that reach the training loop, which does not run."""
    found: list[FlowRecipe] = []

    def note(recipe: FlowRecipe, out: Path, *_: Any) -> Path:
        found.append(recipe)
        return out

    monkeypatch.setattr("model_zoo.mmaudio.training.loop.train", note)
    return found


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("options", "device", "place"),
    [
        ([], "cuda", "cuda:0"),  # the config's own
        (["--device", "cpu"], "cpu", "cpu"),
        (["--device", "cuda:1"], "cuda:1", "cuda:1"),
        (["--device", "cuda:1", "--change", "run.device=cuda:0"], "cuda:0", "cuda:0"),
    ],
)
def test_the_device_asked_for_trains(
    tmp_path: Path, started: list[FlowRecipe], options: list[str], device: str, place: str
) -> None:
    from av_bench.cli.app import app
    from model_zoo.mmaudio.training.distributed import device_of

    file = config(tmp_path, run={"device": "cuda"})
    done = CliRunner().invoke(app, ["train", str(file), "--out", str(tmp_path / "run"), *options])
    assert done.exit_code == 0, done.output
    assert [recipe.run.device for recipe in started] == [device]
    assert str(device_of(started[0].run)) == place


@pytest.mark.usefixtures("two_gpus")
def test_each_process_of_a_launcher_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from model_zoo.mmaudio.training.distributed import device_of

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of(RunSettings(device="cuda")) == device_of(RunSettings()) == torch.device("cuda:1")
    with pytest.raises(UsageError, match="each process takes its own GPU"):
        device_of(RunSettings(device="cuda:0"))


@pytest.mark.usefixtures("started")
def test_devices_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="'gpu' is not one of auto, cpu, cuda, cuda:N"):
        commands.train_mmaudio(str(config(tmp_path)), out=tmp_path / "run", device="gpu")
    with pytest.raises(MissingRequirement, match="no CUDA device"):
        commands.train_mmaudio(str(config(tmp_path)), out=tmp_path / "run", device="cuda:1")


@pytest.mark.usefixtures("two_gpus")
def test_the_flow_stage_of_the_embedded_model_takes_a_numbered_gpu(
    tmp_path: Path, started: list[FlowRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_zoo.mmaudio.nano import recipe

    recipe.flow_stage(tmp_path, tmp_path / "features", "nano", (), "cuda:1")
    assert [made.run.device for made in started] == ["cuda:1"]

    def stage(*_: Any) -> None:
        raise AssertionError("a stage was begun")

    monkeypatch.setattr(recipe, "corpus", stage)
    for change, message in (("run.device=gpu", "'gpu' is not one of"), ("network.heads=5", "multiple of heads 5")):
        with pytest.raises(UsageError, match=message):
            commands.train_mmaudio_nano(
                1, out=tmp_path, clips=200, corpus_folder=None, changes=[change], device=None, workers=1, quiet=True
            )


@pytest.mark.usefixtures("started")
def test_metrics_need_a_named_variant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names a variant"):
        commands.train_mmaudio(str(config(tmp_path)), out=tmp_path / "run", metrics_on=tmp_path)


# ----------------------------------------------------------------------- metrics


@pytest.fixture
def variant_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config that names a variant, in a home without any weights."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.yaml").write_text("base: small_16k\nname: mine\nrun: {device: cpu}\n")
    return str(tmp_path / "mine.yaml")


def test_missing_weights_to_sample_with_are_said_before_training(
    tmp_path: Path, variant_config: str, started: list[FlowRecipe]
) -> None:
    with pytest.raises(
        MissingRequirement,
        match=r"4 weight files are missing .*: mmaudio-vae-16k, mmaudio-vocoder-16k, dfn5b-clip, synchformer",
    ):
        commands.train_mmaudio(variant_config, out=tmp_path / "run", metrics_on=tmp_path)
    assert not started


def test_missing_weights_of_the_metrics_are_said_before_training(
    tmp_path: Path, variant_config: str, started: list[FlowRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that sampling needs is there; the first extractor of the protocol is not."""
    monkeypatch.setattr("model_zoo.mmaudio.sampling.published.require_all_files", lambda *entries: entries)
    with pytest.raises(MissingRequirement, match=r"weights .* are missing"):
        commands.train_mmaudio(variant_config, out=tmp_path / "run", metrics_on=tmp_path)
    assert not started


def test_an_evaluation_without_any_metric_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a complete record of an earlier start is not written over."""
    outs: list[Path] = []

    def run(options: RunOptions, _: Any) -> RunResult:
        assert options.out is not None
        outs.append(options.out)
        return RunResult(options.out, {"metrics": {}, "absent": {"FD": "no clip left"}}, 3)

    monkeypatch.setattr("av_bench.training.run_evaluator.run", run)
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "scores.json").write_text("{}")
    evaluator = RunEvaluator(RunOptions(set="clips"), tmp_path)
    clips = ClipSet("clips", "1", (Clip("a"),))
    with pytest.raises(MetricError, match=r"no metric could be computed \(FD: no clip left\)"):
        evaluator(SimpleNamespace(name="model"), clips)
    assert outs == [tmp_path / "0002"]
    assert (tmp_path / "0001" / "scores.json").is_file()
