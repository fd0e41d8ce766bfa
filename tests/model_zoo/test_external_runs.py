"""Whole runs of fake generators: what is scored, what the ledger says, and that kills leave no trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import av_bench
from av_bench.contracts import Reason
from av_bench.pipeline.plan import RunResult
from model_zoo.external.process import Launch, locked
from tests.conftest import ROOT
from tests.media_files import write_video
from tests.model_zoo.second import second_python, write_manifest

COUNT = 5


@pytest.fixture(scope="module")
def python() -> Path:
    return second_python()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 8 s, with noise that fades at different speeds."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        fade = np.exp(-np.arange(8 * 44_100) / (44_100 * (0.2 + i)))
        audio = (0.3 * fade * rng.standard_normal(8 * 44_100))[None].astype(np.float32)
        write_video(folder / f"clip_{i}.mp4", seconds=8, size=48, audio=audio)
    return folder


@pytest.fixture
def fake(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes the manifest of a fake and records its interpreter; gives the model's name."""

    def make(kind: str, *more: str, **changes: Any) -> str:
        monkeypatch.setenv(f"AV_BENCH_FAKE_{kind.upper()}_PYTHON", str(python))
        return str(write_manifest(tmp_path, kind, *more, **changes))

    return make


def run(data: Path, out: Path, model: str, **options: Any) -> RunResult:
    options = {"metrics": ("KL-nano",), "store": data.parent / "store", "quiet": True} | options
    return av_bench.run(set="clips", data=data, out=out, model=model, **options)


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def test_a_faulty_model_is_scored_on_what_it_gave(data: Path, tmp_path: Path, fake: Callable[..., str]) -> None:
    result = run(data, tmp_path / "run", fake("crash"))
    assert result.exit_code == 3
    assert result.scores["counts"]["excluded"] == {"crashed": 1}
    assert result.scores["counts"]["scored"] == COUNT - 1
    lines = [x for x in ledger(result.path) if x["clip"] == "clip_2"]
    assert [x["reason"] for x in lines] == ["crashed", "crashed"]
    assert "device-side assert" in lines[0]["detail"]
    assert run(data, tmp_path / "run", fake("crash"), min_coverage=0.8).exit_code == 0


def test_copy_silence_and_cheat_are_said_aloud(data: Path, tmp_path: Path, fake: Callable[..., str]) -> None:
    oracle = run(data, tmp_path / "oracle", "oracle")
    copy = run(data, tmp_path / "copy", fake("copy", str(oracle.path / "audio"), "44100", native={"rate": 44_100}))
    assert samples(copy.path) == samples(oracle.path)
    assert copy.scores["metrics"]["KL-nano"]["value"] == oracle.scores["metrics"]["KL-nano"]["value"]
    assert any("same features as the reference audio" in w for w in copy.scores["warnings"])
    silence = run(data, tmp_path / "silence", fake("silence"))
    loud = {"above-full-scale": 1}  # one of the videos: coded sound passes full scale by a little
    assert silence.scores["counts"]["flagged"] == {"silent": COUNT} | loud
    cheat = run(data, tmp_path / "cheat", fake("cheat"))
    assert cheat.scores["counts"]["flagged"] == {"loudness-changed": COUNT} | loud
    assert cheat.exit_code == 0


def test_a_short_sample_is_never_padded(data: Path, tmp_path: Path, fake: Callable[..., str]) -> None:
    result = run(data, tmp_path / "run", fake("short"), limit=2)
    assert result.scores["counts"]["excluded"] == {"too-short-audio": 2}


def test_the_record_says_what_the_model_is(data: Path, tmp_path: Path, fake: Callable[..., str]) -> None:
    model = fake("steady", "0.1", training_sets=[{"name": "vggsound/train", "source": "its paper"}])
    result = run(data, tmp_path / "run", model, samples_per_clip=2, limit=3)
    said = json.loads((result.path / "run.json").read_text())["generator"]
    assert said["training_sets"] == ["vggsound/train"]
    assert said["parameters"] == {"count": 12_345, "source": "measured"}
    seconds = said["seconds_per_sample"]
    assert seconds["n"] == 2 * 3 - 2  # two samples warm up
    assert 0 < seconds["mean"] < 0.1  # the pause is outside the timed parts
    assert said["fingerprint"]["packages"]["numpy"].startswith("1.24")
    entry = result.scores["metrics"]["KL-nano"]
    assert entry["details"]["samples"] == 2
    assert entry["details"]["std_over_samples"] > 0
    again = run(data, tmp_path / "run", model, samples_per_clip=2, limit=3)  # nothing is left to do
    assert json.loads((again.path / "run.json").read_text())["generator"] == said


# --------------------------------------------------------------------------- kills


def harness(data: Path, out: Path, model: str) -> subprocess.Popen[bytes]:
    code = (
        "import av_bench, torch; torch.set_num_threads(1);"
        f"result = av_bench.run(set='clips', data={str(data)!r}, out={str(out)!r}, model={model!r}, quiet=True,"
        f" metrics=('KL-nano',), store={str(data.parent / 'store')!r}, workers=1); raise SystemExit(result.exit_code)"
    )
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})


def wait_for(ready: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.02)


def samples(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((out / "audio").glob("clip_*"))} if out.is_dir() else {}


def group(out: Path) -> int:
    return int(json.loads((out / "external/child.json").read_text())["group"])


def gone(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return True
    return False


def assert_same(whole: Path, broken: Path) -> None:
    assert samples(broken) == samples(whole)
    for name in ("scores.json", "clips.parquet", "external/items.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(broken.rglob("*.part"))
    assert not list((broken / "external/outputs").iterdir())


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """A gated model makes a clip when the clip's gate is there."""
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


def open_gates(gates: Path, count: int) -> None:
    """Open the first ``count`` gates, shut the others."""
    for i in range(COUNT):
        gate = gates / f"clip_{i}"
        gate.touch() if i < count else gate.unlink(missing_ok=True)


def wait_at(out: Path, number: int) -> None:
    """Until a run holds so many samples and its model is at the next one, before a shut gate."""
    started = out / "external/started.json"

    def there() -> bool:
        return started.exists() and f"clip_{number}" in started.read_text() and len(samples(out)) == number

    wait_for(there)


@pytest.mark.slow
def test_a_killed_harness_leaves_no_trace(data: Path, tmp_path: Path, gates: Path, fake: Callable[..., str]) -> None:
    model, broken = fake("gated", str(gates)), tmp_path / "broken"
    open_gates(gates, COUNT)
    whole = run(data, tmp_path / "whole", model).path
    for done in (0, 2):
        open_gates(gates, done)
        process = harness(data, broken, model)
        wait_at(broken, done)
        child = group(broken)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda child=child: gone(child))
    kept = {p: p.stat().st_mtime_ns for p in (broken / "audio").iterdir()}
    assert sorted(path.stem for path in kept) == ["clip_0", "clip_1"]
    open_gates(gates, COUNT)
    assert run(data, broken, model).exit_code == 0
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert_same(whole, broken)


def test_a_killed_child_costs_its_item_until_the_next_start(
    data: Path, tmp_path: Path, gates: Path, fake: Callable[..., str]
) -> None:
    model, broken = fake("gated", str(gates)), tmp_path / "broken"
    open_gates(gates, COUNT)
    whole = run(data, tmp_path / "whole", model).path
    open_gates(gates, 2)
    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(run(data, broken, model)))
    thread.start()
    wait_at(broken, 2)
    os.kill(group(broken), signal.SIGKILL)
    open_gates(gates, COUNT)
    thread.join()
    assert results[0].exit_code == 3
    assert results[0].scores["counts"]["excluded"] == {"crashed": 1}
    assert any("signal 9" in line.get("detail", "") for line in ledger(broken))
    assert run(data, broken, model).exit_code == 0
    assert_same(whole, broken)


def test_rows_that_wait_are_taken_and_a_torn_one_is_dropped(
    data: Path, tmp_path: Path, fake: Callable[..., str]
) -> None:
    """A harness that died before it looked: the driver's files and rows are there, the audio folder is empty."""
    model, broken = fake("sine"), tmp_path / "broken"
    whole = run(data, tmp_path / "whole", model).path
    run(data, broken, model)
    rows = (broken / "external/outputs.jsonl").read_text().splitlines()
    for line in rows[:3]:
        row = json.loads(line)
        target = broken / "external/outputs" / row["path"]
        (broken / "audio" / f"{row['id']}.wav").rename(target)
    (broken / "audio/clip_3.wav").unlink()
    torn = rows[3][: len(rows[3]) // 2]
    (broken / "external/outputs.jsonl").write_text("\n".join([*rows[:3], rows[4], torn]))
    written = {json.loads(line)["id"]: json.loads(line)["seconds"] for line in rows[:3]}
    assert run(data, broken, model).exit_code == 0
    assert_same(whole, broken)
    now = [json.loads(line) for line in (broken / "external/outputs.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in now) == [f"clip_{i}" for i in range(COUNT)]
    assert {row["id"]: row["seconds"] for row in now if row["id"] in written} == written  # not made again


def test_a_child_that_outlived_its_harness_is_ended(tmp_path: Path) -> None:
    code = "import fcntl, sys, time; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    args = [sys.executable, "-c", code, str(handle)]
    orphan = subprocess.Popen(args, pass_fds=(handle,), start_new_session=True, stdout=subprocess.PIPE)
    os.close(handle)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    (tmp_path / "child.json").write_text(json.dumps({"group": orphan.pid}))
    with locked(tmp_path, Launch(())):
        assert orphan.wait(5) == -signal.SIGKILL
    orphan.stdout.close()


def test_reasons_that_exclude_and_flags_that_do_not() -> None:
    assert not Reason.LOUDNESS_CHANGED.excludes
    excluding = (Reason.TIMEOUT, Reason.CRASHED, Reason.PATH_ESCAPE, Reason.WRONG_RATE, Reason.WRONG_LENGTH)
    assert all(reason.excludes for reason in excluding)
