"""Reading weight files: what is read, what is refused, and the proof that nothing of a refused file ran."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.weights import BadWeights, hash_of_mapping, load_checkpoint, load_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2], dtype=torch.int64)}
SAMPLER = {"indexes": np.arange(7), "pointer": np.float64(3.5), "queue": [np.int64(3)]}


def save(content: Any, path: Path, kind: str) -> Path:
    """``kind``: safetensors, zip or legacy (torch's format before 1.6, as PANNs and VGGish were published)."""
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_flat_state_dict(tmp_path: Path, kind: str) -> None:
    found = load_state_dict(save(dict(sorted(TENSORS.items())), tmp_path / "net.bin", kind))
    assert same(dict(sorted(found.items())), dict(sorted(TENSORS.items())))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("key", ["model", "state_dict", "generator", "weights"])
def test_wrapped_state_dict_with_numpy_state(tmp_path: Path, kind: str, key: str) -> None:
    content = {"iteration": 3, key: TENSORS, "sampler": SAMPLER, "lr": np.float32(0.1)}
    assert same(load_state_dict(save(content, tmp_path / "net.pth", kind)), TENSORS)


def test_names_of_numpy_1(tmp_path: Path) -> None:
    path = save({"model": TENSORS, "sampler": SAMPLER}, tmp_path / "net.pth", "legacy")
    old = path.read_bytes().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    path.write_bytes(old)
    assert b"numpy.core.multiarray" in old
    assert same(load_state_dict(path), TENSORS)


def test_no_numpy_constructor_runs(tmp_path: Path) -> None:
    content = load_checkpoint(save({"model": TENSORS, "sampler": SAMPLER}, tmp_path / "net.pth", "zip"))
    assert type(content["sampler"]["indexes"]).__name__ == "Discarded"
    with pytest.raises(BadWeights, match="numpy object"):
        load_state_dict(save(TENSORS | {"b": np.arange(3)}, tmp_path / "mixed.pth", "zip"))


def test_parameters_and_mappings() -> None:
    module = torch.nn.Linear(3, 2)
    found = load_state_dict(dict(module.named_parameters()))
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in found.values())
    assert same(load_state_dict({"state_dict": TENSORS}), TENSORS)


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, {"x": 1}, {"model": TENSORS, "weights": TENSORS}, {3: torch.ones(1)}]
)
def test_what_is_no_state_dict(tmp_path: Path, content: dict[Any, Any]) -> None:
    with pytest.raises(UsageError):
        load_state_dict(content)
    path = save(content, tmp_path / "net.pth", "zip")
    with pytest.raises(BadWeights, match=r"net\.pth"):
        load_state_dict(path)


def test_checkpoint_that_is_a_tensor(tmp_path: Path) -> None:
    path = save(torch.ones(1, 77, 4), tmp_path / "empty_string.pth", "zip")
    assert load_checkpoint(path).shape == (1, 77, 4)
    with pytest.raises(BadWeights, match="expected tensors by name"):
        load_state_dict(path)


# --------------------------------------------------------------------------- refused


class Attack:
    """Writes the canary when unpickled."""

    def __init__(self, canary: Path, how: str) -> None:
        self.canary, self.how = canary, how

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self.how == "os.system":
            return os.system, (f"touch {self.canary}",)
        if self.how == "eval":
            return eval, (f"open({str(self.canary)!r}, 'w').close()",)
        return Path.touch, (self.canary,)


def attack_file(path: Path, content: Any, kind: str) -> Path:
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
        return path
    return save(content, path, kind)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("how", ["os.system", "eval", "Path.touch"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle2", "pickle4"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, kind: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # torch's own switch must not open a door either
    canary = tmp_path / "canary"
    content = {"sampler": Attack(canary, how)} | ({} if kind.startswith("pickle") else {"model": TENSORS})
    path = attack_file(tmp_path / "net.pth", content, kind)
    with pytest.raises(BadWeights, match="refused") as caught:
        load_state_dict(path)
    assert not canary.exists()
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    if kind != "pickle4":
        name = {"os.system": "system", "eval": "eval", "Path.touch": "getattr|Path"}[how]
        assert any(part in str(caught.value) for part in name.split("|"))
    if kind.startswith("pickle"):  # the canary works: an ordinary reader does run the code
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert canary.exists()


def test_tensors_in_a_plain_pickle_are_refused(tmp_path: Path) -> None:
    """Pickled tensors nest a second, unrestricted file; torch's name for it must stay off the list."""
    path = attack_file(tmp_path / "net.pth", TENSORS, "pickle2")
    with pytest.raises(BadWeights, match=r"torch\.storage\._load_from_bytes"):
        load_state_dict(path)


def test_refused_class_is_named(tmp_path: Path) -> None:
    path = save({"model": TENSORS, "args": Path("x")}, tmp_path / "net.pth", "zip")
    with pytest.raises(BadWeights, match=r"pathlib\S*\.PosixPath"):
        load_state_dict(path)


def header_bomb(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + b'{"a":' + b" " * 100)


def lying_offsets(path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def truncated(path: Path) -> None:
    save({"a": torch.ones(10_000)}, path, "zip")
    path.write_bytes(path.read_bytes()[:-5000])


def truncated_legacy(path: Path) -> None:
    save({"a": torch.ones(10_000)}, path, "legacy")
    path.write_bytes(path.read_bytes()[:-5000])


def gzipped(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    path.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (header_bomb, "header claims"),
        (lying_offsets, "damaged"),
        (truncated, "cut short"),
        (truncated_legacy, "cut short"),
        (gzipped, "gzip"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\n\n<!DOCTYPE HTML><html>"), "HTML"),
        (lambda path: path.write_bytes(b"Access denied.\n"), "text file"),
        (lambda path: path.write_bytes(b"\x00\x01\x02\x03" * 500), "net"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, write: Any, told: str) -> None:
    path = tmp_path / "net.bin"
    write(path)
    with pytest.raises(BadWeights, match=told) as caught:
        load_state_dict(path)
    assert str(path) in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="no such weight file"):
        load_state_dict(tmp_path / "net.pth")


# --------------------------------------------------------------------------- hash of weights in memory


def test_hash_of_mapping_depends_on_content_alone() -> None:
    base = hash_of_mapping(TENSORS)
    assert hash_of_mapping(dict(reversed(TENSORS.items()))) == base
    assert hash_of_mapping(TENSORS | {"a.weight": TENSORS["a.weight"].t().contiguous().t()}) == base
    assert hash_of_mapping({key: torch.nn.Parameter(v, requires_grad=False) for key, v in TENSORS.items()}) == base


@pytest.mark.parametrize(
    "change",
    [
        {"a.weight": torch.arange(6.0).reshape(3, 2)},
        {"a.weight": torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)},
        {"a.weight": torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))},
        {"a.bias": torch.tensor([1, 2], dtype=torch.int32)},
        {"scalar": torch.tensor(1.0)},
        {"empty": torch.empty(0)},
    ],
)
def test_hash_of_mapping_sees_every_change(change: dict[str, torch.Tensor]) -> None:
    assert hash_of_mapping(TENSORS | change) != hash_of_mapping(TENSORS)
