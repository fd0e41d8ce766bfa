"""Parameters, seconds and spread in tables, and rows as the paper reports them beside ours."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from av_bench.contracts import UsageError
from reports.build import tables
from reports.model import Row
from reports.paper_rows import read
from reports.render import render
from tests.runs import make_run

DESCRIBED = {
    "conditions": ["video"],
    "training_sets": [],
    "parameters": {"count": 621_000_000, "source": "measured"},
    "seconds_per_sample": {"mean": 1.5, "sd": 0.25, "n": 30, "how": "batch of one, warm", "device": "cuda"},
    "paper": [{"table": "table1", "row": "Frieren"}],
    "problems": ["result.json counts 8 rows, 5 were written"],
}


def entry(value: float, **details: float) -> dict[str, Any]:
    return {
        "value": value,
        "n": 40,
        "interval": [value - 1, value + 1],
        "higher_is_better": False,
        "unit": "",
        "flavour": "paper",
        "extractors": {},
        "notes": [],
        "details": details,
    }


def described(folder: Path, name: str, fd: float, **changes: Any) -> Path:
    """A run of the columns FD-PaSST and IS whose record describes its generator."""
    metrics = {"FD-PaSST": entry(fd, samples=10, std_over_samples=0.75), "IS": entry(12.0) | {"higher_is_better": True}}
    protocol = {"name": "vggsound-8s", "version": "1", "seconds": 8.0, "metrics": list(metrics)}
    make_run(folder, name, flavour="paper", drop=("FD-x", "KL-x", "F1"))
    scores = json.loads((folder / "scores.json").read_text())
    about = {"set": scores["set"] | {"name": "vggsound"}, "metrics": metrics, "protocol": protocol}
    (folder / "scores.json").write_text(json.dumps(scores | about))
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"generator": DESCRIBED | changes}))
    return folder


def row(rows: tuple[Row, ...], name: str) -> Row:
    return next(r for r in rows if r.name == name)


def test_params_and_seconds_describe_and_do_not_rank(tmp_path: Path) -> None:
    small = {"parameters": {"count": 12_345, "source": "its paper"}}
    (table,) = tables([described(tmp_path / "a", "ours", 100.0), described(tmp_path / "b", "tiny", 90.0, **small)])
    assert [c.heading for c in table.columns] == ["params (M)", "FD-PaSST ↓", "IS ↑", "seconds (s/sample)"]
    ours, tiny = row(table.rows, "ours"), row(table.rows, "tiny")
    assert (ours.cells["params"].number, tiny.cells["params"].number) == ("621", "0.012")
    assert tiny.cells["FD-PaSST"].rank == 1
    assert tiny.cells["params"].rank is None
    assert tiny.cells["seconds"].rank is None
    text = render([table], "markdown")
    assert "| ours | 621 |" in text
    assert "tiny: params as declared, not counted (its paper)" in text
    assert "ours: seconds over 30 samples, sd 0.250: batch of one, warm; cuda" in text
    assert "ours: mean over 10 samples per clip, then over clips; sd over samples: FD-PaSST 0.750" in text
    assert "Warning: ours: result.json counts 8 rows" in text


def test_runs_without_a_description_have_no_such_columns(tmp_path: Path) -> None:
    (table,) = tables([make_run(tmp_path / "a", "one")])
    assert "params" not in render([table], "markdown")


def test_reported_rows_stand_beside_ours_with_the_difference(tmp_path: Path) -> None:
    (table,) = tables([described(tmp_path / "a", "frieren", 107.6)], with_paper="table1")
    reported = {r.method: r.values for r in read("table1")}
    assert [r.group for r in table.rows] == ["models"] + ["reported"] * len(reported) + ["difference"]
    theirs, difference = row(table.rows, "Frieren (reported)"), row(table.rows, "frieren - reported")
    assert theirs.cells["FD-PaSST"].value == reported["Frieren"]["FD-PaSST"] == 106.10
    assert theirs.cells["FD-PaSST"].n is None
    assert difference.cells["FD-PaSST"].number == "+1.500"
    assert difference.cells["params"].number == "+462"
    assert "seconds" not in difference.cells  # the paper has none for this row
    assert row(table.rows, "MMAudio-L-44.1kHz (reported)").cells["params"].value == 1030
    assert all(cell.rank is None for r in table.rows if r.group != "models" for cell in r.cells.values())
    text = render([table], "markdown")
    assert "ReWaS (reported): evaluated at 5 s" in text
    assert "not measured here" in text
    lines = list(csv.DictReader(io.StringIO(render([table], "csv"))))
    assert {line["n"] for line in lines if "(reported)" in line["model"]} == {""}
    assert "+1.500" in render([table], "latex")
    assert "+1.500" in render([table], "html")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table9", "Did you mean"),
        ("table3", "of audiocaps in the paper flavour, this table is of vggsound in the paper flavour"),
        ("table4", "compares no methods"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tables([described(tmp_path / "a", "one", 100.0)], with_paper=name)


def test_strict_numbers_do_not_stand_beside_the_papers(tmp_path: Path) -> None:
    run = described(tmp_path / "a", "one", 100.0)
    scores = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(scores | {"flavour": "strict"}))
    with pytest.raises(UsageError, match="this table is of vggsound in the strict flavour"):
        tables([run], with_paper="table1")


def test_every_table_of_methods_can_be_read() -> None:
    for name in ("table1", "table2", "table3", "tableA2"):
        assert all(row.values for row in read(name)), name
    assert {r.method: r.values["params"] for r in read("tableA2")}["Movie Gen Audio"] == 13_000
