"""The functions of ``av_bench`` itself: typed, with the options of a run, and forgiving about paths."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import av_bench
from av_bench.contracts import UsageError
from av_bench.pipeline.plan import RunOptions


def test_run_has_the_options_of_a_run_with_their_defaults() -> None:
    parameters = inspect.signature(av_bench.run).parameters
    fields = {f.name: f.default for f in dataclasses.fields(RunOptions)}
    assert list(parameters) == list(fields)
    for name, default in fields.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == (inspect.Parameter.empty if default is dataclasses.MISSING else default)
        assert f"\n    {name}: " in (inspect.getdoc(av_bench.run) or "")


def test_run_hands_over_paths_and_metrics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[RunOptions] = []
    monkeypatch.setattr("av_bench.pipeline.shard.run", given.append)
    values = {f.name: f"{tmp_path}/{f.name}" for f in dataclasses.fields(RunOptions) if "Path" in str(f.type)}
    assert len(values) == 8
    for metrics in ("KL-nano, +F1", ["KL-nano", "+F1"], ("KL-nano", "+F1")):
        av_bench.run(set="clips", model="noise", metrics=metrics, limit=3, seed=7, quiet=True, **values)  # type: ignore[arg-type]
        expected = {name: tmp_path / name for name in values}
        assert given.pop() == RunOptions(
            set="clips", model="noise", metrics=("KL-nano", "+F1"), limit=3, seed=7, quiet=True, **expected
        )


def test_one_metric_may_be_a_string(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --data"):
        av_bench.run(set="clips", model="oracle", metrics="KL-nano", out=tmp_path / "run", quiet=True)
    with pytest.raises(TypeError, match="modell"):
        av_bench.run(set="clips", modell="oracle")  # type: ignore[call-arg]
