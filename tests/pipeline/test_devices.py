"""What --devices means, and that packs and audits made by several workers are those of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av_bench.audit.content import audit_content
from av_bench.audit.spread import make_fingerprints
from av_bench.contracts import MissingRequirement, UsageError
from av_bench.engines.choose import Place, in_parts, place_of
from av_bench.engines.ray_actors import _connect
from av_bench.features.store import Store
from av_bench.pipeline.make_pack import make_pack
from av_bench.runtime.cores import cgroup_quota
from av_bench.runtime.devices import parse_devices
from av_bench.runtime.progress import Reporter
from av_bench.training.commands import extract_features_on
from tests.engines.toys import Copied
from tests.media_files import write_video


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Four short videos."""
    folder = tmp_path / "media"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        audio = 0.1 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
        write_video(folder / f"{i}.mp4", seconds=8, size=48, audio=audio, sample_rate=16_000)
    return folder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cpu:3", ("cpu", "cpu", "cpu")),
        ("cpu", ("cpu",)),
        ("cuda:0, cuda:2", ("cuda:0", "cuda:2")),
        ("cuda", ("cuda:0", "cuda:1")),
    ],
)
def test_devices_are_read(text: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_devices(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu:0", "is expected"),
        ("cpu:99999999999", "at most 999 workers"),
        ("gpu", "is expected"),
        ("cuda:0,cuda:00", "cuda:0 is listed twice"),
        ("cuda:1,cuda:1", "cuda:1 is listed twice"),
        ("cpu:2,cuda:0", "devices of one kind"),
        ("", "at least one"),
    ],
)
def test_devices_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_devices(text)


def test_engines_are_named_or_refused() -> None:
    assert place_of("cpu", "cpu:1").local
    assert not place_of("cpu", None, "ray").local
    with pytest.raises(UsageError, match="--engine is 'dask'"):
        Place(engine="dask").check()
    with pytest.raises(UsageError, match="give --engine ray"):
        Place(address="auto").check()


def test_a_cluster_that_does_not_start_in_time_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a plain Exception for it, which was reported as a fault of av-bench."""

    class Busy:
        def init(self, **options: object) -> None:
            del options
            raise Exception("The current node timed out during startup.\nmore")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(MissingRequirement, match=r"no cluster at this machine: The current node timed out.*up\.$"):
        _connect(Busy(), None)


def test_every_item_is_in_one_part_and_every_worker_gets_some() -> None:
    for count in (1, 7, 64, 1000):
        names = [str(i) for i in range(count)]
        parts = list(in_parts(names, Place(("cpu",) * 4)))
        assert [name for part in parts for name in part.clips] == names
        assert len(parts) >= min(4, count)
        assert max(len(part.clips) for part in parts) <= 16


def test_the_least_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    """Version 2: the group has none, the one above it 1.5 cores; version 1: two cores; and no limit at all."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "job/step").mkdir(parents=True)
    own.write_text("0::/job/step\n")
    (root / "job/step/cpu.max").write_text("max 100000\n")
    assert cgroup_quota(root, own) is None
    (root / "job/cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(root, own) == 1.5
    own.write_text("3:cpuset:/x\n2:cpu,cpuacct:/job\n")
    (root / "cpu,cpuacct/job").mkdir(parents=True)
    (root / "cpu,cpuacct/job/cpu.cfs_quota_us").write_text("200000\n")
    (root / "cpu,cpuacct/job/cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_quota(root, own) == 2.0
    assert cgroup_quota(root, tmp_path / "absent") is None


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Work of several workers is done here, on copies of what they would be sent; the places that were asked for."""
    asked: list[Place] = []

    def engine(place: Place) -> Copied[Any, Any]:
        asked.append(place)
        return Copied("cpu")

    for module in ("av_bench.audit.spread", "av_bench.pipeline.make_pack", "av_bench.training.commands"):
        monkeypatch.setattr(f"{module}.engine_for", engine)
    return asked


def test_fingerprints_of_several_workers_are_those_of_one(media: Path, tmp_path: Path, copied: list[Place]) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(media / "3.mp4", copies / "other name.mp4")
    place, stores = Place(("cpu", "cpu")), [Store(tmp_path / name) for name in ("a", "b")]
    assert make_fingerprints([copies, media], stores[0].root, place, Reporter(quiet=True)) == []
    found = [audit_content(copies, [media], store, workers=1).matches for store in stores]
    assert ("other name.mp4", "3.mp4") in {(m.test.name, m.train.name) for m in found[0]}
    assert found[0] == found[1]
    assert copied == [place]
    names = [sorted(path.parent.name for path in store.root.rglob("*.safetensors")) for store in stores]
    assert set(names[0]) == set(names[1])


def test_a_pack_of_several_workers_is_that_of_one(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: list[Place]
) -> None:
    for name, place in (("one", Place()), ("two", Place(("cpu", "cpu")))):
        monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / f"home {name}"))
        make_pack("clips", tmp_path / name, media, None, "nano", ("FD-nano", "Bind-nano"), None, True, "cpu", place)
    assert [len(place.devices) for place in copied] == [2]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_training_features_of_several_workers_are_those_of_one(
    media: Path, tmp_path: Path, copied: list[Place]
) -> None:
    asked: dict[str, Any] = {"set_name": "clips", "data": media, "networks": "nano", "shard_size": 2, "quiet": True}
    for name, place in (("one", Place()), ("two", Place(("cpu", "cpu")))):
        lines = list(extract_features_on(place, out=tmp_path / name, **asked))
        assert lines[-1].endswith(": complete")
    assert [len(place.devices) for place in copied] == [2]
    folders = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert len(folders[0]) > 2
    assert folders[0] == folders[1]
