"""Shards, processes and one process give the same bytes; what does not fit together is refused with what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import av_bench
from av_bench.cli.process import run_command
from av_bench.contracts import ClipSet, UsageError
from av_bench.features.store import Store
from av_bench.pipeline.generate import SampleFiles
from av_bench.pipeline.merge import merge
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.prepare import make_plan
from av_bench.pipeline.shard import clips_of
from av_bench.pipeline.work import UNIT, units_of, whole_units
from av_bench.results.record import read_run
from av_bench.results.shards import Shard, Split, array_of, choose_shard, keep_split, shard_of
from av_bench.runtime.progress import Reporter
from tests.kills import KILLED, kill_server
from tests.media_files import write_video

COUNT = 6
METRICS = ("FD-nano", "KL-nano", "Bind-nano", "DeSync-nano")
BYTES = ("scores.json", "clips.parquet", "pseudo_values.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 8 s, one of them without sound, with texts."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        audio = 0.05 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
        write_video(folder / f"clip_{i}.mp4", seconds=8, size=48, audio=None if i == 4 else audio, sample_rate=16_000)
    rows = [{"id": f"clip_{i}", "file": f"clip_{i}.mp4", "text": f"noise {i % 3}"} for i in range(COUNT)]
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def options(data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """A run into ``folder``/run with a store of its own."""
    own = {"set": "clips", "model": "noise", "data": data, "out": folder / "run", "store": folder / "store"}
    return own | {"protocol": "nano", "metrics": METRICS, "min_coverage": 0.0, "quiet": True} | more


def results(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in BYTES}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    av_bench.run(**options(data, folder))
    return folder / "run"


def shards(data: Path, folder: Path, numbers: range | list[int], of: int, **more: Any) -> Path:
    for number in numbers:
        result = av_bench.run(**options(data, folder, shard=f"{number}/{of}", **more))
        assert (result.scores, result.exit_code) == ({}, 0)
    return folder / "run"


def test_any_number_of_shards_gives_the_bytes_of_one_process(data: Path, whole: Path, tmp_path: Path) -> None:
    """In any order; the last of five shards has no clip. Nothing is computed again while they are merged."""
    assert {shard_of(f"clip_{i}", 5) for i in range(COUNT)} != set(range(5))
    for of, order in ((1, [0]), (2, [1, 0]), (5, [4, 2, 0, 1, 3])):
        run = shards(data, tmp_path / str(of), order, of)
        written = sorted(p for p in tmp_path.rglob("*") if p.suffix in (".safetensors", ".flac"))
        merge(run, quiet=True)
        assert results(run) == results(whole)
        assert sorted(p for p in tmp_path.rglob("*") if p.suffix in (".safetensors", ".flac")) == written
        assert merge(run, quiet=True).scores["counts"]["excluded"] == {"no-audio": 1}  # again: the same
        assert results(run) == results(whole)
    clips = [json.loads(line)["clip"] for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert clips.count("clip_4") == json.loads((whole / "run.json").read_text())["spec"]["samples_per_clip"]


def test_child_processes_give_the_bytes_of_one_process(data: Path, whole: Path, tmp_path: Path) -> None:
    av_bench.run(**options(data, tmp_path, devices="cpu:2"))
    assert results(tmp_path / "run") == results(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_after_its_clip_and_the_same_command_goes_on(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    place, kept = SampleFiles.place, []

    def place_and_signal(self: SampleFiles, *what: Any) -> Path:
        kept.append(place(self, *what))
        if len(kept) == 2:
            signal.raise_signal(number)
        return kept[-1]

    asked = options(data, tmp_path, store=whole.parent / "store")
    with monkeypatch.context() as patch:
        patch.setattr(SampleFiles, "place", place_and_signal)
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: av_bench.run(**asked))
    assert ended.value.code == 75
    assert sorted((tmp_path / "run/audio").iterdir()) == sorted(kept)
    assert len(kept) == 2
    assert len((tmp_path / "run/ledger.jsonl").read_text().splitlines()) == 2
    av_bench.run(**asked)
    assert results(tmp_path / "run") == results(whole)


def test_a_list_that_grows_leaves_its_clips_in_their_shards() -> None:
    ids = [f"clip {i}" for i in range(1000)]
    sizes = [sum(shard_of(clip, 8) == number for clip in ids) for number in range(8)]
    assert sum(sizes) == 1000
    assert min(sizes) > 80
    assert shard_of("clip 7", 8) == shard_of("clip 7", 8)


def test_units_stay_whole_on_a_gpu_for_every_number_of_shards(data: Path, tmp_path: Path) -> None:
    """A batch never crosses a unit and a unit is in one shard, so that batches do not depend on the shards."""
    plan = make_plan(RunOptions(**options(data, tmp_path)), Reporter(quiet=True))
    ids = [f"{i:04d}" for i in range(5 * UNIT + 3)]
    clips = ClipSet("x", "1", tuple(type(plan.clips.clips[0])(clip_id) for clip_id in ids))
    plan.units, plan.clips = units_of(clips.clips, "cuda:1"), clips
    assert units_of(clips.clips, "cpu") == {}
    units = whole_units(plan.units, ids)
    assert [len(unit) for unit in units] == [UNIT] * 5 + [3]
    for of in (1, 2, 5):
        found = [[clip.id for clip in clips_of(plan, Shard(number, of))] for number in range(of)]
        assert sorted(clip for shard in found for clip in shard) == ids
        assert all(set(unit) <= set(shard) or not set(unit) & set(shard) for unit in units for shard in found)


def test_missing_shards_are_named_with_the_line_that_repeats_them(data: Path, tmp_path: Path) -> None:
    run = shards(data, tmp_path, [1], 5, model="silence")
    (run / "shards/3-of-5").mkdir()
    (run / "shards/3-of-5/owner.json").write_text("{}")
    with pytest.raises(UsageError, match=r"4 of 5 shards are missing: 0, 2, 3, 4 \(1 of them") as caught:
        merge(run, script="job.sh", quiet=True)
    assert "sbatch --array=0,2-4 job.sh" in str(caught.value)
    with pytest.raises(UsageError, match=r"its shards are not merged yet; `av-bench merge .*run`"):
        read_run(run)
    with pytest.raises(UsageError, match=r"it is one shard of .*run; only all shards together have scores"):
        read_run(run / "shards/1-of-5")
    with pytest.raises(UsageError, match=r"is a part of the run folder .*run; merge that one"):
        merge(run / "shards/1-of-5", quiet=True)
    with pytest.raises(UsageError, match="absent: no such run folder"):
        merge(tmp_path / "absent", quiet=True)
    with pytest.raises(UsageError, match="is cut into shards"):
        av_bench.run(**options(data, tmp_path, model="silence"))
    with pytest.raises(UsageError, match="cut into 5 shards; give i/5"):
        av_bench.run(**options(data, tmp_path, model="silence", shard="0/4"))


def changed(run: Path, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a shard."""
    path = run / f"shards/{number}-of-2/manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def other_spec(run: Path) -> None:
    path = run / "shards/1-of-2/spec.json"
    path.write_text(path.read_text().replace('"seed": 14159265', '"seed": 1'))


REFUSED: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "other code": (
        lambda run: changed(run, 1, lambda m: m["code"].update(torch="1.0")),
        r"1-of-2 was made by other code: torch 1.0 \(here ",
    ),
    "paths of another machine": (
        lambda run: changed(run, 1, lambda m: m["paths"].update(data="/mnt/b", store=m["paths"]["store"])),
        r"1-of-2 read and wrote elsewhere than shard 0: data /mnt/b \(here ",
    ),
    "other metrics": (
        lambda run: changed(run, 1, lambda m: m["options"].update(metrics=["KL-nano"])),
        r"1-of-2 was run with other --metrics than shard 0: KL-nano \(shard 0: FD-nano\)",
    ),
    "another spec": (other_spec, "1-of-2 was started with a different seed"),
    "a shard twice": (
        lambda run: shutil.copytree(run / "shards/0-of-2", run / "shards/1-of-2", dirs_exist_ok=True),
        "holds shard 0 of 2: that one would count twice, and shard 1 of 2 is missing",
    ),
    "a copy beside": (
        lambda run: shutil.copytree(run / "shards/0-of-2", run / "shards/copy of 0-of-2"),
        "copy of 0-of-2 is none of the 2 shards",
    ),
    "a manifest of another shape": (
        lambda run: changed(run, 1, lambda m: m.pop("options")),
        r"1-of-2/manifest\.json.*options.*; remove that file",
    ),
    "options of another shape": (
        lambda run: changed(run, 0, lambda m: m["options"].pop("seed")),
        r"0-of-2/manifest\.json is not whole \('seed'\); remove .*0-of-2 and run that shard again",
    ),
    "cut outcomes": (
        lambda run: (run / "shards/0-of-2/clips.jsonl").write_text("{"),
        "clips.jsonl is not whole .*remove .* and run that shard again",
    ),
    "a sample that is gone": (
        lambda run: next(run.glob("audio/*.flac")).unlink(),
        r"\.flac is gone, though its shard wrote it",
    ),
}


@pytest.fixture(scope="module")
def halves(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two finished shards."""
    return shards(data, tmp_path_factory.mktemp("halves"), [0, 1], 2, model="silence", metrics=("FD-nano",))


def test_a_shard_of_another_run_is_refused_before_its_work(data: Path, tmp_path: Path) -> None:
    run = shards(data, tmp_path, [0], 2, model="silence")
    for more in ({"seed": 3}, {"model": "noise"}, {"limit": 3}):
        with pytest.raises(
            UsageError, match=r"0-of-2 was started with a different .*all shards of a run need the same"
        ):
            av_bench.run(**options(data, tmp_path, **{"model": "silence", "shard": "1/2", **more}))
    with pytest.raises(UsageError, match=r"other --metrics: FD-nano, .*, DeSync-nano \(here KL-nano\); all shards"):
        av_bench.run(**options(data, tmp_path, model="silence", shard="1/2", metrics=("KL-nano",)))
    record = json.loads((run / "shards/0-of-2/shard.json").read_text())
    for change, message in (
        ({"code": record["code"] | {"torch": "1.0"}}, r"other code: torch 1\.0 \(here .*\); all shards"),
        ({"paths": record["paths"] | {"data": "/mnt/b"}}, r"other paths: data /mnt/b \(here .*\); all shards"),
    ):
        (run / "shards/0-of-2/shard.json").write_text(json.dumps(record | change))
        with pytest.raises(UsageError, match=message):
            av_bench.run(**options(data, tmp_path, model="silence", shard="1/2"))
    assert not (run / "shards/1-of-2").exists()


@pytest.mark.parametrize("case", REFUSED)
def test_shards_that_do_not_fit_are_refused(halves: Path, tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    run = tmp_path / "run"
    shutil.copytree(halves, run)
    change(run)
    with pytest.raises(UsageError, match=message):
        merge(run, quiet=True)
    assert not (run / "scores.json").exists()
    assert not (run / "spec.json").exists()  # else the run could not be merged once all is right again


def test_clocks_are_not_compared(halves: Path, tmp_path: Path) -> None:
    """Files from a machine whose clock is a day ahead, and from one that is a day behind."""
    run = tmp_path / "run"
    shutil.copytree(halves, run)
    for sign, folder in ((1, "0-of-2"), (-1, "1-of-2")):
        for path in (run / "shards" / folder).iterdir():
            now = path.stat().st_mtime
            os.utime(path, (now + sign * 86_400, now + sign * 86_400))
    assert merge(run, quiet=True).exit_code == 0


def test_a_shard_that_another_process_took_over_writes_no_manifest(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(folder: Path) -> str:
        (folder / "owner.json").write_text(json.dumps({"token": "theirs", "host": "node7", "pid": 42}))
        return "ours"

    monkeypatch.setattr("av_bench.pipeline.shard.own", taken)
    with pytest.raises(UsageError, match=r"started a second time, on node7 \(process 42\)"):
        shards(data, tmp_path, [0], 1, model="silence", metrics=("FD-nano",))
    assert not (tmp_path / "run/shards/0-of-1/manifest.json").exists()


def test_a_full_disk_in_one_shard_leaves_it_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "features")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", full)
        with pytest.raises(OSError, match="No space left"):
            shards(data, tmp_path, [0], 2, model="silence", metrics=("FD-nano",))
    run = shards(data, tmp_path, [1], 2, model="silence", metrics=("FD-nano",))
    with pytest.raises(UsageError, match="1 of 2 shards are missing: 0 "):
        merge(run, quiet=True)
    shards(data, tmp_path, [0], 2, model="silence", metrics=("FD-nano",))
    assert merge(run, quiet=True).exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the server looks into /proc before it forks")
def test_a_shard_that_is_killed_goes_on_and_the_bytes_are_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    """Killed at a third and at two thirds of the changes of its folder and store, then run to its end."""
    asked = {name: str(value) for name, value in options(data, tmp_path).items() if name in ("set", "model", "data")}
    asked |= {"protocol": "nano", "metrics": METRICS, "min_coverage": 0.0}  # type: ignore[dict-item]
    with kill_server(tmp_path) as server:
        first = server.job("count/run", {**asked, "shard": "0/2"}, watch="count", home="count/home")
        assert server.run(first) == [0]
        third = server.count("count/run") // 3
        for number, point, ending in ((0, third, KILLED), (0, third, KILLED), (0, 0, 0), (1, 0, 0)):
            assert server.run(server.job("run", {**asked, "shard": f"{number}/2"}, point, watch="")) == [ending]
    assert merge(tmp_path / "run", quiet=True).exit_code == 0
    assert results(tmp_path / "run") == results(whole)


def array(task: int, count: int, least: int, step: int = 1) -> dict[str, str]:
    """The environment of a task."""
    return {
        f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in (("ID", task), ("COUNT", count), ("MIN", least), ("STEP", step))
    }


def test_a_job_array_may_start_anywhere_and_repeat_some_of_its_tasks(tmp_path: Path) -> None:
    assert choose_shard("slurm", tmp_path, array(3, 4, 1)) == (Shard(2, 4), Split(4, 1))
    assert choose_shard("slurm", tmp_path, array(14, 8, 0, 2)) == (Shard(7, 8), Split(8, 0, 2))
    keep_split(tmp_path, Split(20, 1))
    assert choose_shard("slurm", tmp_path, array(17, 2, 3))[0] == Shard(16, 20)  # sbatch --array=3,17
    assert choose_shard("3/20", tmp_path, {})[0] == Shard(3, 20)
    with pytest.raises(UsageError, match=r"1 to 20\. Use these numbers, or choose another --out to divide it again"):
        choose_shard("slurm", tmp_path, array(21, 32, 1))
    assert array_of([Split(20, 1).task(n) for n in (2, 16, 19)]) == "3,17,20"


@pytest.mark.parametrize(
    ("asked", "variables", "message"),
    [
        ("8/8", {}, "shards count from 0, so the last of 8 is 7/8"),
        ("0/0", {}, "at least one shard"),
        ("1", {}, "i/n .* or slurm is expected"),
        ("0/" + "9" * 5000, {}, "i/n .* or slurm is expected"),
        ("slurm", {}, "this is not a task of a job array"),
        ("slurm", array(9, 3, 1), "task 9 is none of the 3 that this array has: 1 to 3. Number the array without gaps"),
        ("slurm", {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "2"}, "is 'x'; a number is expected"),
    ],
)
def test_shards_that_make_no_sense_are_refused(
    tmp_path: Path, asked: str, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_shard(asked, tmp_path, variables)
