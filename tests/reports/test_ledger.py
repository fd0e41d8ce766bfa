"""The ledger of reported numbers: its files, what is found in it, and how it stands in a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from av_bench.contracts import UsageError
from av_bench.results.record import read_run
from reports import ledger, reported_view
from reports.build import tables
from tests.reports.paper_runs import scored_run

HEAD = ",".join(ledger.COLUMNS)


def test_papers_disagree_about_one_model() -> None:
    (fd,) = [s for s in ledger.spreads(ledger.read(), "hunyuanvideo-foley", "vggsound") if s.metric == "FD-PaSST"]
    assert sorted(fd.evidence) == [79.07, 85.19, 97.85, 145.22]
    assert fd.unchecked == 4
    assert "79.07 to 145.22, factor 1.84" in reported_view.summary(fd)


def test_a_variant_finds_its_own_numbers_and_those_of_its_family() -> None:
    (fd,) = [s for s in ledger.spreads(ledger.read(), "MMAudio-L", "vggsound") if s.metric == "FD-PaSST"]
    found = {(n.printed, n.model): how for n, how in fd.numbers}
    assert found["60.60", "MMAudio-L-44.1kHz"] == "exact"
    assert found["69.25", "MMAudio-L-44.1kHz-v2"] == "exact"
    assert found["102.93", "MMAudio"] == "family"
    assert not any("MMAudio-S" in model for _, model in found)


def test_a_cosine_and_its_hundredfold_are_one_metric() -> None:
    (ib,) = [s for s in ledger.spreads(ledger.read(), "hunyuanvideo-foley", "vggsound") if s.metric == "IB-score"]
    assert {n.printed: n.value for n, _ in ib.numbers}["0.32 (cosine)"] == pytest.approx(32.0)


def test_copied_numbers_are_no_evidence(tmp_path: Path) -> None:
    """Table 3 of the paper takes its baselines from another paper."""
    (fd,) = [s for s in ledger.spreads(ledger.read(), "TANGO 2", "audiocaps") if s.metric == "FD-PANNs"]
    assert fd.evidence == []
    assert reported_view.summary(fd) == "no evidence: copied numbers only"
    path = tmp_path / "x.csv"
    path.write_text(f"{HEAD}\nX,,T,s,,,copied,source,M,FD-VGG,1\nX,,T,s,,,rerun,source,M,FD-VGG,2\n")
    (spread,) = ledger.spreads(ledger.read_file(path), "m", "s")
    assert spread.evidence == [2.0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("X,,T,s,,,own,source,M,FD-VGG,much", "'much' is not a number"),
        ("X,,T,s,,,owned,source,M,FD-VGG,1", "Did you mean 'own'"),
        ("X,,T,s,,,own,hearsay,M,FD-VGG,1", "read_in"),
        (",,T,s,,,own,source,M,FD-VGG,1", "paper is empty"),
        ("X,,T,s,own", "fields are expected"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{HEAD}\n{line}\n")
    with pytest.raises(UsageError, match=said) as error:
        ledger.read_file(path)
    assert f"{path}:2" in str(error.value)


def test_nothing_reported_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"there is something on .*kling-audio-eval"):
        ledger.spreads(ledger.read(), "hunyuanvideo-foley", "clotho")
    with pytest.raises(UsageError, match="Did you mean 'V-AURA'"):
        ledger.spreads(ledger.read(), "V-AURORA", None)


def test_reported_rows_stand_in_a_table_with_their_source_and_mark(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", "mine", "vggsound", {"FD-PaSST": 70.0, "DeSync": 0.5})
    (table,) = tables([run])
    table = ledger.with_ledger(table, ledger.read(), ["hunyuanvideo-foley"])
    rows = {row.name: row for row in table.rows if row.group == "reported"}
    cell = rows["HunyuanVideo-Foley (AC-Foley, 8676 clips)"].cells["FD-PaSST"]
    assert (cell.number, cell.marks, cell.rank) == ("85.19", ("?",), None)
    assert ("?", "read only in a summary of the source") in table.footnotes
    with pytest.raises(UsageError, match="no model or paper of that name"):
        ledger.with_ledger(table, ledger.read(), ["nobody"])


def test_the_answer_holds_our_own_run(tmp_path: Path) -> None:
    run = read_run(scored_run(tmp_path / "a", "mine", "vggsound", {"FD-PaSST": 70.0}))
    found = ledger.spreads(ledger.read(), "v-aura", "vggsound")
    own = reported_view.own_values([run], "vggsound")
    text = reported_view.markdown("v-aura", "vggsound", found, own)
    assert "| FD-PaSST ↓ | 218.5 (1 number) | 70 (mine) |" in text
    rows = list(csv.DictReader(io.StringIO(reported_view.as_csv(found, own))))
    assert [r["value"] for r in rows if r["paper"] == "this run"] == ["70"]
    reported_view.plot("v-aura", "vggsound", found, own, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
