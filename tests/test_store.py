"""The store: what goes in comes out, from any writer, and damage is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from av_bench.contracts import UsageError
from av_bench.features.store import Store, media_key, pair_key, text_key
from av_bench.runtime.files import atomic_path, write_atomically
from tests.conftest import ROOT


def _row(value: float) -> dict[str, np.ndarray]:
    return {"embedding": np.full(4, value, np.float32), "scalar": np.asarray(value)}


def test_round_trip_and_other_writers(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.put("net-1", {"a:8": _row(1.0), "b:8": _row(2.0)})
    second.put("net-1", {"c:8": _row(3.0)})
    third = Store(tmp_path)
    found = third.get("net-1", ["a:8", "b:8", "c:8", "missing"])
    assert sorted(found) == ["a:8", "b:8", "c:8"]
    np.testing.assert_array_equal(found["c:8"]["embedding"], np.full(4, 3.0))
    assert found["a:8"]["scalar"].shape == ()
    assert not third.has("net-2", "a:8")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "junk"])
def test_damaged_shard_is_missing_not_wrong(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.put("net", {"a": _row(1.0)})
    shard = next((tmp_path / "net").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    elif damage == "cut":
        del content[-3:]
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"<html>" * 100
    shard.write_bytes(content)
    fresh = Store(tmp_path)
    assert fresh.get("net", ["a"]) == {}
    assert not fresh.has("net", "a")  # or nobody would compute it again
    fresh.put("net", {"a": _row(1.0)})
    assert "a" in Store(tmp_path).get("net", ["a"])


def test_half_written_shards_are_invisible(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / ".abc.safetensors.123.part").write_bytes(b"half")
    assert Store(tmp_path).get("net", ["a"]) == {}


def test_write_atomically_keeps_the_old_file_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.mp4"
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path, keep_suffix=True) as part:  # noqa: PT012
        part.write_bytes(b"half")
        assert part.suffix == ".mp4"
        assert not path.exists()
        raise RuntimeError("half way")
    assert list(path.parent.iterdir()) == []
    with atomic_path(path) as part:
        part.write_bytes(b"whole")
        part.chmod(0o600)  # as safetensors does
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert path.read_bytes() == b"whole"


def test_without_flock_everything_imports_and_a_lock_says_where_it_runs(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import av_bench.cli.app, model_zoo.external.process\n"
        "from pathlib import Path\n"
        "from av_bench.contracts import MissingRequirement\n"
        "from av_bench.runtime.files import lock, write_json\n"
        "write_json(Path('a.json'), {})\n"
        "try:\n    lock(Path('.lock')).__enter__()\n"
        "except MissingRequirement as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert "Linux and macOS" in done.stdout
    assert (tmp_path / "a.json").read_text() == "{}\n"


def test_size_and_clean(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", {"a": _row(1.0)})
    store.put("two", {"a": _row(1.0)})
    (tmp_path / "one" / ".x.safetensors.0.part").write_bytes(b"half")  # of a writer that is still at work
    (shard,) = (tmp_path / "one").glob("*.safetensors")
    assert store.size()["one"] == shard.stat().st_size
    assert set(store.size()) == {"one", "two"}
    assert store.clean("one") > 0
    assert not store.has("one", "a")
    assert store.has("two", "a")
    with pytest.raises(UsageError, match="no features of 'three'"):
        store.clean("three")


def test_keys_tell_windows_and_pairs_apart() -> None:
    assert media_key("ab", 8.0) != media_key("ab", 5.0)
    assert pair_key("v", "a") != pair_key("a", "v")
    assert text_key("dog") != text_key("dogs")
