"""Tables: what is marked, what is refused, and what other formats need escaped."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from av_bench.contracts import UsageError
from reports import terminal
from reports.build import tables
from reports.render import render
from tests.runs import make_run

EVIL = "50%_of {a}&b\\c~^#$|<script>=1+2"


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / "a", "first", shift=0.1),
        make_run(tmp_path / "b", "second", shift=0.05),
        make_run(tmp_path / "c", "third", shift=0.2),
        make_run(tmp_path / "o", "oracle", shift=-0.3),
        make_run(tmp_path / "n", "noise", shift=0.4),
    ]


def test_bounds_stand_apart_and_are_not_ranked(runs: list[Path]) -> None:
    (table,) = tables(runs)
    assert [row.name for row in table.rows] == ["oracle", "noise", "first", "second", "third"]
    ranks = {row.name: row.cells["KL-x"].rank for row in table.rows}
    assert ranks == {"oracle": None, "noise": None, "first": 2, "second": 1, "third": None}
    assert {row.name: row.cells["F1"].rank for row in table.rows}["second"] == 1


def test_markdown_marks_and_counts(runs: list[Path]) -> None:
    text = render(tables(runs), "markdown")
    best = next(line for line in text.splitlines() if line.startswith("| second"))
    assert best.count("**") == 6
    assert "FD-x ↓" in text
    assert "F1 ↑" in text
    assert "first: 40 of 40 clips scored; excluded: none" in text


def test_different_clips_are_refused_unless_asked(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "one"), make_run(tmp_path / "b", "two", n=36, excluded=4)]
    with pytest.raises(UsageError, match="--allow-different-n"):
        tables(runs)
    (table,) = tables(runs, allow_different_n=True)
    assert "Rows are scored on different clips" in table.notes[0]
    assert "excluded: 4 unreadable" in render([table], "markdown")


def test_flavours_are_never_mixed(tmp_path: Path) -> None:
    found = tables([make_run(tmp_path / "a"), make_run(tmp_path / "b", flavour="paper")])
    assert len(found) == 2
    assert "paper flavour" in found[1].title


def test_an_absent_metric_leaves_its_cell_empty(tmp_path: Path) -> None:
    (table,) = tables([make_run(tmp_path / "a", "one"), make_run(tmp_path / "b", "two", drop=("F1",))])
    assert "F1 is absent: not this time (two)" in table.notes
    line = next(line for line in render([table], "markdown").splitlines() if line.startswith("| two"))
    assert line.split("|")[4].strip() == ""


def test_csv_keeps_full_precision_and_runs_nothing(tmp_path: Path) -> None:
    text = render(tables([make_run(tmp_path / "a", "=cmd()")]), "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["model"] == "'=cmd()"
    assert float(rows[1]["value"]) == tables([tmp_path / "a"])[0].rows[0].cells["KL-x"].value


def test_html_escapes(tmp_path: Path) -> None:
    text = render(tables([make_run(tmp_path / "a", EVIL)]), "html")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_latex_escapes(tmp_path: Path) -> None:
    text = render(tables([make_run(tmp_path / "a", EVIL)]), "latex")
    assert r"50\%\_of \{a\}\&b\textbackslash{}c\textasciitilde{}\textasciicircum{}\#\$$|$$<$script$>$=1+2" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(runs: list[Path], tmp_path: Path) -> None:
    body = render(tables([*runs, make_run(tmp_path / "e", EVIL)]), "latex")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "t.tex").write_text(document, encoding="utf8")
    args = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    with pytest.raises(UsageError, match="not a finished run"):
        tables([tmp_path / "half"])
    with pytest.raises(UsageError, match="no run folders"):
        tables([])


def test_unknown_format_names_the_nearest(runs: list[Path]) -> None:
    with pytest.raises(UsageError, match="Did you mean 'latex'"):
        render(tables(runs), "latx")


def with_metric(folder: Path, name: str, **more: Any) -> Path:
    """The run with one more metric, or with a changed one."""
    scores = json.loads((folder / "scores.json").read_text())
    scores["metrics"][name] = scores["metrics"].get(name, scores["metrics"]["KL-x"]) | more
    if name not in scores["protocol"]["metrics"]:
        scores["protocol"]["metrics"].append(name)
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    plain, more = make_run(tmp_path / "a", "plain"), with_metric(make_run(tmp_path / "b", "more"), "KL2")
    for order in ([plain, more], [more, plain]):
        (table,) = tables(order)
        assert "KL2" in [c.name for c in table.columns]


def test_numbers_of_other_networks_are_not_ranked(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, seed=i) for i, name in enumerate("ab")]
    with_metric(runs[1], "KL-x", extractors={"x": "x-2"})
    (table,) = tables(runs)
    ranks = {(row.name, name): cell.rank for row in table.rows for name, cell in row.cells.items()}
    assert ranks["a", "KL-x"] is ranks["b", "KL-x"] is None
    assert ranks["a", "F1"] is not None
    assert any("networks behind KL-x come from different weights" in note for note in table.notes)


def test_what_a_metric_says_of_itself_stands_under_the_table(tmp_path: Path) -> None:
    runs = [with_metric(make_run(tmp_path / name, name), "FD-x", notes=["biased upwards"]) for name in "ab"]
    with_metric(runs[1], "F1", notes=["undefined for 2 of 40 clips"])
    (table,) = tables(runs)
    assert "FD-x: biased upwards" in table.notes
    assert "F1: undefined for 2 of 40 clips (b)" in table.notes


@pytest.mark.parametrize("name", ["[ours] v2", "*star"])
def test_no_name_is_read_as_an_option_of_the_line_before(tmp_path: Path, name: str) -> None:
    text = render(tables([make_run(tmp_path / "a", "one"), make_run(tmp_path / "b", name)]), "latex")
    assert f"\n{{{name}}} & " in text


@pytest.mark.parametrize("width", [30, 44, 80, 200])
def test_every_number_is_whole_in_a_terminal_of_any_width(
    runs: list[Path], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "console", lambda: Console(width=width, force_terminal=False))
    (table,) = tables(runs)
    terminal.show([table])
    text = capsys.readouterr().out
    assert "…" not in text
    for row in table.rows:
        for cell in row.cells.values():
            assert f"{cell.number} ±{cell.half_width:.{cell.digits}f}" in text
    assert (text.count("model") == 1) == (width >= 80)  # one block where all columns fit side by side


def test_the_same_sounds_in_another_order_have_no_distance(tmp_path: Path) -> None:
    """FD and IS ignore the order: the real sounds themselves would look like the best model."""
    (table,) = tables([make_run(tmp_path / "s", "shuffled"), make_run(tmp_path / "m", "model")])
    shuffled, model = table.rows
    assert set(shuffled.cells) == {"KL-x", "F1"}
    assert set(model.cells) == {"FD-x", "KL-x", "F1"}
    assert any(note.startswith("no FD-x: the same recordings") and "(shuffled)" in note for note in table.notes)
