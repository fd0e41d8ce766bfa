"""Two models clip by clip, and marks of rows that are within noise of the best."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import av_bench
from av_bench.cli.app import app
from av_bench.contracts import UsageError
from av_bench.results.compare_clips import compare_runs
from av_bench.results.values import PSEUDO, read_values
from reports import comparison
from reports.build import tables
from reports.render import render
from reports.significance import MARK
from tests.runs import make_run


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        make_run(tmp_path / "a", "ours", generation_seed=1, noise=0.05),
        make_run(tmp_path / "b", "theirs", generation_seed=2, noise=0.05, shift=0.08),
    )


def test_differences_win_rates_and_sign_tests(pair: tuple[Path, Path]) -> None:
    found = {m.difference.metric: m for m in compare_runs(*pair).metrics}
    values = [read_values(path / "clips.parquet")["KL-x"].value for path in pair]
    gaps = np.array([values[0][c] - values[1][c] for c in values[0]])
    kl = found["KL-x"]
    assert kl.difference.value == pytest.approx(gaps.mean())
    assert (kl.wins, kl.losses) == (int((gaps < 0).sum()), int((gaps > 0).sum()))  # lower is better
    assert kl.win_rate == pytest.approx((gaps < 0).mean())
    assert kl.sign_p == pytest.approx(stats.binomtest(int((gaps < 0).sum()), len(gaps)).pvalue)
    assert kl.verdict == "A better"
    assert [p.id for p in kl.most] == [list(values[0])[i] for i in np.argsort(-np.abs(gaps), kind="stable")[:5]]
    groups = np.arange(len(gaps)) // 2  # two clips of one recording
    sums = np.bincount(groups, weights=gaps - gaps.mean()) / len(gaps)
    error = np.sqrt(20 / 19 * np.square(sums).sum())
    half = stats.t.isf(0.05 / 3 / 2, 19) * error
    assert kl.difference.low == pytest.approx(gaps.mean() - half)
    assert found["F1"].wins is not None
    assert found["FD-x"].wins is None
    assert found["FD-x"].win_rate is None
    assert len(found["FD-x"].most) == 5


def test_swapping_the_models_swaps_everything(pair: tuple[Path, Path]) -> None:
    there, back = compare_runs(*pair), compare_runs(*pair[::-1])
    for one, other in zip(there.metrics, back.metrics, strict=True):
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert (one.wins, one.losses) == (other.losses, other.wins)
        assert one.difference.low == pytest.approx(-(other.difference.high or 0))
        assert {one.verdict, other.verdict} in ({"A better", "B better"}, {"no difference found"})


def test_frames(pair: tuple[Path, Path]) -> None:
    found = av_bench.compare(*pair)
    frame = found.frame()
    assert list(frame.index) == ["FD-x", "KL-x", "F1"]
    clips = found.clips()
    means = clips.groupby("metric")["difference"].mean()
    for name in frame.index:
        assert means[name] == pytest.approx(frame.loc[name, "difference"])
    assert len(clips) == 3 * 40


def test_text_forms_say_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[0] / "videos").mkdir()
    (pair[1] / "audio").mkdir()
    found = compare_runs(*pair)
    clip = found.metrics[1].most[0].id
    (pair[0] / "videos" / f"{clip}.mp4").write_bytes(b"")
    (pair[1] / "audio" / f"{clip}.flac").write_bytes(b"")
    found = compare_runs(*pair)
    page = comparison.markdown(found, tmp_path)
    assert f"](a/videos/{clip}.mp4)" in page
    assert f"](b/audio/{clip}.flac)" in page
    rows = list(csv.DictReader(io.StringIO(comparison.csv_text(found))))
    assert len(rows) == 3 + 3 * 40
    whole = next(r for r in rows if r["metric"] == "KL-x" and r["clip"] == "*")
    assert float(whole["difference"]) == found.metrics[1].difference.value
    result = CliRunner().invoke(app, ["compare", str(pair[0]), str(pair[1])])
    assert result.exit_code == 0
    for text in (page, result.output):
        for word in ("A: ours", "B: theirs", "A better", f"{found.metrics[1].win_rate:.0%}", clip):
            assert word in text
    assert (
        CliRunner().invoke(app, ["compare", str(pair[0]), str(pair[1]), "--out", str(tmp_path / "c.csv")]).exit_code
        == 0
    )
    assert (tmp_path / "c.csv").read_text() == comparison.csv_text(found)


def test_other_clips_are_left_out_of_both(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b", n=38, excluded=2, shift=0.1)
    found = compare_runs(a, b)
    assert {m.difference.clips for m in found.metrics} == {38}
    assert found.metrics[1].difference.value == pytest.approx(-0.1)


def test_values_of_splits_name_no_clips(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, name, generation_seed=k, noise=0.1) for k, name in enumerate("ab")]
    for path in paths:
        frame = pd.read_parquet(path / PSEUDO)
        frame["group"] = [f"split {i % 4}" for i in range(len(frame))]
        frame["value"] = frame.groupby("group")["value"].transform("mean")
        frame.to_parquet(path / PSEUDO, index=False)
    found = {m.difference.metric: m for m in compare_runs(*paths).metrics}
    assert found["FD-x"].most == ()
    assert found["FD-x"].difference.effect is not None
    assert found["FD-x"].difference.effect.units == 4
    assert len(found["KL-x"].most) == 5


def test_refusals(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be compared: flavour differs"):
        compare_runs(pair[0], make_run(tmp_path / "p", flavour="paper"))
    with pytest.raises(UsageError, match="--alpha"):
        compare_runs(*pair, alpha=5)
    with pytest.raises(UsageError, match="--clips"):
        compare_runs(*pair, most=-1)


# --------------------------------------------------------------------------- marks in tables


def test_rows_within_noise_of_the_best_are_marked(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "best", generation_seed=1, noise=0.2),
        make_run(tmp_path / "b", "close", generation_seed=2, noise=0.2, shift=0.01),
        make_run(tmp_path / "c", "far", generation_seed=3, noise=0.2, shift=0.5),
        make_run(tmp_path / "o", "oracle", shift=-0.5),
    ]
    (table,) = tables(runs)
    cells = {row.name: row.cells for row in table.rows}
    ranks = {name: c["KL-x"].rank for name, c in cells.items()}
    best = next(name for name in ("best", "close") if ranks[name] == 1)
    other = "close" if best == "best" else "best"
    assert [cells[name]["KL-x"].tied for name in (best, other, "far", "oracle")] == [False, True, False, False]
    text = render([table], "markdown")
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert [MARK in lines[name] for name in (other, "far", "oracle")] == [True, False, False]
    assert "5% for all pairs of rows of a column together" in text
    assert MARK in render([table], "html")
    assert r"$\approx$" in render([table], "latex")
    marks = {(r["model"], r["metric"]): r["mark"] for r in csv.DictReader(io.StringIO(render([table], "csv")))}
    assert marks[other, "KL-x"] == "not distinguishable from the best"
    assert marks[best, "KL-x"] == "best"
    assert marks["far", "KL-x"] == ""


def test_equal_bests_are_best_and_not_marked(tmp_path: Path) -> None:
    (table,) = tables([make_run(tmp_path / "a", "one"), make_run(tmp_path / "b", "two")])
    assert [row.cells["KL-x"].rank for row in table.rows] == [1, 1]
    assert not any(cell.tied for row in table.rows for cell in row.cells.values())


def test_no_marks_without_a_second_model(tmp_path: Path) -> None:
    (table,) = tables([make_run(tmp_path / "a", "one"), make_run(tmp_path / "o", "oracle")])
    assert MARK not in render([table], "markdown")


def test_alike_runs_are_all_marked_at_the_promised_rate(tmp_path: Path) -> None:
    """Three seeds of one model, many times: some row is told from the best in at most 5 % of columns."""
    apart = 0
    for k in range(30):
        runs = [make_run(tmp_path / f"{k}-{i}", f"m{i}", generation_seed=10 * k + i, noise=0.3) for i in range(3)]
        (table,) = tables(runs)
        cells = [row.cells["KL-x"] for row in table.rows]
        apart += any(not cell.tied and cell.rank != 1 for cell in cells)
    assert apart <= 5  # 5 % of 30 is 1.5; 6 or more would come by chance in less than 1 %
