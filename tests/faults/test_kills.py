"""A kill while rendering, training or auditing: the same command goes on, and ends like one that was left alone.

Kills fall before changes of the work's folder. A few of them here, all of them in ``benchmarks/faults.py``; those while
generating are in ``tests/model_zoo/test_external_kill.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from av_bench.features.store import Store
from av_bench.runtime.files import ABANDONED
from protocols.impacts.build import build
from tests.faults.kill_jobs import KILLED, Jobs, jobs
from tests.media_files import tone, write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills are counted by forks of one process")
AT_ONCE = 6
CLOCK = ("samples_per_second", "time")


def content(folder: Path) -> dict[str, object]:
    """Every file by name, without what depends on the clock; log lines as records.

    What a killed writer left half written in a folder that others may be writing to goes an hour later.
    """
    found: dict[str, object] = {}
    own = (folder / "checkpoints").is_dir()  # a training has its folder for itself, and leaves nothing
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == ".lock" or (path.suffix == ".part" and not own):
            continue
        name = str(path.relative_to(folder))
        if path.name == "log.jsonl":
            events = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in event.items() if key not in CLOCK} for event in events]
        elif path.suffix == ".safetensors":  # the order of its metadata is chance
            with safe_open(path, "numpy") as file:
                found[name] = (file.metadata(), {key: file.get_tensor(key).tobytes() for key in file.keys()})  # noqa: SIM118
        else:
            found[name] = path.read_bytes()
    return found


def spread(points: int, count: int) -> list[int]:
    """``count`` of the points from the first to the last."""
    return sorted({1 + round(i * (points - 1) / (count - 1)) for i in range(count)})


def check(made: Jobs, work: str, count: int | None) -> int:
    """Kill before ``count`` of the changes, or before each one; returns how many kills there were."""
    points = made.changes(work)
    whole = content(made.folder / "whole")
    assert points > 3
    every = list(range(1, points + 1)) if count is None else spread(points, count)
    for start in range(0, len(every), AT_ONCE):
        chosen = every[start : start + AT_ONCE]
        assert made.run(work, {f"killed-{point}": point for point in chosen}) == [KILLED] * len(chosen)
        assert made.run(work, {f"killed-{point}": 0 for point in chosen}) == [0] * len(chosen)
        for point in chosen:
            assert content(made.folder / f"killed-{point}") == whole, point
            shutil.rmtree(made.folder / f"killed-{point}")
    return len(every)


@pytest.mark.slow
def test_a_kill_while_rendering(tmp_path: Path) -> None:
    with jobs(tmp_path) as made:
        check(made, "render", 3)


@pytest.mark.slow
def test_a_kill_while_training(tmp_path: Path) -> None:
    with jobs(tmp_path) as made:
        check(made, "train", 2)


def test_a_kill_while_auditing(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / "media" / name).mkdir(parents=True)
        write_video(tmp_path / "media" / name / f"{name}.mp4", seconds=6, size=48, audio=tone(6.0))
    with jobs(tmp_path) as made:
        check(made, "audit", 3)


def test_what_killed_writers_left_in_shared_folders_goes_after_an_hour(tmp_path: Path) -> None:
    store, rendered = tmp_path / "store", tmp_path / "set"
    Store(store).put("x-1", {"key": {"embedding": np.zeros(3, np.float32)}})
    build("test", rendered, count=1, workers=1)
    for folder in (store / "x-1", rendered):
        for name, age in ((".a.0123abcd.part", 2 * ABANDONED), (".b.0123abcd.part", 0.0)):
            (folder / name).write_bytes(b"x")
            os.utime(folder / name, (time.time() - age,) * 2)
    assert Store(store).has("x-1", "key")
    build("test", rendered, count=1, workers=1)
    for folder in (store / "x-1", rendered):
        assert [path.name for path in folder.glob(".*.part")] == [".b.0123abcd.part"]
