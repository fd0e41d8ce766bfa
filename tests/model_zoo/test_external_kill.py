"""A run that is killed at any point and started again ends like one that was left alone; two at once keep apart."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.kills import KILLED, SERVER, KillServer, kill_server
from tests.media_files import write_video
from tests.model_zoo.second import DRIVER, second_python, write_manifest

COUNT = 2  # clips
# a file is three changes: with these strides kills fall on each of them
STRIDES = [1] if os.environ.get("AV_BENCH_EVERY_KILL") else [10, pytest.param(4, marks=pytest.mark.slow)]
AT_ONCE = 6  # runs that are killed at the same time, each in a folder of its own, all with one cache
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server looks into /proc before it forks")


class Server(KillServer):
    """Runs of one model on one set."""

    def of(self, name: str, model: str, point: int = 0, watch: str = "", home: str = "home") -> Any:
        """A run of ``model`` into the folder ``name``."""
        options = {"set": "clips", "data": str(self.folder / "data"), "model": model, "metrics": ["KL-nano"]}
        return self.job(name, options, point, watch, home)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        audio = (0.1 * rng.standard_normal((1, 8 * 44_100))).astype(np.float32)
        write_video(folder / "data" / f"clip_{i}.mp4", seconds=8, size=48, audio=audio)
    python = str(second_python())
    names = ("SINE", "SILENCE", "STEADY", "STAGES")
    environment = {f"AV_BENCH_FAKE_{name}_PYTHON": python for name in names}
    environment["AV_BENCH_FAKE_STAGES_REPO"] = str(folder)
    with kill_server(folder, environment) as started:
        yield Server(folder, started.forks)


def content(run: Path) -> dict[str, bytes]:
    """What must not depend on kills: every file of the audio folder, hidden ones too, and the scores."""
    files = [*(run / "audio").iterdir(), run / "scores.json", run / "clips.parquet"]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def assert_same(whole: Path, broken: Path) -> None:
    assert content(broken) == content(whole)
    first, second = ((run / "external/items.jsonl").read_text().splitlines() for run in (whole, broken))
    assert [json.loads(line)["seed"] for line in first] == [json.loads(line)["seed"] for line in second]
    assert not list(broken.rglob("*.part"))
    assert not list((broken / "external/outputs").iterdir())
    assert sorted(p.name for p in broken.iterdir()) == sorted(p.name for p in whole.iterdir())


@pytest.mark.parametrize("stride", STRIDES)
def test_a_kill_of_the_harness_before_any_change_of_the_run_folder(server: Server, stride: int) -> None:
    """Points at which the harness makes, opens, renames, cuts or removes a file of the run folder.

    Every tenth here, every fourth among the slow tests; all of them with AV_BENCH_EVERY_KILL=1 in the environment.
    """
    model = str(write_manifest(server.folder, "sine"))
    whole = server.folder / f"whole-{stride}"
    assert server.run(server.of(whole.name, model)) == [0]
    points = range(1, server.count(whole.name) + 1, stride)
    assert points.stop > 30
    assert len(content(whole)) == COUNT + 2
    for start in range(0, len(points), AT_ONCE):
        batch = points[start : start + AT_ONCE]
        first = server.run(*(server.of(f"killed-{stride}-{point}", model, point) for point in batch))
        assert set(first) == {KILLED}, batch
        assert set(server.run(*(server.of(f"killed-{stride}-{point}", model) for point in batch))) == {0}, batch
        for point in batch:
            assert_same(whole, server.folder / f"killed-{stride}-{point}")


@pytest.mark.slow
def test_a_kill_of_the_child_before_any_change_of_the_job_folder(server: Server) -> None:
    whole = server.folder / "child"
    assert server.run(server.of("child", killed_child(server.folder, "child", 0))) == [0]
    points = int((server.folder / "child-driver/point.count").read_text())
    assert points >= 5 * COUNT + 2  # per item: started, file, row; then the result
    crashed = 0
    for start in range(1, points + 1, AT_ONCE):
        names = {f"child-{point}": point for point in range(start, min(start + AT_ONCE, points + 1))}
        jobs = [server.of(name, killed_child(server.folder, name, point)) for name, point in names.items()]
        for name, code in zip(names, server.run(*jobs), strict=True):
            ledger = (server.folder / name / "ledger.jsonl").read_text()
            assert code == (3 if "ended by signal 9" in ledger else 0), name
            crashed += code == 3
        assert set(server.run(*jobs)) == {0}
        for name in names:
            assert_same(whole, server.folder / name)
    assert 5 * COUNT <= crashed < points  # only a child that had nothing left to do costs nothing


def killed_child(root: Path, name: str, point: int) -> str:
    """A sine model whose first process kills itself before the n-th change of its job folder."""
    folder = root / f"{name}-driver"
    folder.mkdir()
    if point:
        (folder / "point").write_text(str(point))
    command = ["{python}", str(SERVER), str(folder / "point"), str(DRIVER), "sine", "{request}"]
    return str(write_manifest(folder, "sine", driver={"command": command}))


@pytest.mark.slow
def test_kills_while_the_cache_is_filled(server: Server) -> None:
    """With an empty cache: points all over features, silent copies and the run folder."""
    model = str(write_manifest(server.folder, "sine"))
    assert server.run(server.of("cold/run", model, watch="cold", home="cold/home")) == [0]
    points = server.count("cold/run")
    names = [f"cold-{number}" for number in range(6)]
    jobs = []
    for number, name in enumerate(names):
        (server.folder / name).mkdir()
        point = 1 + number * (points - 4) // 5
        jobs.append(server.of(f"{name}/run", model, point, watch=name, home=f"{name}/home"))
    assert set(server.run(*jobs)) == {KILLED}
    assert set(server.run(*({**job, "point": 0} for job in jobs))) == {0}
    for name in names:
        assert_same(server.folder / "cold/run", server.folder / name / "run")


def test_two_processes_with_one_cache_keep_apart(server: Server) -> None:
    models = {kind: str(write_manifest(server.folder, kind)) for kind in ("sine", "silence")}
    for kind, model in models.items():
        (server.folder / f"alone-{kind}").mkdir()
        assert server.run(server.of(f"alone-{kind}/run", model, home=f"alone-{kind}/home")) == [0]
    (server.folder / "both").mkdir()
    jobs = [server.of(f"both/{kind}", model, home="both/home") for kind, model in models.items()]
    assert server.run(*jobs) == [0, 0]
    for kind in models:
        assert_same(server.folder / f"alone-{kind}/run", server.folder / "both" / kind)
    assert content(server.folder / "both/sine") != content(server.folder / "both/silence")


def test_two_processes_in_one_run_folder_are_refused(server: Server) -> None:
    model = str(write_manifest(server.folder, "steady", "1.0"))
    jobs = [server.of("same", model), server.of("same", model)]
    codes = server.run(*jobs)
    assert sorted(codes) == [0, 99]
    assert server.run(server.of("same", model)) == [0]


STAGE = """
import os, signal, sys, time, wave
from pathlib import Path
out, flag = sys.argv[1:3]
def kill(when):
    if Path(flag).exists() and Path(flag).read_text() == when:
        Path(flag).write_text(str(os.getpid()))
        driver = Path("/proc/%d/stat" % os.getppid()).read_text()
        os.kill(int(driver.rpartition(")")[2].split()[1]), signal.SIGKILL)
        time.sleep(60)
kill("begin")
with wave.open(out + "/a.wav", "wb") as handle:
    handle.setnchannels(1); handle.setsampwidth(2); handle.setframerate(16000)
    handle.writeframes(bytes([int(sys.argv[3]) % 100, 3]) * 64000)
    kill("middle")
    handle.writeframes(bytes([int(sys.argv[3]) % 100, 3]) * 64000)
kill("end")
"""


@pytest.mark.slow
def test_a_stage_that_outlives_its_harness_is_ended(server: Server) -> None:
    """The official command is killed by nobody when its harness dies; the next harness ends it and starts anew."""
    script, flag = server.folder / "stage.py", server.folder / "flag"
    script.write_text(STAGE)
    driver = {"command": ["{python}", "{drivers}/stages.py", "{request}"]}
    steps = {"commands": [{"run": ["{python}", str(script), "{out}", str(flag), "{seed}"]}], "collect": "*.wav"}
    path = write_manifest(server.folder, "stages", driver=driver)
    data = yaml.safe_load(path.read_text())
    data["driver"]["steps"] = steps
    path.write_text(yaml.safe_dump(data))
    assert server.run(server.of("stages", str(path))) == [0]
    for when in ("begin", "middle", "end"):
        flag.write_text(when)
        assert server.run(server.of(f"stages-{when}", str(path))) == [KILLED]
        number = int(flag.read_text())
        os.kill(number, 0)  # it is there
        assert server.run(server.of(f"stages-{when}", str(path))) == [0]
        assert not Path(f"/proc/{number}/cmdline").exists() or not Path(f"/proc/{number}/cmdline").read_bytes()
        assert_same(server.folder / "stages", server.folder / f"stages-{when}")
