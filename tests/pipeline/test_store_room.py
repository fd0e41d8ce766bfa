"""The room that features take: a large run says it and is refused where there is none; a store keeps what runs need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import av_bench
from av_bench.cli.app import app
from av_bench.contracts import MissingRequirement
from av_bench.features import extraction, room
from av_bench.features.store import Store
from tests.media_files import write_video

METRICS = ("KL-nano", "DeSync-nano")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for i in range(3):
        audio = 0.1 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
        write_video(folder / f"c{i}.mp4", seconds=8, size=48, audio=audio, sample_rate=16_000)
    return folder


def run(videos: Path, out: Path, model: str = "oracle", store: Path | None = None) -> Path:
    found = av_bench.run(
        set="clips", data=videos, model=model, protocol="nano", metrics=METRICS, out=out, store=store, quiet=True
    )
    return found.path


def network_runs(path: Path) -> int:
    return int(json.loads((path / "run.json").read_text())["network_runs"])


def test_a_run_that_the_disk_cannot_hold_is_refused_and_goes_on_when_there_is_room(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extraction, "BATCH", 1)
    monkeypatch.setattr(extraction, "LARGE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "free", lambda _: 1000)
        with pytest.raises(MissingRequirement, match=r"nano-.* alone takes .*Make room .*--store"):
            run(videos, tmp_path / "run", store=tmp_path / "store")
    done = sum(Store(tmp_path / "store").size().values())
    assert done > 0  # the first batch, whose size is known now
    monkeypatch.setattr(room, "WORTH_SAYING", 0)
    av_bench.run(
        set="clips", data=videos, model="oracle", protocol="nano", metrics=METRICS,
        out=tmp_path / "run", store=tmp_path / "store",
    )  # fmt: skip
    assert "GB to be written" in capsys.readouterr().err
    assert sum(Store(tmp_path / "store").size().values()) > done


def test_cleaning_keeps_what_the_named_runs_were_scored_from(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(extraction, "BATCH", 1)  # a shard is kept whole
    kept, other = run(videos, tmp_path / "kept"), run(videos, tmp_path / "other", "noise")
    before = (kept / "scores.json").read_bytes()
    Store(tmp_path / "home" / "store").put("old-network", {"a:8": {"x": np.zeros(3)}})
    done = CliRunner().invoke(app, ["store", "clean", "--yes", "--keep", str(kept)])
    assert done.exit_code == 0, done.output
    assert done.output.strip().endswith("MB freed")
    assert "old-network" not in {n for n, size in Store(tmp_path / "home" / "store").size().items() if size}
    assert run(videos, tmp_path / "kept") == kept
    assert network_runs(kept) == 0
    assert (kept / "scores.json").read_bytes() == before
    run(videos, tmp_path / "other", "noise")
    assert network_runs(other) > 0
    assert CliRunner().invoke(app, ["store", "clean", "--yes", "--keep", str(tmp_path)]).exit_code != 0
