"""Distillation into few steps: what a student is taught, that it learns it, and what sampling makes of its file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import UsageError
from av_bench.training.commands import merge_adapters
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow import solvers
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.mmaudio.flow.load import header_of, load_trained, read_about, read_flow
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.nano.model import FLOW, WEIGHTS, MMAudioNano
from model_zoo.mmaudio.training.checkpoints import write_weights
from model_zoo.mmaudio.training.distill import Distillation
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.journal import read_log
from model_zoo.mmaudio.training.loop import Trainer, train
from model_zoo.mmaudio.training.mix import Batch
from model_zoo.mmaudio.training.objective import adamw, gradients, update
from model_zoo.mmaudio.training.recipe import FlowRecipe
from model_zoo.mmaudio.training.result import Result
from tests.model_zoo.mmaudio.training_tools import NETWORK, tiny_recipe

CONFIG = NetworkConfig(**NETWORK)  # type: ignore[arg-type]


def weights_file(path: Path, few_step: FewStep | None = None, mean: float = 0.7, scale: float = 0.15) -> Path:
    """Weights with a flow that bends."""
    torch.manual_seed(3)
    made = FlowNetwork(CONFIG, latent_mean=torch.full((4,), mean), latent_std=torch.full((4,), 1.5))
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=scale)
    path.mkdir(parents=True)
    Result(path, tiny_recipe(path.parent), CONFIG, 1, few_step=few_step).write("last", made.state_dict())
    return path / "last.safetensors"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return weights_file(tmp_path / "teacher")


def student(path: Path, teacher: Path, distill: dict[str, Any], **changes: Any) -> FlowRecipe:
    """A recipe that starts from the teacher."""
    return tiny_recipe(path, **{"init": str(teacher), "distill": {"teacher": str(teacher), **distill}, **changes})


def prepared(path: Path, recipe: FlowRecipe) -> tuple[Trainer, Distillation, Batch]:
    """A trainer, its objective and the first batch."""
    made = Trainer(recipe, path / "unused", Cluster(0, 1, torch.device("cpu")), quiet=True)
    made.close()
    assert isinstance(made.objective, Distillation)
    return made, made.objective, made.mix.batch(0, recipe.batch, recipe.dropout)


def guided(network: FlowNetwork, batch: Batch, strength: float) -> solvers.Velocity:
    """The guided velocity by two passes of the whole network."""
    rows = batch.rows

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            given = (rows.clip.float(), rows.sync.float(), rows.text.float(), t)
            real = network(x, *given, drop_video=batch.drop_video, drop_text=batch.drop_text)
            everything = torch.ones(len(x), dtype=torch.bool)
            empty = network(x, *given, drop_video=everything, drop_text=everything)
        return empty + strength * (real - empty)

    return velocity


def test_targets_are_the_teachers_guided_path(tmp_path: Path, teacher: Path) -> None:
    recipe = student(tmp_path, teacher, {"steps": 2, "guidance": 2.5, "evaluations": 3})
    made, objective, batch = prepared(tmp_path, recipe)
    states = objective.states(batch)
    velocity = guided(load_trained(teacher, CONFIG, "tiny"), batch, 2.5)
    torch.testing.assert_close(states[:, -1], solvers.multistep(velocity, batch.noise, 6), rtol=1e-4, atol=1e-4)
    assert torch.equal(states[:, 0], batch.noise)
    # The student begins as its teacher: the loss is what a large step misses.
    terms = objective.terms(made.network, batch)
    at = torch.zeros(len(batch))
    missed = guided(load_trained(teacher, CONFIG, "tiny"), batch, 1.0)(batch.noise, at) - 2 * (
        states[:, 1] - states[:, 0]
    )
    torch.testing.assert_close(terms.loss[:, 0], missed.square().mean(dim=(1, 2)), rtol=1e-4, atol=1e-6)
    assert terms.t[0].tolist() == [0.0, 0.5]


def test_a_teacher_may_be_guided_from_a_time_on(tmp_path: Path, teacher: Path) -> None:
    wanted = {"steps": 2, "guidance": 2.5, "guide_from": 0.4, "evaluations": 3}
    _, objective, batch = prepared(tmp_path, student(tmp_path, teacher, wanted))
    network = load_trained(teacher, CONFIG, "tiny")
    plain, strong = guided(network, batch, 1.0), guided(network, batch, 2.5)
    exact = solvers.multistep(lambda x, t: plain(x, t) if float(t[0]) < 0.4 else strong(x, t), batch.noise, 6)
    torch.testing.assert_close(objective.states(batch)[:, -1], exact, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(exact, solvers.multistep(strong, batch.noise, 6), atol=1e-2)


def test_student_makes_in_few_steps_what_its_teacher_makes_in_many(tmp_path: Path, teacher: Path) -> None:
    """On one batch: two steps of the student end where the teacher's many do."""
    made, objective, batch = prepared(tmp_path, student(tmp_path, teacher, {"guidance": 2.0, "steps": 2}, batch=4))
    taught = load_trained(teacher, CONFIG, "tiny")
    exact = solvers.multistep(guided(taught, batch, 2.0), batch.noise, 30)

    def missed(network: FlowNetwork, guidance: float) -> float:
        return float((solvers.euler(guided(network, batch, guidance), batch.noise, 2) - exact).square().mean())

    optimiser = adamw(made.network, 3e-3, 0.0, (0.9, 0.95), 1e-8)
    for _ in range(40):
        gradients(made.network, batch, objective)
        update(optimiser, 3e-3, 1.0)
    assert missed(made.network, 1.0) < 0.5 * min(missed(taught, 2.0), missed(taught, 1.0))


def test_killed_and_taken_up_a_student_has_the_same_bytes(tmp_path: Path, teacher: Path) -> None:
    wanted = {"steps": 2, "guidance": 2.0, "evaluations": 2}
    train(student(tmp_path, teacher, wanted, steps=2, schedule={"milestones": []}), tmp_path / "broken", quiet=True)
    recipe = student(tmp_path, teacher, wanted, steps=4, schedule={"milestones": []})
    broken, whole = (train(recipe, tmp_path / name, quiet=True) / "last.safetensors" for name in ("broken", "whole"))
    assert broken.read_bytes() == whole.read_bytes()
    assert read_about(whole)["few_step"] == {"steps": 2, "guidance": 2.0}
    found = [e for e in read_log(tmp_path / "whole" / "log.jsonl") if e["kind"] == "validation"]
    assert [(e["samples"], sum(e["count_by_t"])) for e in found] == [(24, 48)]
    again = {"init": str(whole), "distill": {"teacher": str(whole), "steps": 1}, "steps": 1}
    single = train(tiny_recipe(tmp_path, **again), tmp_path / "single", quiet=True) / "last.safetensors"
    assert read_about(single)["few_step"] == {"steps": 1, "guidance": 2.0}


def test_another_teacher_is_another_training(tmp_path: Path, teacher: Path) -> None:
    train(student(tmp_path, teacher, {"steps": 2}, steps=2), tmp_path / "out", quiet=True)
    other = weights_file(tmp_path / "other", scale=0.1)
    changed = student(tmp_path, teacher, {"steps": 2, "teacher": str(other)}, steps=4)
    with pytest.raises(UsageError, match=r"another distill\.teacher: its weights"):
        train(changed, tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="another distill"):
        train(student(tmp_path, teacher, {"steps": 4}, steps=4), tmp_path / "out", quiet=True)


def test_adapters_of_a_student_say_it_merged_too(tmp_path: Path, teacher: Path) -> None:
    recipe = student(tmp_path, teacher, {"steps": 2, "guidance": 2.0}, steps=2, lora={"rank": 2})
    file = train(recipe, tmp_path / "out", quiet=True) / "last.safetensors"
    merged = merge_adapters(file, tmp_path / "whole.safetensors")
    assert read_flow(str(file)).few_step == read_flow(str(merged)).few_step == FewStep(2, 2.0)
    assert load_trained(file, CONFIG, "tiny").few_step == FewStep(2, 2.0)


def test_what_does_not_fit_is_refused(tmp_path: Path, teacher: Path) -> None:
    few = weights_file(tmp_path / "few", FewStep(4, 3.0))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"init": None, "distill": {"teacher": str(teacher)}}, "distill needs init"),
        ({"init": str(few)}, "made for 4 steps"),
        ({"init": str(few), "distill": {"teacher": str(few), "steps": 3}}, "4 steps cannot teach 3"),
        ({"init": str(few), "distill": {"teacher": str(few), "steps": 4}}, "4 steps cannot teach 4"),
        ({"init": str(few), "distill": {"teacher": str(few), "steps": 2, "guidance": 2.0}}, "guidance is 3 with"),
        ({"init": str(teacher), "distill": {"teacher": str(teacher), "guidance": 0.5}}, "guidance must be 1"),
        (
            {"init": str(teacher), "distill": {"teacher": str(teacher), "guide_from": 1}},
            "guide_from must be at least 0",
        ),
    ]
    shifted = weights_file(tmp_path / "shifted", mean=0.1)
    refused.append(({"init": str(teacher), "distill": {"teacher": str(shifted)}}, "another latent_mean"))
    for changes, message in refused:
        with pytest.raises(UsageError, match=message):
            train(tiny_recipe(tmp_path, **changes), tmp_path / "out", quiet=True)
        assert not (tmp_path / "out" / "checkpoints").exists()


def test_sampling_takes_the_file_as_it_is(tmp_path: Path) -> None:
    about = read_about(WEIGHTS / FLOW) | FewStep(4, 3.5).header()
    file = tmp_path / "fast.safetensors"
    write_weights(file, load_file(WEIGHTS / FLOW), header_of(about))
    found = MMAudioNano(weights=file)
    assert (found.settings.steps, found.settings.guided, found.settings.solver) == (4, False, "euler")
    assert MMAudioNano(weights=file, steps=4, cfg=1).settings == MMAudioNano(weights=file, steps=4, cfg=1.0).settings
    for options in ({"cfg": 3.5}, {"steps": 25}, {"solver": "heun"}, {"negative": "speech"}):
        with pytest.raises(UsageError, match=r"made for 4 Euler steps and hold guidance 3\.5 already; leave"):
            MMAudioNano(weights=file, **options)


def test_a_folder_with_a_student_is_taken_as_one(tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "package")
    about = read_about(WEIGHTS / FLOW) | FewStep(4, 3.5).header()
    write_weights(tmp_path / "package" / FLOW, load_file(WEIGHTS / FLOW), header_of(about))
    assert MMAudioNano(weights=tmp_path / "package").settings.steps == 4
