"""A run that finds everything done keeps its scores, and computes them again when anything differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import av_bench
from av_bench.metrics.columns import Cosine
from av_bench.pipeline import score, unchanged
from tests.media_files import write_video

CODE = {"av-bench": "1", "git": "1234"}


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs into one folder; returns how often scores were computed by that."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for i in range(2):
        audio = 0.05 * rng.standard_normal((1, 8 * 16_000)).astype(np.float32)
        write_video(folder / f"clip_{i}.mp4", seconds=8, size=48, audio=audio, sample_rate=16_000)
    calls, compute = [], score.score

    def counted(*args: Any) -> Any:
        calls.append(args)
        return compute(*args)

    def start(**more: Any) -> int:
        calls.clear()
        own = {"set": "clips", "data": folder, "out": tmp_path / "run", "store": tmp_path / "store", "quiet": True}
        av_bench.run(**own | {"model": "noise", "metrics": ("KL-nano", "Bind-nano")} | more)
        return len(calls)

    monkeypatch.setattr(score, "score", counted)
    monkeypatch.setattr(unchanged, "code", lambda: CODE)
    return start


def test_scores_are_computed_once(again: Callable[..., int], tmp_path: Path) -> None:
    assert again() == 1
    kept = {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in unchanged.FILES}
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    assert again() == 0
    assert {name: (tmp_path / "run" / name).stat().st_mtime_ns for name in unchanged.FILES} == kept
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger
    assert json.loads((tmp_path / "run" / "run.json").read_text())["network_runs"] == 0


@pytest.mark.parametrize("name", unchanged.FILES)
def test_results_that_were_changed_are_computed_again(again: Callable[..., int], tmp_path: Path, name: str) -> None:
    again()
    file = tmp_path / "run" / name
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"noise", b"other") if name.endswith("json") else whole + b" ")
    if file.read_bytes() == whole:
        file.write_bytes(whole + b" ")
    assert again() == 1
    assert file.read_bytes() == whole


def test_other_samples_code_and_metrics_are_scored_again(
    again: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again()
    sample = next((tmp_path / "run" / "audio").iterdir())
    sample.unlink()  # made again: the same bytes, so the same scores
    assert again() == 0
    assert again(metrics=("+IS-nano",)) == 1
    assert again(metrics=("+IS-nano",)) == 0
    monkeypatch.setattr(unchanged, "code", lambda: CODE | {"git": "5678"})
    assert again(metrics=("+IS-nano",)) == 1
    for _ in range(2):  # it cannot be told what local changes do, nor what a metric of somebody else computes
        monkeypatch.setattr(unchanged, "code", lambda: CODE | {"git": "5678+dirty"})
        assert again(metrics=("+IS-nano",)) == 1
    monkeypatch.setattr(unchanged, "code", lambda: CODE)
    monkeypatch.setattr(Cosine, "__module__", "somebody.metrics")
    assert (again(metrics=("+IS-nano",)), again(metrics=("+IS-nano",))) == (1, 1)
