"""Feature shards: what goes in comes out, nothing is stored twice, damage is named, a killed writer leaves no trace."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from av_bench.contracts import UsageError
from model_zoo.mmaudio.features.read import FeatureSet, empty_rows
from model_zoo.mmaudio.features.write import Sample, ShardWriter
from tests.model_zoo.mmaudio.goldens import full_disk
from tests.model_zoo.mmaudio.training_tools import SHAPES, folder, samples, text_features


def read_all(features: FeatureSet, order: list[int], dtype: torch.dtype = torch.float32):
    rows = empty_rows(len(order), SHAPES, dtype)
    features.read(np.array(order), rows)
    return rows


@pytest.mark.parametrize("order", [list(range(20)), list(range(19, -1, -1)), [3, 3, 17, 4, 0, 11]])
def test_every_row_comes_back(tmp_path: Path, order: list[int]) -> None:
    features, given = FeatureSet(folder(tmp_path, 20)), samples(20)
    rows = read_all(features, order)
    for place, number in enumerate(order):
        sample = given[number]
        assert features.ids[number] == sample.id
        assert torch.equal(rows.mean[place], sample.mean)
        assert torch.equal(rows.std[place], sample.std)
        assert bool(rows.video[place]) is (sample.clip is not None)
        assert bool(rows.has_text[place]) is (sample.text is not None)
        zero = {n: torch.zeros(SHAPES[n]) for n in SHAPES}
        assert torch.equal(rows.clip[place], zero["clip"] if sample.clip is None else sample.clip)
        assert torch.equal(rows.sync[place], zero["sync"] if sample.sync is None else sample.sync)
        assert torch.equal(rows.text[place], zero["text"] if sample.text is None else text_features(sample.text))


def test_bf16_halves_the_files_and_rounds(tmp_path: Path) -> None:
    half, full = FeatureSet(folder(tmp_path / "a", 9, dtype="bf16")), FeatureSet(folder(tmp_path / "b", 9))
    size = {p.name: sum(f.stat().st_size for f in p.rglob("*.bin")) for p in (half.root, full.root)}
    assert size["b"] == 2 * size["a"]
    found, given = read_all(half, list(range(9)), torch.bfloat16), read_all(full, list(range(9)))
    assert torch.equal(found.mean, given.mean.bfloat16())


def test_text_is_stored_once(tmp_path: Path) -> None:
    features = FeatureSet(folder(tmp_path, 40, shard_size=6))
    indexes = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("*/index.json"))]
    assert sorted(text for index in indexes for text in index["texts"]) == ["", "label 0", "label 1", "label 2"]
    rows = sum(f.stat().st_size for f in tmp_path.glob("*/text.bin")) // (4 * 5 * 6)
    assert rows == 4
    assert torch.equal(features.text_features(""), text_features(""))
    assert features.text_features("unheard") is None


def test_latent_statistics_are_those_of_all_frames(tmp_path: Path) -> None:
    mean, std = FeatureSet(folder(tmp_path, 23)).latent_statistics()
    frames = torch.cat([s.mean for s in samples(23)]).double()
    assert torch.allclose(mean.double(), frames.mean(0), rtol=1e-6, atol=1e-7)
    assert torch.allclose(std.double(), frames.std(0, unbiased=True), rtol=1e-6)


def test_writer_goes_on_and_refuses_twice(tmp_path: Path) -> None:
    given = samples(10)
    with ShardWriter(tmp_path, 4, "fp32") as writer:
        for sample in given[:6]:
            writer.append(sample)
        with pytest.raises(UsageError, match="written by another process"):
            ShardWriter(tmp_path)
    with ShardWriter(tmp_path, 4, "fp32") as writer:
        assert given[5].id in writer
        assert given[6].id not in writer
        with pytest.raises(UsageError, match="there already"):
            writer.append(given[0])
        for sample in given[6:]:
            writer.append(replace(sample, text_features=None))  # every text is known by now
    assert sorted(FeatureSet(tmp_path).ids) == [s.id for s in given]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(15, 4)}, r"bad: mean has shape \(15, 4\)"),
        ({"std": -torch.ones(16, 4)}, "bad: std holds negative"),
        ({"sync": None}, "bad: clip and sync features come together"),
        ({"clip": torch.full((4, 12), torch.nan)}, "bad: clip holds NaN"),
        ({"text": "new", "text_features": None}, "bad: the text 'new' is new"),
    ],
)
def test_refused_sample_is_named_and_leaves_nothing(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = samples(6)
    with ShardWriter(tmp_path, 100, "fp32") as writer:
        for sample in good[:3]:
            writer.append(sample)
        with pytest.raises(UsageError, match=message):
            writer.append(replace(good[1], id="bad", **change))
        for sample in good[3:]:
            writer.append(sample)
    rows = read_all(FeatureSet(tmp_path), list(range(6)))
    assert torch.equal(rows.mean, torch.stack([s.mean for s in good]))


@pytest.mark.parametrize("name", ["mean.bin", "sync.bin", "text.bin", "index.json"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    folder(tmp_path, 20, shard_size=10)
    file = tmp_path / "000000" / name
    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 1
    file.write_bytes(bytes(payload))
    with pytest.raises(UsageError, match=r"000000.*(damaged|cannot be read)"):
        FeatureSet(tmp_path)


def test_cut_off_file_is_named_even_unverified(tmp_path: Path) -> None:
    folder(tmp_path, 20, shard_size=10)
    file = tmp_path / "000001" / "std.bin"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UsageError, match=r"000001: std.bin has \d+ bytes"):
        FeatureSet(tmp_path, verify=False)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", "\udcff"])
def test_an_index_that_is_no_object_is_damaged(tmp_path: Path, text: str) -> None:
    folder(tmp_path, 20, shard_size=10)
    (tmp_path / "000000" / "index.json").write_bytes(text.encode(errors="surrogateescape"))
    for reader in (FeatureSet, ShardWriter):
        with pytest.raises(UsageError, match=r"000000: its index is damaged .*; remove this folder"):
            reader(tmp_path)


def test_a_shard_without_its_index_is_one_still(tmp_path: Path) -> None:
    folder(tmp_path, 20, shard_size=10)
    (tmp_path / "000001" / "index.json").unlink()
    with pytest.raises(UsageError, match="000001: its index is missing; remove this folder"):
        FeatureSet(tmp_path)


def test_a_path_that_is_too_high_costs_no_features(tmp_path: Path) -> None:
    """Nobody is told to remove folders that are none of this path's shards."""
    for name in ("c1", "c2"):
        folder(tmp_path / name, 4)
    with pytest.raises(
        UsageError, match=r"c1 is not a feature shard .*right path\? .*feature folders: c1, c2$"
    ) as found:
        FeatureSet(tmp_path)
    assert "remove" not in str(found.value)
    with pytest.raises(UsageError, match="not a feature shard"):
        ShardWriter(tmp_path)
    (tmp_path / "c1" / "notes").mkdir()
    with pytest.raises(UsageError, match=r"notes is not a feature shard .*holds shards only"):
        FeatureSet(tmp_path / "c1")


def test_a_full_disk_leaves_whole_shards_only(tmp_path: Path) -> None:
    given = samples(8)

    def write() -> None:
        with ShardWriter(tmp_path, 4, "fp32") as writer:
            for sample in given:
                if sample.id not in writer:
                    writer.append(sample)

    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write()
    assert not list(tmp_path.glob(".*.part"))
    write()
    assert FeatureSet(tmp_path).ids == [s.id for s in given]


def killed(root: Path) -> None:
    """A writer that dies in the middle of its third shard."""
    torch.set_num_threads(1)
    writer = ShardWriter(root, 4, "fp32")
    for sample in samples(10):
        writer.append(sample)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_writer_leaves_whole_shards_only(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert FeatureSet(tmp_path).ids == [s.id for s in samples(10)[:8]]
    with ShardWriter(tmp_path, 4, "fp32") as writer:
        for sample in samples(10):
            if sample.id not in writer:
                writer.append(sample)
    assert FeatureSet(tmp_path).ids == [s.id for s in samples(10)]
    assert not list(tmp_path.glob(".*.part"))


def test_sample_takes_arrays(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, dtype="fp32") as writer:
        writer.append(Sample("a", np.ones((16, 4), np.float32), np.zeros((16, 4), np.float32)))  # type: ignore[arg-type]
    assert torch.equal(read_all(FeatureSet(tmp_path), [0]).mean[0], torch.ones(16, 4))
