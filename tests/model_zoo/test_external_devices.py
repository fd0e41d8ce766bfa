"""Several processes of one foreign model on several devices: each is shown its own, and together they make the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from av_bench.contracts import Clip, ClipSet, Generated, UsageError
from model_zoo.baselines import load_manifest
from model_zoo.baselines.site import Site
from model_zoo.external.generator import ExternalProgram
from model_zoo.external.launching import one_device
from tests.jobs import job_for
from tests.media_files import write_video
from tests.model_zoo.second import second_python, write_manifest


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    """Four short videos."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        write_video(folder / f"clip_{i}.mp4", seconds=0.4, size=48)
    return tuple(Clip(f"clip_{i}", folder / f"clip_{i}.mp4") for i in range(4))


def made(folder: Path, clips: Sequence[Clip], device: str) -> dict[str, bytes]:
    """The files that a fake gives for these clips on a device; its driver also notes what it sees of the machine."""
    folder.mkdir()
    manifest = load_manifest(str(write_manifest(folder, "sine-and-note", str(folder / "seen.json"))))
    generator = ExternalProgram(manifest, Site(python=str(second_python())))
    generator.setup(ClipSet("toy", "1", tuple(clips)), 8.0, 0)
    found: list[Generated] = list(generator.produce(replace(job_for(clips, folder=folder), device=device)))
    assert all(one.reason is None for one in found), found
    return {path.name: path.read_bytes() for path in (folder / "audio").iterdir()}


def test_parts_on_devices_of_their_own_are_the_whole(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    whole = made(tmp_path / "whole", clips, "cpu")
    parts: dict[str, dict[str, bytes]] = {}
    threads = [
        threading.Thread(target=lambda i=i, d=d: parts.update({d: made(tmp_path / f"part{i}", clips[i::2], d)}))
        for i, d in enumerate(("cuda", "cuda:1"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parts["cuda"] | parts["cuda:1"] == whole
    assert not parts["cuda"].keys() & parts["cuda:1"].keys()
    for folder, shown in (("part0", "4"), ("part1", "6"), ("whole", "4,6")):
        seen = json.loads((tmp_path / folder / "seen.json").read_text())
        assert seen["CUDA_VISIBLE_DEVICES"] == shown
        assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert seen["device"] == ("cpu" if folder == "whole" else "cuda")
    with pytest.raises(UsageError, match="a path without a colon"):
        made(tmp_path / "a:b", clips, "cpu")


def test_devices_are_counted_as_this_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert one_device("cuda:3") == {"CUDA_VISIBLE_DEVICES": "3"}
    assert one_device("cpu") == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a1f,MIG-77c0")
    assert one_device("cuda:1") == {"CUDA_VISIBLE_DEVICES": "MIG-77c0"}
