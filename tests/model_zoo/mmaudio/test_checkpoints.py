"""Checkpoints: complete or not there, the last good one survives whatever happens to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from av_bench.contracts import UsageError
from model_zoo.mmaudio.training import checkpoints
from tests.model_zoo.mmaudio.goldens import full_disk


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"weights/a": torch.full((300, 300), value), "count": torch.tensor([3])}


def test_round_trip_and_bounded_number(tmp_path: Path) -> None:
    assert checkpoints.load_latest(tmp_path) is None
    for step in (1, 2, 3, 30):
        checkpoints.save(tmp_path, step, tensors(step), {"window": [0.1, 1 / 3]}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000003", "step-000000030"]
    found = checkpoints.load_latest(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (30, {"window": [0.1, 1 / 3]})
    assert torch.equal(found.tensors["weights/a"], tensors(30)["weights/a"])


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, file: str) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, tensors(step), {})
    target = tmp_path / "step-000000002" / file
    target.write_bytes(b"[]" if file == "state.json" else target.read_bytes()[:-9])
    found = checkpoints.load_latest(tmp_path)
    assert found is not None
    assert found.step == 1
    checkpoints.save(tmp_path, 2, tensors(2), {})  # made again on the way on
    found = checkpoints.load_latest(tmp_path)
    assert found is not None
    assert found.step == 2
    for folder in tmp_path.iterdir():
        (folder / file).write_bytes(b"")
    with pytest.raises(UsageError, match="all 2 checkpoints are damaged"):
        checkpoints.load_latest(tmp_path)


def in_little_room(work: Callable[[], object]) -> str:
    """What ``work`` raises when the disk is full."""
    with full_disk(100_000):
        try:
            work()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "nothing"


def test_failing_write_keeps_the_last_good_one(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, tensors(1), {})
    said = in_little_room(lambda: checkpoints.save(tmp_path, 2, tensors(2), {}))
    assert said.startswith("MissingRequirement: checkpoint of step 2")
    assert "the last good one is step 1" in said
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]
    found = checkpoints.load_latest(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["weights/a"], tensors(1)["weights/a"])


def test_weights_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    checkpoints.write_weights(path, tensors(1), {"step": "1"})
    before = path.read_bytes()
    said = in_little_room(lambda: checkpoints.write_weights(path, tensors(2), {}))
    assert said.startswith(f"MissingRequirement: {path} could not be written")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_others_may_read_weights_as_they_may_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    checkpoints.write_weights(tmp_path / "w.safetensors", tensors(1), {})
    assert (tmp_path / "w.safetensors").stat().st_mode == plain.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "w.safetensors"]
