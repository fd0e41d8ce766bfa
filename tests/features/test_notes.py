"""What a store remembers to save time: which keys lie in which shard, and the hashes of media files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from av_bench.features import identify as identify_module
from av_bench.features import store as store_module
from av_bench.features.identify import identify
from av_bench.features.safetensors_read import arrays
from av_bench.features.sides import MediaFile
from av_bench.features.store import Store
from av_bench.media import content as content_module
from av_bench.runtime.notes import read_note, write_note


def test_arrays_are_those_of_the_package_safetensors() -> None:
    rng = np.random.default_rng(0)
    kinds = (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
    content = {f"k{i}/x": (rng.standard_normal((2, i + 1)) * 50).astype(kind) for i, kind in enumerate(kinds)}
    content["empty/x"], content["scalar/x"] = np.zeros((0, 3), np.float32), np.asarray(7.5)
    payload = save(content)
    found, expected = dict(arrays(payload)), load(payload)
    assert found.keys() == expected.keys() == content.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    for damaged in (b"", payload[:40], payload[:-1], b"\x08" + bytes(7) + b'["a", 1]'):
        with pytest.raises(ValueError):
            dict(arrays(damaged))


def test_a_damaged_note_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "note"
    assert read_note(path) == {}
    write_note(path, {"a": [1]})
    assert read_note(path) == {"a": [1]}
    path.write_bytes(path.read_bytes().replace(b"1]", b"2]"))
    assert read_note(path) == {}


def test_a_folder_of_many_shards_is_opened_from_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = store_module._FEW + 2
    first = Store(tmp_path)
    for i in range(count):
        first.put("net-1", {f"k{i}": {"x": np.asarray([i])}})
    looked: list[Path] = []
    keys_of = store_module._keys_of
    monkeypatch.setattr(store_module, "_keys_of", lambda shard: (looked.append(shard), keys_of(shard))[1])
    assert all(Store(tmp_path).has("net-1", f"k{i}") for i in range(count))
    assert len(looked) == count  # and listed
    first.put("net-1", {"new": {"x": np.asarray([-1])}})
    looked.clear()
    second = Store(tmp_path)
    assert not second.lacks("net-1", ["new", *(f"k{i}" for i in range(count))])
    assert second.lacks("net-1", ["k0", "other"])
    assert len(looked) == 1  # the shard that came later
    assert second.get("net-1", ["k3"])["k3"]["x"].tolist() == [3]


def test_a_list_that_is_wrong_costs_a_computation_and_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for i in range(store_module._FEW + 2):
        store.put("net-1", {f"k{i}": {"x": np.asarray([i])}})
    shard = next(iter((tmp_path / "net-1").glob("*.safetensors"))).name
    Store(tmp_path).has("net-1", "k0")
    listed = read_note(tmp_path / "net-1" / ".index.json")
    write_note(tmp_path / "net-1" / ".index.json", {**listed, shard: ["never there"]})
    reader = Store(tmp_path)
    assert reader.has("net-1", "never there")
    assert reader.get("net-1", ["never there"]) == {}
    assert not reader.has("net-1", "never there")


def media(folder: Path, count: int) -> list[MediaFile]:
    return [MediaFile(f"c{i}", folder / f"c{i}.mp4") for i in range(count)]


def test_files_are_hashed_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify_module, "WORTH_FILES", 3)
    monkeypatch.setattr(content_module, "_FRESH_NS", 0)  # as if the files were older than a tick of the clock
    hashed: list[str] = []
    read = content_module.hashlib.file_digest
    monkeypatch.setattr(
        content_module.hashlib, "file_digest", lambda handle, kind: (hashed.append(handle.name), read(handle, kind))[1]
    )
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    for medium in media(folder, 4):
        medium.path.write_text(medium.id)
    first = media(folder, 4)
    identify(first, 2, store)
    assert len(hashed) == 4
    hashed.clear()
    stat = (folder / "c1.mp4").stat()
    (folder / "c1.mp4").write_text("XX")  # as long as before, and with the same time
    os.utime(folder / "c1.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (folder / "c2.mp4").unlink()
    second = media(folder, 4)
    identify(second, 2, store)
    assert len(hashed) == 1
    assert [m.digest == f.digest for m, f in zip(second, first, strict=True)] == [True, False, False, True]
    assert second[2].problem is not None
    assert second[0].key(8.0) == first[0].key(8.0)


def test_a_file_that_is_new_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify_module, "WORTH_FILES", 1)
    (tmp_path / "c0.mp4").write_text("a")
    identify(media(tmp_path, 1), 1, tmp_path / "store")
    notes = list((tmp_path / "store" / ".media").glob("*.json")) if (tmp_path / "store").exists() else []
    assert [json.loads(note.read_bytes().partition(b"\n")[2]) for note in notes] in ([], [{}])
