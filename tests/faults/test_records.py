"""Run folders that were damaged, edited, or are not run folders: named in one line, and never a passed gate."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from av_bench.contracts import Reason, UsageError
from av_bench.features.reference_pack import read as read_pack
from av_bench.features.store import Store
from av_bench.results.gate import gate
from av_bench.results.record import RunFolder, RunSpec, read_run
from tests.command import av_bench
from tests.conftest import ROOT
from tests.runs import make_run

SPEC = RunSpec("oracle", "clips", "1", "0" * 64, "nano", "1", "strict", 1)
FOREIGN = [
    b"",
    b"{",
    b"null",
    b"5",
    b"[]",
    b'"text"',
    b"{}",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a": NaN}',
    b'{"schema": 1}',
]


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "new")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_run(tmp_path / "base")


def one_line_of(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("av-bench: ")
    return said


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("name", ["scores.json", "run.json"])
def test_a_damaged_file_is_one_line_for_a_table_and_a_failed_check_for_a_gate(
    run: Path, base: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (run / name).write_bytes(content)
    assert av_bench("table", [run]) == 2
    assert name in one_line_of(capsys)
    assert av_bench("gate", [run, "--against", base, "--junit", run.parent / "asked.xml"]) == 2
    assert name in one_line_of(capsys)
    assert not (run / "gate.xml").exists()
    assert name in (run.parent / "asked.xml").read_text()
    assert not gate(run, base).passed


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["metrics"]["F1"].update(value=True),
        lambda s: s["metrics"]["F1"].update(value="0.5"),
        lambda s: s["metrics"]["F1"].update(value=None),
        lambda s: s["metrics"]["F1"].update(n=-1),
        lambda s: s["metrics"]["F1"].update(interval=[0.1]),
        lambda s: s["metrics"]["F1"].update(extractors=["x"]),
        lambda s: s["metrics"].update(F1=[]),
        lambda s: s.update(metrics=[]),
        lambda s: s["counts"].update(scored="40"),
        lambda s: s["counts"].pop("excluded"),
        lambda s: s["protocol"].update(metrics="F1"),
        lambda s: s.update(flavour=None),
        lambda s: s.update(schema=2),
        lambda s: s.update(schema=True),
        lambda s: s.update(absent={"AP": 5}),
    ],
)
def test_scores_of_another_shape_are_refused(run: Path, base: Path, change: Callable[[Any], object]) -> None:
    edit(run / "scores.json", change)
    with pytest.raises(UsageError, match=r"scores\.json"):
        read_run(run)
    assert not gate(run, base).passed
    assert not gate(base, run).passed


def test_a_value_that_is_not_the_mean_of_its_clips_is_noticed(run: Path, base: Path) -> None:
    """A worse run whose ``scores.json`` was replaced by the baseline's."""
    worse = make_run(run.parent / "worse", shift=0.5)
    assert av_bench("gate", [worse, "--against", base]) == 1
    shutil.copyfile(base / "scores.json", worse / "scores.json")
    with pytest.raises(UsageError, match=r"scores.json says .* but the values in .*\.parquet have the mean"):
        read_run(worse)
    assert av_bench("gate", [worse, "--against", base]) == 2


def test_the_committed_run_of_version_0_1_is_read(tmp_path: Path) -> None:
    old = ROOT / "benchmarks/baselines/impacts-oracle-64"
    copy = shutil.copytree(old, tmp_path / "copy")
    (copy / "pseudo_values.parquet").unlink()  # version 0.1 had none
    assert set(read_run(copy).scores["metrics"]) >= {"FD-nano", "KL-nano", "F1"}
    edit(copy / "scores.json", lambda s: s["metrics"]["F1"].update(value=s["metrics"]["F1"]["value"] - 1e-3))
    with pytest.raises(UsageError, match="mean"):
        read_run(copy)


def parquet(path: Path, **columns: Any) -> None:
    given = {"id": ["a"], "group": ["g"], "metric": ["F1"], "value": [0.5]} | columns
    pq.write_table(pa.table({key: value for key, value in given.items() if value is not None}), path)


@pytest.mark.parametrize(
    "columns",
    [
        {"value": [float("nan")]},
        {"value": ["0.5"]},
        {"value": None},
        {"metric": None},
        {"id": [1]},
        {"id": ["a", "a"], "group": ["g", "g"], "metric": ["F1", "F1"], "value": [0.5, 0.5]},
        {"metric": ["XY"]},
    ],
)
def test_values_per_clip_of_another_shape_are_refused(run: Path, columns: dict[str, Any]) -> None:
    parquet(run / "clips.parquet", **columns)
    with pytest.raises(UsageError, match=r"clips\.parquet"):
        read_run(run)


def test_values_per_clip_that_pandas_wrote_again_are_read(run: Path) -> None:
    frame = pd.read_parquet(run / "clips.parquet")
    for changed in (frame, frame.astype({"group": "category", "metric": "category"})):
        changed.to_parquet(run / "clips.parquet")
        assert read_run(run).values().shape == (40, 2)


def test_values_per_clip_that_are_cut_or_missing_are_said(run: Path, base: Path) -> None:
    path = run / "clips.parquet"
    whole = path.read_bytes()
    for payload in (whole[: len(whole) // 2], b"", b"PAR1"):
        path.write_bytes(payload)
        with pytest.raises(UsageError, match=r"clips\.parquet cannot be read"):
            read_run(run)
        assert av_bench("gate", [run, "--against", base]) == 2
    path.unlink()
    with pytest.raises(UsageError, match=r"clips\.parquet is missing"):
        read_run(run)


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("name", ["spec.json", "inputs.json", "scores.json"])
def test_a_run_does_not_go_on_in_a_damaged_folder(tmp_path: Path, name: str, content: bytes) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(SPEC)
    (folder.path / name).write_bytes(content)
    ask = {
        "spec.json": lambda: folder.open(SPEC),
        "inputs.json": folder.inputs,
        "scores.json": lambda: folder.refuse_to_lose(["F1"]),
    }[name]
    if name == "inputs.json" and content in (b"{}", b'{"schema": 1}'):
        assert ask() == json.loads(content)  # nothing is known, as at the first start
        return
    with pytest.raises(UsageError, match=rf"{name}|started with a different flavour"):
        ask()


def test_records_of_a_newer_version_are_not_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(SPEC)
    (folder.path / "scores.json").write_text('{"schema": 2}')
    with pytest.raises(UsageError, match="schema 2, this version reads 1: use the version that wrote it"):
        folder.open(SPEC)


def test_a_torn_ledger_line_is_left_out_and_swallows_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(SPEC)
    folder.log("a", "generate", k=0, file="a.flac")
    folder.close()
    ledger = folder.path / "ledger.jsonl"
    with ledger.open("ab") as handle:
        handle.write(b'5\n[]\n{"clip": 3}\n\xc3\xa9\n{"clip": "b", "stage": "gen')
    folder.log("c", "generate", k=0, file="c.flac")
    folder.log("d", "generate", k=True)
    folder.close()
    assert set(folder.last_generated()) >= {("a", 0), ("c", 0)}
    assert ("b", 0) not in folder.last_generated()
    assert b'"gen\n{"clip": "c"' in ledger.read_bytes()


def test_a_reason_of_megabytes_and_foreign_characters_fit_into_the_ledger(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(SPEC)
    folder.log("a", "generate", reason=Reason.CRASHED, detail="x" * 10_000_000)
    folder.log("b", "generate", reason=Reason.CRASHED, detail="half \ud800 and \x1b[31m red\nline")
    folder.log("x\udcfe.flac", "generate", file="x\udcfe.flac")
    folder.close()
    first, second, third = map(json.loads, (folder.path / "ledger.jsonl").read_text().splitlines())
    assert len(first["detail"]) < 2100
    assert first["detail"].endswith("(9,998,000 more characters)")
    assert second["detail"] == r"half \ud800 and \x1b[31m red line"
    assert third["file"] == "x\udcfe.flac"
    folder.write_json("odd.json", {"name": "x\udcfe"})
    assert json.loads((folder.path / "odd.json").read_text()) == {"name": "x\udcfe"}


def test_leftovers_of_killed_writers_go_and_files_of_others_stay(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(SPEC)
    (folder.path / "videos").mkdir()
    folder.audio.mkdir()
    left = [".scores.json.0123abcd.part", "audio/.a.flac.0123abcd.part", "videos/.a.mp4.0123abcd.part.mp4"]
    kept = [".mine.part", "notes.part", "audio/a.flac"]
    for name in [*left, *kept]:
        (folder.path / name).write_bytes(b"x")
    folder.open(SPEC)
    assert not any((folder.path / name).exists() for name in left)
    assert all((folder.path / name).exists() for name in kept)


@pytest.mark.parametrize("content", [*FOREIGN, b'{"schema": 1, "source": "x", "files": ["a"]}'])
def test_a_foreign_reference_pack_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "reference.json").write_bytes(content)
    with pytest.raises(UsageError, match="not a reference pack"):
        read_pack(tmp_path)
    (tmp_path / "reference.json").write_text('{"schema": 1, "source": "x", "files": {"../a": "0"}}')
    with pytest.raises(UsageError, match="must lie inside"):
        read_pack(tmp_path)


@pytest.mark.parametrize("header", [b"5", b"null", b"[1]", b"[" * 100_000, b"{"])
def test_a_shard_with_a_foreign_header_holds_nothing(tmp_path: Path, header: bytes) -> None:
    store = Store(tmp_path)
    store.put("x-1", {"key": {"embedding": np.zeros(3, np.float32)}})
    (tmp_path / "x-1" / f"{'0' * 40}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert set(Store(tmp_path).get("x-1", ["key"])) == {"key"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_store_does_not_hang(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("x-1", {"key": {"embedding": np.zeros(3, np.float32)}})
    os.mkfifo(tmp_path / "x-1" / f"{'0' * 40}.safetensors")
    assert set(Store(tmp_path).get("x-1", ["key"])) == {"key"}


def test_a_table_of_runs_goes_on_past_what_is_no_run(run: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, begun, file = run.parent / "selfcheck", run.parent / "begun", run.parent / "notes.txt"
    folder.mkdir()
    RunFolder(begun).open(SPEC)
    file.write_text("x")
    assert av_bench("table", [run, folder, begun, file, base, "--format", "csv"]) == 0
    shown = capsys.readouterr()
    assert f"left out: {folder}: it is not a run folder" in shown.err
    assert f"left out: {begun}: scores.json is missing; run the same `av-bench run` command again" in shown.err
    assert shown.out.count("model") >= 2
    assert av_bench("table", [folder]) == 2
    assert "no finished run among 1 paths" in one_line_of(capsys)


def test_the_gate_keeps_its_verdict_on_a_folder_that_is_read_only(
    run: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, payload: bytes) -> None:
        del payload
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("av_bench.cli.output.write_atomically", refuse)
    assert av_bench("gate", [run, "--against", base]) == 0
    shown = capsys.readouterr()
    assert "gate passed" in shown.out
    assert f"not written: {run}/gate.xml: Permission denied" in shown.err
    assert av_bench("gate", [run, "--against", base, "--junit", run / "own.xml"]) == 4
