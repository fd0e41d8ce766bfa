"""Set and protocol definitions: every shipped one loads, and bad tables are named by file and line."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

import protocols
from av_bench import registry
from av_bench.contracts import MissingRequirement, UsageError
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.lists.sources import list_file
from protocols.readers.read import read_clips
from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(protocols.set_names()))
def test_every_set_names_a_protocol_that_exists(name: str) -> None:
    definition = protocols.load_set(name)
    protocol = protocols.load_protocol(definition.protocol)
    assert definition.name == name
    for options in protocol.metrics.values():
        assert options["kind"] in registry.names("metrics")
    assert definition.licence
    assert definition.changelog
    assert definition.conditions


@pytest.mark.parametrize("name", sorted(protocols.protocol_names()))
def test_every_protocol_states_version_reference_licence_changelog(name: str) -> None:
    import yaml

    data = yaml.safe_load(protocols.protocol_names()[name].read_text())
    assert {"version", "reference", "licence", "changelog", "seconds", "flavour"} <= set(data)
    assert data["name"] == name


def test_paper_tables_are_complete_and_say_where() -> None:
    tables = sorted((ROOT / "protocols/paper").glob("table*.csv"))
    assert len(tables) == 14  # Tables 1 to 7 and A1 to A7
    for path in tables:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert rows
        assert all(row["where"].startswith("Table ") for row in rows)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("vggsound", 15_221, "---g-f_I2yQ_000001"),
        ("audiocaps", 975, None),
        ("audiocaps-957", 957, None),
        ("greatest_hits", 244, "2015-02-16-17-08-51"),
        ("moviegen", 527, "0"),
    ],
)
def test_public_lists(shared: Path, tmp_path: Path, name: str, count: int, first: str | None) -> None:
    definition = protocols.load_set(name)
    pinned = next(iter(definition.lists.values()))
    assert pinned.list is not None
    file = shared / "lists" / list_file(pinned.list).local
    clips = read_clips(definition, SetRequest(data=tmp_path, lists=file))
    assert len(clips.clips) == count == pinned.count
    assert clips.version.endswith(f"@{next(iter(definition.lists))}")
    if first is not None:
        assert clips.clips[0].id == first
    by_folder = read_clips(definition, SetRequest(data=tmp_path, lists=shared / "lists"))
    assert by_folder.list_hash == clips.list_hash


def test_another_list_is_taken_by_name_only(tmp_path: Path) -> None:
    definition = protocols.load_set("vggsound")
    (tmp_path / "vgg-test.tsv").write_text("id\tlabel\n-abcdefghij_000001\tdog barking\n")
    clips = read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path / "vgg-test.tsv"))
    assert "sha256-" in clips.version
    assert clips.clips[0].group == "-abcdefghij"
    with pytest.raises(UsageError, match="not the pinned list"):
        read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path))
    (tmp_path / "bad.csv").write_text("-abcdefghij_000001;dog\n")
    with pytest.raises(UsageError, match="line 1"):
        read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path / "bad.csv"))


def test_greatest_hits_labels(tmp_path: Path) -> None:
    names = "2015-02-16-17-08-51_denoised_thumb.mp4\n"
    (tmp_path / "list.txt").write_text(names)
    (tmp_path / "2015-02-16-17-08-51_denoised.mp4").touch()
    (tmp_path / "2015-02-16-17-08-51_denoised.wav").touch()
    (tmp_path / "2015-02-16-17-08-51_times.txt").write_text("0.51 wood hit\n2.25 None None\n8.00 dirt\n3.0 late line\n")
    definition = protocols.load_set("greatest_hits")
    (clip,) = read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path / "list.txt")).clips
    assert clip.onsets == (0.51, 2.25)
    assert clip.video is not None
    assert clip.video.name.endswith("_denoised.mp4")
    assert clip.audio is not None
    assert clip.audio.suffix == ".wav"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,file\na,x.mp4\na,y.mp4\n", r"line 3: duplicate id 'a' \(first on line 2\)"),
        ("id,file\n../a,x.mp4\n", "cannot be a file name"),
        (f"id,file\n{'x' * 201},x.mp4\n", "cannot be a file name"),
        ("id,file\na,../x.mp4\n", "must lie inside"),
        ("id,file\na,/etc/x.mp4\n", "must lie inside"),
        ("id;file\na;x.mp4\n", "needs a column id or file"),
        ("id,file,onsets\na,x.mp4,one\n", "onsets must be seconds"),
        ("id,file,onsets\na,x.mp4,-1\n", "not negative"),
        ("id,file\na\n", "line 2: 2 fields"),
        ("id,file\n", "empty"),
    ],
)
def test_bad_tables_are_named_by_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "clips.csv").write_text(table)
    with pytest.raises(UsageError, match=message):
        read_clips(protocols.load_set("clips"), SetRequest(data=tmp_path))


def test_captions_are_texts(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,caption\na,rain on tin\nb,\n")
    clips = read_clips(protocols.load_set("clips"), SetRequest(data=tmp_path, table=table)).clips
    assert [clip.text for clip in clips] == ["rain on tin", None]


def test_columns_that_nobody_reads_are_named_once_and_not_with_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    for name, columns, row in (("one.csv", "id,speaker", "a,x"), ("two.csv", "id,speaker,note", "a,x,y")):
        (tmp_path / name).write_text(f"{columns}\n{row}\n")
        asked.append(SetRequest(data=tmp_path, table=tmp_path / name))
    definition, known = protocols.load_set("clips"), "are id, file, audio, text"
    for request in asked:
        read_clips(definition, replace(request, say=Reporter(quiet=True).say_once))
    assert capsys.readouterr().err == ""
    for request in (*asked, asked[0]):
        read_clips(definition, replace(request, say=Reporter().say_once))
    one, two = capsys.readouterr().err.splitlines()
    assert f"one.csv: column speaker is not used; known {known}" in one
    assert f"two.csv: columns note, speaker are not used; known {known}" in two


def test_equal_stems_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no videos"):
        read_clips(protocols.load_set("clips"), SetRequest(data=tmp_path))
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mkv").touch()
    with pytest.raises(UsageError, match="same stem"):
        read_clips(protocols.load_set("clips"), SetRequest(data=tmp_path))


def test_the_list_is_looked_for_where_pull_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = protocols.load_set("vggsound")
    monkeypatch.setenv("AV_BENCH_LISTS", str(tmp_path / "lists"))
    with pytest.raises(MissingRequirement, match="av-bench lists pull mmaudio-vgg-test"):
        read_clips(definition, SetRequest(data=tmp_path))
    with pytest.raises(UsageError, match="no such lists folder or list file"):
        read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ("{list: vgg-test, count: 3}", "unknown list file 'vgg-test'. Did you mean"),
        ("{count: 3}", "give either list"),
        ("{file: mine.csv, count: 3}", "give either list"),
        ("{list: vggsound-test, file: mine.csv, sha256: %s, count: 3}" % ("a" * 64), "give either list"),
    ],
)
def test_pins_of_lists_are_checked(tmp_path: Path, pin: str, message: str) -> None:
    text = protocols.set_names()["vggsound"].read_text()
    (tmp_path / "mine.yaml").write_text(re.sub(r"\{list: mmaudio-vgg-test.*\}", pin, text))
    with pytest.raises(UsageError, match=re.escape(message)):
        protocols.load_set(str(tmp_path / "mine.yaml"))


def test_a_set_may_pin_a_list_of_its_own(tmp_path: Path) -> None:
    content = b"id\tlabel\n-abcdefghij_000001\tdog barking\n"
    (tmp_path / "mine.tsv").write_bytes(content)
    pin = f"{{file: mine.tsv, sha256: {hashlib.sha256(content).hexdigest()}, count: 1}}"
    text = protocols.set_names()["vggsound"].read_text()
    (tmp_path / "mine.yaml").write_text(re.sub(r"\{list: mmaudio-vgg-test.*\}", pin, text))
    definition = protocols.load_set(str(tmp_path / "mine.yaml"))
    clips = read_clips(definition, SetRequest(data=tmp_path, lists=tmp_path))
    assert clips.version == "1@mmaudio-15221"
    assert [clip.id for clip in clips.clips] == ["-abcdefghij_000001"]
