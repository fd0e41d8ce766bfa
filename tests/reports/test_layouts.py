"""Every table of the paper from runs with the paper's numbers: what is printed, and that it compiles and fits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from av_bench.cli import facts
from av_bench.contracts import UsageError
from reports import layouts, paper_rows
from reports.arrange import Fact, arranged
from reports.change import changed, with_details
from reports.model import Table
from reports.render import render
from tests.reports.paper_runs import runs_of, scored_run

ABLATIONS = ("table4", "table5", "table6", "table7", "tableA3")
OF_RUNS = ("table1", "table2", "table3", *ABLATIONS, "tableA2")
HOSTILE = ("50%_of {a}&b\\c~^#$|<script>", "[ours] *v2*", "שלום مرحبا 🎧", "a_very_long_name_without_any_blank_" * 3)


def made(name: str, folder: Path, with_paper: bool = False) -> Table:
    """The layout of a table of the paper, filled with run folders that hold the paper's numbers."""
    layout = layouts.load(f"mmaudio-{name}")
    more = runs_of("table1", folder / "joined") if name == "table2" else []
    (table,) = arranged([*runs_of(name, folder), *more], layout, with_paper=with_paper, facts=study(name))
    return table


def study(name: str) -> list[Fact]:
    """The ratings of the paper's user study, as our scoring would hand them over."""
    if name not in ("tableA1", "tableA2"):
        return []
    rows = []
    for entry in paper_rows.read(name):
        rated = {c: cell for c, cell in entry.cells.items() if cell.spread is not None}
        spread = {c: float(cell.spread or "") for c, cell in rated.items()}
        rows.append(Fact(entry.method, {c: cell.value for c, cell in rated.items()}, spread))
    return rows


@pytest.mark.parametrize("name", OF_RUNS)
def test_what_is_printed_is_what_the_paper_prints(name: str, tmp_path: Path) -> None:
    table = made(name, tmp_path)
    for entry in paper_rows.read(name):
        rows = [r for r in table.rows if r.name.removesuffix(" (default)") == entry.method]
        assert len(rows) == 1, entry.method
        for column, cell in entry.cells.items():
            if column == "training hours":
                continue  # no run knows them
            assert rows[0].cells[column].number == cell.printed, (entry.method, column)
            assert rows[0].cells[column].spread == cell.spread


@pytest.mark.parametrize("name", OF_RUNS)
def test_the_papers_rows_stand_as_they_are_printed_there(name: str, tmp_path: Path) -> None:
    table = made(name, tmp_path, with_paper=True)
    reported = [r for r in table.rows if r.group == "reported"]
    assert len(reported) == len(paper_rows.read(name))
    texts = {r.name: r for r in reported}
    for entry in paper_rows.read(name):
        for column, cell in entry.cells.items():
            assert texts[f"{entry.method} (reported)"].cells[column].number == cell.printed


def test_rows_scored_at_5_s_are_grey_and_stand_beside_the_others(tmp_path: Path) -> None:
    table = made("table1", tmp_path)
    assert [r.name for r in table.rows if r.grey] == ["ReWaS"]
    assert r"\textcolor{gray}{141.38" in render([table], "latex")


def test_desync_of_table_2_comes_from_the_runs_on_vggsound(tmp_path: Path) -> None:
    layout = layouts.load("mmaudio-table2")
    alone = scored_run(tmp_path / "a", "X", "greatest_hits", {"Acc": 0.5, "AP": 0.6, "F1": 0.7})
    (table,) = arranged([alone], layout)
    assert [c.name for c in table.columns] == ["Acc", "AP", "F1"]
    assert any(note.startswith("No row has DeSync") for note in table.notes)
    joined = scored_run(tmp_path / "b", "X", "vggsound", {"DeSync": 0.851})
    (table,) = arranged([alone, joined], layout)
    assert table.rows[0].cells["DeSync"].number == "0.851"


def test_runs_of_an_ablation_are_known_by_their_config(tmp_path: Path) -> None:
    names = {"with sync module": "small_16k", "no RoPE": "ablations/table6_rope_none".rpartition("/")[2]}
    runs = [r for r in runs_of("table6", tmp_path, names=names) if r.name != "table6-3"]
    (table,) = arranged(runs, layouts.load("mmaudio-table6"))
    by_section = {s: [r.name for r in table.rows if r.section == s] for s in ("Synchronisation", "RoPE")}
    assert by_section["RoPE"] == ["aligned RoPE (default)", "no RoPE", "non-aligned RoPE"]
    assert by_section["Synchronisation"][0] == "with sync module (default)"


def test_other_networks_keep_their_names_and_the_caption_says_so(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", "mmaudio-nano", "impacts", {"FD-nano": 175.2, "IS-nano": 3.1, "DeSync-nano": 0.1})
    (table,) = arranged([run], layouts.load("mmaudio-table1"))
    assert next((c.name, c.head, c.sub) for c in table.columns) == ("FD-nano", "FD", "nano")
    assert "Here on other clips and networks than the paper's: impacts" in table.caption
    with pytest.raises(UsageError, match="the paper's numbers are of vggsound"):
        arranged([run], layouts.load("mmaudio-table1"), with_paper=True)


def test_better_than_real_is_marked(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path / "o", "oracle", "vggsound", {"DeSync": 0.625, "IB-score": 33.0}),
        scored_run(tmp_path / "m", "X", "vggsound", {"DeSync": 0.439, "IB-score": 32.0}),
    ]
    (table,) = arranged(runs, layouts.load("mmaudio-table1"))
    marks = {(r.name, c): cell.marks for r in table.rows for c, cell in r.cells.items()}
    assert marks["X", "DeSync"] == ("‡",)
    assert marks["X", "IB-score"] == marks["oracle", "DeSync"] == ()
    assert next(text for mark, text in table.footnotes if mark == "‡").startswith(
        "better than the reference audio (oracle) in DeSync"
    )


def test_a_scorer_in_the_loop_is_marked(tmp_path: Path) -> None:
    described = {"metric_networks_used": {"imagebind": "its score is optimised at test time"}}
    run = scored_run(tmp_path / "m", "S&H", "vggsound", {"DeSync": 1.2, "IB-score": 33.99}, described)
    (table,) = arranged([run], layouts.load("mmaudio-table1"))
    assert table.rows[0].cells["IB-score"].marks == ("◇",)
    assert table.rows[0].cells["DeSync"].marks == ()
    assert "S&H, IB-score (its score is optimised at test time)" in table.footnotes[-1][1]


def test_details_of_desync_are_paired_with_the_real_sound(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path / "o", "oracle", "vggsound", {"DeSync": 0.625}),
        scored_run(tmp_path / "m", "X", "vggsound", {"DeSync": 0.439}),
    ]
    (table,) = arranged(runs, layouts.load("mmaudio-table1"))
    row = with_details(table).rows[-1]
    assert row.cells["DeSync - real"].value == pytest.approx(0.439 - 0.625)
    assert row.cells["DeSync within one class"].value == 0.775


def test_columns_names_caption_and_label_can_be_changed(tmp_path: Path) -> None:
    table = made("table1", tmp_path)
    new = changed(table, columns=["IS", "FD-VGG"], rename=["VATT=Theirs", "IS=Inception"], caption="C", label="l")
    assert [c.title for c in new.columns] == ["Inception", "FD-VGG"]
    assert "Theirs" in [r.name for r in new.rows]
    text = render([new], "latex")
    assert r"\caption{C}" in text
    assert r"\label{tab:l}" in text
    with pytest.raises(UsageError, match="Did you mean 'IS'"):
        changed(table, columns=["ISS"])
    with pytest.raises(UsageError, match="OLD=NEW is expected"):
        changed(table, rename=["VATT"])


def test_a_layout_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\ntitle: X\ncolumns:\n  - {name: IS, decimal: 2}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: columns\[0\]: .*Did you mean 'decimals'"):
        layouts.load(str(path))


def every_table(folder: Path) -> Iterator[Table]:
    """All fourteen tables with the paper's numbers, those of facts, and runs with hostile names."""
    for name in OF_RUNS:
        yield made(name, folder / name)
        yield made(name, folder / f"{name}-paper", with_paper=True)
    for name, given in (("A1", study("tableA1")), ("A5", facts.codecs()), ("A6", facts.variants())):
        yield from arranged([], layouts.load(f"mmaudio-table{name}"), facts=given, with_paper=True)
    yield from arranged([], layouts.load("mmaudio-tableA4"), facts=facts.audit(audit_file(folder)), with_paper=True)
    yield from arranged([], layouts.load("mmaudio-tableA7"), facts=facts.training([trained(folder)]), with_paper=True)
    wide = {f"Some-metric-{i}": 123.456 for i in range(18)}
    yield from arranged(
        [scored_run(folder / f"h{i}", n, "toy", wide) for i, n in enumerate(HOSTILE)], layouts.load("generic")
    )


def audit_file(folder: Path) -> Path:
    """The audit's answer for table A4, with one pair compared and one not."""
    pair = {"test": "audiocaps/test", "train": "vggsound/train", "without": [], "clips": 975, "ids": 975}
    cells = [pair | {"ours": {"id": {"clips": 146, "ids": 146}}}]
    cells.append({"test": "audiocaps/test", "train": "audioset/train", "without": [], "why": "no list"})
    path = folder / "a4.json"
    path.write_text(json.dumps({"kind": "table-a4", "cells": cells}))
    return path


def trained(folder: Path) -> Path:
    """A training run of half an hour on two GPUs, by its log."""
    out = folder / "small_16k"
    out.mkdir()
    (out / "recipe.json").write_text(json.dumps({"batch": 512}))
    lines = [{"step": s, "kind": "train", "samples_per_second": 512.0, "gpus": 2} for s in (900, 1800)]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


def test_table_a4_prints_shares_and_says_what_was_not_compared(tmp_path: Path) -> None:
    (table,) = arranged([], layouts.load("mmaudio-tableA4"), facts=facts.audit(audit_file(tmp_path)))
    (row,) = table.rows
    assert row.cells["VGGSound"].number == "146 (14.97 %)"
    assert "AudioSet" not in row.cells
    assert any("AudioSet not compared (no list)" in note for note in table.notes)


def test_table_a7_counts_hours_by_the_log(tmp_path: Path) -> None:
    (fact,) = facts.training([trained(tmp_path)])
    assert fact.values["hours"] == pytest.approx(0.5)
    assert (fact.values["GPUs"], fact.values["GPU-hours"]) == (2, pytest.approx(1.0))


CLASSES = {
    "article": r"\documentclass[twocolumn]{article}",
    "cvpr-like": r"\documentclass[twocolumn,letterpaper]{article}\usepackage{times}"
    r"\usepackage[textwidth=6.875in,columnsep=0.3125in,textheight=8.875in]{geometry}",
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """LaTeX of every table, and of one that lies on its side."""
    tables = list(every_table(tmp_path_factory.mktemp("runs")))
    return [render([table], "latex") for table in tables] + [render(tables[:1], "latex", landscape=True)]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-extra)")
@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_every_layout_compiles_in_two_columns_and_fits(kind: str, bodies: list[str], tmp_path: Path) -> None:
    assert not any("resizebox" in body for body in bodies)
    packages = r"\usepackage{booktabs,xcolor,rotating}\usepackage[T1]{fontenc}"
    text = "\n".join(f"Text.\n{body}\n\\clearpage" for body in bodies)
    (tmp_path / "t.tex").write_text(
        f"{CLASSES[kind]}{packages}\\begin{{document}}\n{text}\n\\end{{document}}\n", "utf8"
    )
    args = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "t.log").read_text(encoding="utf8", errors="replace")
    assert not re.findall(r"Overfull .hbox.*|Float too large.*|Undefined control.*", log)
