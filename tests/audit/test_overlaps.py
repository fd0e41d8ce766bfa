"""Rules, counts, several training sets, and the files an audit leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from av_bench.audit.cliplist import ClipList
from av_bench.audit.lists import read_list
from av_bench.audit.overlaps import audit, counts
from av_bench.audit.report import load_overlaps, load_training_side, to_json, write_csv, write_json
from av_bench.cli.audit import app
from av_bench.contracts import UsageError

A, B, C, D = "-aaaaaaaa_a", "bb_bbbbbbb-", "ccccccccccc", "ddddddddddd"
TEST = f"{A}_0_10000\n{A}_50000_60000\n{B}_30000_40000\n{C}_0_10000\n"
TRAIN_1 = f"{A}_5000_15000\n{A}_60000_70000\n{B}_30000_40000\n{D}_0_10000\n"
TRAIN_2 = f"{C}_10000_20000\n{B}_39000_49000\n"


def _list(folder: Path, name: str, text: str) -> ClipList:
    (folder / name).write_text(text)
    return read_list(folder / name, "vggsound-ms", name)


@pytest.fixture
def lists(tmp_path: Path) -> tuple[ClipList, ClipList, ClipList]:
    return _list(tmp_path, "test", TEST), _list(tmp_path, "one", TRAIN_1), _list(tmp_path, "two", TRAIN_2)


@pytest.mark.parametrize(
    ("rule", "one", "two"),
    [
        ("id", {f"{A}_000000", f"{A}_000050", f"{B}_000030"}, {f"{B}_000030", f"{C}_000000"}),
        ("overlap", {f"{A}_000000", f"{B}_000030"}, {f"{B}_000030"}),  # windows that only touch share no time
        ("segment", {f"{B}_000030"}, set()),
    ],
)
def test_rules(rule: str, one: set[str], two: set[str], lists: tuple[ClipList, ClipList, ClipList]) -> None:
    result = audit(lists[0], lists[1:], rule)  # type: ignore[arg-type]
    assert [t.clips for t in result.trains] == [one, two]
    assert result.union[0] == one | two
    assert result.intersection[0] == one & two
    assert result.union[1] == {c.rsplit("_", 1)[0] for c in one | two}
    assert (result.n_clips, result.n_ids) == (4, 3)


def test_findings_name_both_rows(lists: tuple[ClipList, ClipList, ClipList]) -> None:
    found = audit(lists[0], [lists[2]], "overlap").findings
    assert len(found) == 1
    assert (Path(found[0].test.file).name, found[0].test.line, found[0].test.start) == ("test", 3, 30_000)
    assert (Path(found[0].train.file).name, found[0].train.line, found[0].train.start) == ("two", 2, 39_000)


def test_captions_of_one_clip_count_once(tmp_path: Path) -> None:
    text = "audiocap_id,youtube_id,start_time,caption\n" + "".join(f"{i},{A},0,caption {i}\n" for i in range(5))
    (tmp_path / "ac.csv").write_text(text)
    test = read_list(tmp_path / "ac.csv", "audiocaps")
    result = audit(test, [_list(tmp_path, "one", f"{A}_0_10000\n")])
    assert (result.n_clips, len(result.findings), len(result.union[0])) == (1, 1, 1)


Starts = list[tuple[str, int]]
starts = st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 40)), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(test=starts, train=starts)
def test_rules_agree_with_a_plain_loop(tmp_path: Path, test: Starts, train: Starts) -> None:
    folder = tmp_path
    a = _list(folder, "a", "".join(f"{i}_{s * 1000}_{s * 1000 + 10000}\n" for i, s in test))
    b = _list(folder, "b", "".join(f"{i}_{s * 1000}_{s * 1000 + 10000}\n" for i, s in train))
    hits = {
        "id": {(i, s) for i, s in test if any(i == j for j, _ in train)},
        "overlap": {(i, s) for i, s in test if any(i == j and abs(s - t) < 10 for j, t in train)},
        "segment": {(i, s) for i, s in test if (i, s) in train},
    }
    assert counts(a, b) == {rule: (len(found), len({i for i, _ in found})) for rule, found in hits.items()}
    for rule, found in hits.items():
        assert audit(a, [b], rule).union[0] == {f"{i}_{s:06d}" for i, s in found}  # type: ignore[arg-type]


def test_what_cannot_be_compared_is_refused(lists: tuple[ClipList, ClipList, ClipList], tmp_path: Path) -> None:
    (tmp_path / "hits.txt").write_text("2015-02-16-17-08-51\n")
    hits = read_list(tmp_path / "hits.txt")
    (tmp_path / "black.csv").write_text(f"index,id\n0,Y{A}.wav\n")
    black = read_list(tmp_path / "black.csv", "wavcaps-blacklist-audioset")
    with pytest.raises(UsageError, match="greatest-hits ids"):
        audit(lists[0], [hits])
    with pytest.raises(UsageError, match="no start times"):
        audit(lists[0], [black], "overlap")
    assert audit(lists[0], [black]).union[0] == {f"{A}_000000", f"{A}_000050"}
    assert set(counts(lists[0], black)) == {"id"}
    with pytest.raises(UsageError, match="no training list"):
        audit(lists[0], [])
    with pytest.raises(UsageError, match="twice"):
        audit(lists[0], [lists[1], lists[1]])
    with pytest.raises(UsageError, match="available: id, overlap, segment"):
        audit(lists[0], [lists[1]], "name")  # type: ignore[arg-type]


def test_json_and_csv(lists: tuple[ClipList, ClipList, ClipList], tmp_path: Path) -> None:
    result = audit(lists[0], lists[1:], "overlap")
    write_json(to_json(result), tmp_path / "audit.json")
    write_csv(result.findings, tmp_path / "audit.csv")
    data = json.loads((tmp_path / "audit.json").read_text())
    assert load_overlaps(tmp_path / "audit.json") == {f"{A}_000000", f"{B}_000030"}
    rows = {(f["id"], f["train"]["start"]) for f in data["findings"]}
    assert load_training_side(tmp_path / "audit.json") == {f"{name}_{int(start):06d}" for name, start in rows}
    write_json(to_json(audit(lists[0], lists[1:], "id")), tmp_path / "by_id.json")
    assert {A, B} <= load_training_side(tmp_path / "by_id.json")
    assert data["test"] == {"name": "test", "clips": 4, "ids": 3}
    assert [t["overlapping_clips"] for t in data["train"]] == [2, 1]
    assert data["in_every_train"] == [f"{B}_000030"]
    assert len(data["files"]) == 3
    with (tmp_path / "audit.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [(r["clip"], r["test_line"], r["train_line"], r["train_start_s"]) for r in rows] == [
        (f["clip"], str(f["test"]["line"]), str(f["train"]["line"]), f"{f['train']['start']:g}")
        for f in data["findings"]
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 99, "overlapping": []}', '{"version": 1}', '{"version": 1, "overlapping": [1]}']
)
def test_foreign_audit_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(UsageError, match="audit"):
        load_overlaps(tmp_path / "audit.json")


def test_command_writes_files_and_exits_3_on_malformed_rows(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(TEST)
    (tmp_path / "one.txt").write_text(TRAIN_1)
    out = tmp_path / "audit.json"
    files = ["--test", str(tmp_path / "test.txt"), "--train", str(tmp_path / "one.txt")]
    arguments = ["lists", *files, "--json", str(out)]
    clean = CliRunner().invoke(app, arguments)
    assert clean.exit_code == 0, clean.output
    assert len(load_overlaps(out)) == 3
    (tmp_path / "one.txt").write_text(TRAIN_1 + "rubbish\n")
    dirty = CliRunner().invoke(app, arguments)
    assert dirty.exit_code == 3
    assert f"{tmp_path / 'one.txt'}:5: not like" in dirty.output
    assert json.loads(out.read_text())["malformed"][0]["line"] == 5
