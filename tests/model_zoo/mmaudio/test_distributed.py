"""Several processes (gloo, CPU): the same training up to the rounding of sums."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import UsageError
from model_zoo.mmaudio.training.distributed import check_batch, cluster
from model_zoo.mmaudio.training.journal import read_log
from model_zoo.mmaudio.training.loop import train
from model_zoo.mmaudio.training.recipe import RunSettings, read_recipe
from tests.model_zoo.mmaudio.training_tools import config_file, tiny_recipe

ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = {"rtol": 1e-4, "atol": 2e-6}  # of parameters of order 0.1 after 6 steps at a rate of 1e-3
VALUES = ("loss", "gradient_norm", "samples", "loss_by_t", "count_by_t")


def torchrun(config: Path, out: Path, *changes: str) -> None:
    """Two processes as a user starts them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "av_bench", "train", str(config), "--out", str(out), "--quiet"]
    sets = [part for change in changes for part in ("--change", change)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *command, *sets], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]


def member(rank: int, port: int, config: Path, out: Path, changes: Sequence[str]) -> None:
    """One process of two, with the environment that torchrun gives it."""
    faulthandler.enable()  # a crash of a library says where
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({k: str(v) for k, v in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    train(read_recipe(config, changes), out, quiet=True)


def apart(rank: int, port: int, config: Path, out: Path, changes: Sequence[str]) -> None:
    """``member`` with a folder of its own; exit code 7 when the folders are refused."""
    try:
        member(rank, port, config, out / f"node{rank}", changes)
    except UsageError as error:
        os._exit(7 if "must be one folder" in str(error) else 1)


def spawned(
    config: Path, out: Path, *changes: str, target: Callable[..., None] = member, codes: tuple[int, int] = (0, 0)
) -> None:
    """The same as ``torchrun``, started from here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=target, args=(rank, port, config, out, changes)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert tuple(process.exitcode for process in processes) == codes


def same(a: Path, b: Path) -> None:
    """Final weights, averages and logs of two runs agree."""
    for file in ("last.safetensors", "ema-0.05.safetensors"):
        left, right = load_file(a / "weights" / file), load_file(b / "weights" / file)
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(right[key], value, msg=lambda m, key=key: f"{key}: {m}", **TOLERANCE)
    logs: list[list[dict[str, Any]]] = [read_log(out / "log.jsonl") for out in (a, b)]
    assert [(e["step"], e["kind"]) for e in logs[0]] == [(e["step"], e["kind"]) for e in logs[1]]
    for first, second in zip(*logs, strict=True):
        for name in VALUES:
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=1e-4), (first["step"], name)


@pytest.mark.parametrize(
    ("parallel", "start"), [("ddp", torchrun), pytest.param("fsdp", spawned, marks=pytest.mark.slow)]
)
def test_two_processes_equal_one(tmp_path: Path, parallel: str, start: Callable[..., None]) -> None:
    recipe = tiny_recipe(tmp_path)
    train(recipe, tmp_path / "one", quiet=True)
    start(config_file(tmp_path / "tiny.yaml", recipe), tmp_path / "two", f"run.parallel={parallel}", "run.accumulate=2")
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_slices_are_gathered_in_bf16_and_learn_the_same(tmp_path: Path) -> None:
    """FSDP with bf16 against one process with bf16: the loss falls alike, and what is kept is float32."""
    recipe = tiny_recipe(tmp_path, run={"precision": "bf16"})
    train(recipe, tmp_path / "one", quiet=True)
    spawned(config_file(tmp_path / "tiny.yaml", recipe), tmp_path / "two", "run.parallel=fsdp")
    losses = [
        [e["loss"] for e in read_log(tmp_path / out / "log.jsonl") if e["kind"] == "train"] for out in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]  # norms and biases are rounded, too
    made = load_file(tmp_path / "two" / "weights" / "last.safetensors")
    assert {value.dtype for value in made.values()} == {torch.float32}


@pytest.mark.parametrize("parallel", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_another_number_of_processes_goes_on(tmp_path: Path, parallel: str) -> None:
    """One process to step 2, two to step 4, one to the end: as if it had been one all along."""
    recipe = tiny_recipe(tmp_path)
    config = config_file(tmp_path / "tiny.yaml", recipe)
    train(recipe, tmp_path / "one", quiet=True)
    train(tiny_recipe(tmp_path, steps=2), tmp_path / "mixed", quiet=True)
    spawned(config, tmp_path / "mixed", f"run.parallel={parallel}", "steps=4")
    train(recipe, tmp_path / "mixed", quiet=True)
    same(tmp_path / "one", tmp_path / "mixed")


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, 2])
def test_processes_that_see_other_checkpoints_are_refused(tmp_path: Path, left: int | None) -> None:
    """The first goes on from step 4; the other has nothing, or an older checkpoint only."""
    config = config_file(tmp_path / "tiny.yaml", tiny_recipe(tmp_path))
    train(tiny_recipe(tmp_path, steps=4), tmp_path / "node0", quiet=True)
    if left is not None:
        train(tiny_recipe(tmp_path, steps=left), tmp_path / "node1", quiet=True)
    spawned(config, tmp_path, target=apart, codes=(7, 7))


@pytest.mark.slow
def test_the_first_process_picks_the_step(tmp_path: Path) -> None:
    """The other sees a newer checkpoint, that the first does not see yet: both go on from the older one."""
    recipe = tiny_recipe(tmp_path)
    config = config_file(tmp_path / "tiny.yaml", recipe)
    train(tiny_recipe(tmp_path, steps=2), tmp_path / "node0", quiet=True)
    train(tiny_recipe(tmp_path, steps=4), tmp_path / "node1", quiet=True)
    train(recipe, tmp_path / "one", quiet=True)
    spawned(config, tmp_path, target=apart)
    same(tmp_path / "one", tmp_path / "node0")


@pytest.mark.parametrize(("world", "accumulate"), [(5, 1), (2, 4), (24, 1)])
def test_uneven_batch_is_refused(tmp_path: Path, world: int, accumulate: int) -> None:
    with pytest.raises(UsageError, match=f"batch 12 does not divide into {world} processes x {accumulate}"):
        check_batch(tiny_recipe(tmp_path, run={"accumulate": accumulate}), world)


def test_fsdp_without_launcher_says_how(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="start with torchrun"):
        train(tiny_recipe(tmp_path, run={"parallel": "fsdp"}), tmp_path / "out", quiet=True)


def test_a_fixed_order_of_sums_is_asked_for_and_given_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    for wanted in (False, True):
        with cluster(RunSettings(device="cpu", deterministic=wanted)):
            assert torch.are_deterministic_algorithms_enabled() == (wanted or before)
    assert torch.are_deterministic_algorithms_enabled() == before
