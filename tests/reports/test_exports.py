"""Frames, notebooks, and runs in other people's formats, read back by their own libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import av_bench
from av_bench.contracts import UsageError
from av_bench.results.record import read_run
from reports import exports
from tests.runs import make_run


def test_runs_are_frames(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "one"), make_run(tmp_path / "b", "two", drop=("F1",))]
    found = av_bench.frame(runs)
    assert sorted(found[found.model == "two"].metric) == ["FD-x", "KL-x"]
    row = found[(found.model == "one") & (found.metric == "F1")].iloc[0]
    entry = read_run(runs[0]).scores["metrics"]["F1"]
    assert (row.value, row.low, row.high, row.n) == (entry["value"], *entry["interval"], entry["n"])
    clips = av_bench.frame(runs, per="clip")
    assert list(clips.columns) == ["run", "model", "set", "clip", "group", "metric", "value"]
    mean = clips[(clips.model == "one") & (clips.metric == "KL-x")].value.mean()
    assert mean == pytest.approx(read_run(runs[0]).scores["metrics"]["KL-x"]["value"])
    with pytest.raises(UsageError, match=r"unknown unit 'clips'\. Did you mean 'clip'"):
        av_bench.frame(runs, per="clips")


def test_a_notebook_shows_a_table_with_names_as_text(tmp_path: Path) -> None:
    text = av_bench.table([make_run(tmp_path / "a", "<script>x</script>")])
    assert text.startswith("**toy")
    html = text._repr_html_()  # type: ignore[attr-defined]
    assert "<table>" in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_tensorboard_reads_the_numbers_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra av-bench[export])")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = read_run(make_run(tmp_path / "a", "one"))
    (place,) = exports.to_tensorboard([run], tmp_path / "logs")
    events = EventAccumulator(str(place))
    events.Reload()
    assert events.Scalars("F1")[0].value == pytest.approx(run.scores["metrics"]["F1"]["value"])
    assert "F1/low" in events.Tags()["scalars"]


def test_a_model_card_reads_the_results_back(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra av-bench[export])")
    run = read_run(make_run(tmp_path / "a", "one"))
    text = exports.model_index(run)
    data = yaml.safe_load(text.strip("-\n"))
    _, results = hub.repocard_data.model_index_to_eval_results(data["model-index"])
    values = {r.metric_type: r.metric_value for r in results}
    assert values == {name: entry["value"] for name, entry in run.scores["metrics"].items()}
    assert results[0].dataset_args["flavour"] == "strict"


def test_wandb_takes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (extra av-bench[export])")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    run = make_run(tmp_path / "a", "one")
    assert exports.to_wandb([read_run(run)], "p", "offline") == ["a"]
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
