"""The command line: exit codes, one-line errors, and output for people."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from av_bench.pipeline import seeds
from av_bench.pipeline.plan import RunOptions, RunResult
from tests.command import av_bench
from tests.conftest import ROOT
from tests.media_files import tone, write_video
from tests.runs import make_run


def cli(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command within this process, with what it prints; a process of its own would import everything anew."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = av_bench(args[0], args[1:])
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["run", "--set", "impcts", "--model", "oracle"], 2, "Did you mean 'impacts'"),
        (["run", "--set", "clips", "--model", "orcale", "--data", "."], 2, "Did you mean 'oracle'"),
        (["run", "--set", "clips", "--model", "oracle"], 2, "needs --data"),
        (["run", "--set", "clips", "--model", "oracle", "--data", ".", "--device", "cuda:7"], 4, "CUDA"),
        (["table", "nowhere"], 2, "nowhere: no such run folder"),
        (["run", "--set", "vggsound", "--model", "oracle", "--data", "."], 4, "av-bench weights pull"),
    ],
)
def test_errors_are_short_and_have_their_exit_code(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    done = cli(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 or code == 4  # what is missing may take a few lines to get
    assert lines[0].startswith("av-bench: ")
    assert says in done.stderr


@pytest.mark.parametrize("module", ["av_bench", "av_bench.cli.app"])
def test_the_version_is_told(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("av-bench ")


def test_gate_exit_codes_and_files(tmp_path: Path) -> None:
    make_run(tmp_path / "base")
    make_run(tmp_path / "same")
    make_run(tmp_path / "worse", shift=0.1)
    passed = cli("gate", "same", "--against", "base", cwd=tmp_path)
    assert passed.returncode == 0
    assert "gate passed" in passed.stdout
    failed = cli("gate", "worse", "--against", "base", cwd=tmp_path)
    assert failed.returncode == 1
    assert "gate FAILED" in failed.stdout
    assert (tmp_path / "worse/gate.xml").is_file()
    assert "regression" in (tmp_path / "worse/gate.md").read_text()
    assert cli("gate", "worse", "--against", "nowhere", cwd=tmp_path).returncode == 2


def test_table_formats(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/a", "one")
    make_run(tmp_path / "runs/b", "two", shift=0.1)
    starts = {"markdown": "**toy", "latex": "% needs", "csv": "set,set_version,protocol", "html": "<!doctype"}
    for form, start in starts.items():
        done = cli("table", "runs/a", "runs/b", "--format", form, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(start)


def test_models_are_listed_with_baselines_and_options(tmp_path: Path) -> None:
    from model_zoo.baselines import manifest_names

    done = cli("list", "models", cwd=tmp_path)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert set(manifest_names()) <= set(lines)
    assert "shift, lowpass, gain, noise, mix" in lines["oracle"]
    assert "delay in seconds" in lines["shift"]
    assert lines["shift"].rstrip().endswith("oracle")
    assert "steps, guidance, negative_prompt" in lines["tango"]


@pytest.mark.parametrize("group", ["models", "sets", "metrics", "extractors", "protocols"])
def test_list(tmp_path: Path, group: str) -> None:
    done = cli("list", group, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = {
        "models": "oracle",
        "sets": "impacts",
        "metrics": "frechet",
        "extractors": "nano-sync",
        "protocols": "nano",
    }
    assert expected[group] in done.stdout


def test_help_shows_defaults_in_brackets() -> None:
    from typer.testing import CliRunner

    from av_bench.cli.app import app

    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    assert "[default: cores]" in shown
    assert "[default: the protocol's]" in shown


def test_the_bounds_of_the_embedded_model_come_by_themselves() -> None:
    from av_bench.cli.run import _others

    assert _others(None, "mmaudio-nano:steps=2", "impacts") == ["oracle", "shuffled", "noise"]
    assert _others(None, "mmaudio-nano", "clips") == _others(None, "noise", "impacts") == []
    assert _others("none", "mmaudio-nano", "impacts") == _others(None, None, "impacts") == []
    assert _others("oracle, noise", "shuffled", "impacts") == ["oracle", "noise"]


def test_models_run_beside_share_one_table(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(2):
        write_video(videos / f"c{i}.mp4", seconds=8, size=48, audio=0.3 * tone(8.0, hertz=300.0 + 100 * i))
    done = cli(
        "run", "--model", "noise", "--set", "clips", "--data", str(videos), "--beside", "oracle,silence",
        "--metrics", "KL-nano", "--out", "runs/a", "--quiet", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["model", "oracle", "noise", "silence"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["a", "a-oracle", "a-silence"]


def test_run_hands_over_what_it_was_asked_and_ends_with_the_worst_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[RunOptions, int]] = []
    scores: dict[str, Any] = {"counts": {"scored": 1, "expected": 2}}

    def runs(options: RunOptions, count: int) -> list[RunResult]:
        asked.append((options, count))
        return [RunResult(tmp_path / "a", scores, 0), RunResult(tmp_path / "b", scores, 3)]

    monkeypatch.setattr(seeds, "run_seeds", runs)
    monkeypatch.setattr("av_bench.cli.run.print_tables", print)
    options = ["--model", "noise", "--metrics", "KL-nano, +FD-infinity-nano", "--seed", "7", "--seeds", "2"]
    done = cli("run", "--set", "clips", "--data", str(tmp_path), *options, "--flavour", "paper", cwd=tmp_path)
    assert done.returncode == 3
    assert "1 of 2 clips were scored, --min-coverage is 1" in done.stderr
    ((given, count),) = asked
    assert (given.set, given.model, given.data, given.seed, count) == ("clips", "noise", tmp_path, 7, 2)
    assert given.metrics == ("KL-nano", "+FD-infinity-nano")
    assert (given.flavour, given.quiet, given.samples_per_clip) == ("paper", False, 1)
