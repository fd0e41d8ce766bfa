"""Names from outside never lead out of the folder they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from av_bench.contracts import Clip, ClipSet, UsageError, leads_out
from av_bench.pipeline.generate import SampleFiles
from av_bench.runtime.files import inside
from protocols.definitions import SetRequest, load_set
from protocols.readers.read import read_clips

CLIMBING = [
    "../../outside",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "",
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "a\ud800",
    "x" * 201,
]


@pytest.mark.parametrize("name", CLIMBING)
def test_an_id_that_is_no_file_name_makes_no_clip(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a file name"):
        Clip(name)


@pytest.mark.parametrize("name", ["-a", "a b", "a~1", "a.b", "犬", "ä" * 100, "$(x)", "CON"])
def test_other_ids_do(name: str) -> None:
    assert ClipSet("s", "1", (Clip(name),)).clips[0].id == name


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "C:\\a", "..\\a", "", ".", "a\0b"])
def test_joining_refuses_what_leads_out(tmp_path: Path, name: str) -> None:
    assert leads_out(name)
    with pytest.raises(UsageError, match="must lie inside"):
        inside(tmp_path, name, "table, line 3")


@pytest.mark.parametrize("name", ["a", "sub/a.wav", "a..b", "...", "-x", "a b"])
def test_joining_takes_what_stays_inside(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name


def test_samples_are_kept_in_their_folder(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path / "run/audio", 1)
    with pytest.raises(UsageError, match="must lie inside"):
        files.place("../../outside", 0, b"x", ".wav")
    assert not (tmp_path / "outside.wav").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("moviegen", json.dumps({"id": "../../outside", "audio_prompt": "x"})),
        ("moviegen", json.dumps({"id": 1.5, "audio_prompt": "x"})),
        ("vggsound", "../../../abc_000030.mp4,label"),
        ("vggsound", "abcd/efghij_000030.mp4,label"),
        ("audiocaps", "audiocap_id,youtube_id,start_time,caption\n1,../../abcde,30,x"),
        ("audiocaps", "audiocap_id,youtube_id,start_time,caption\n1,..,1e3,x"),
        ("greatest_hits", ".."),
    ],
)
def test_lists_give_no_id_that_climbs(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "own.list"
    path.write_text(content + "\n")
    with pytest.raises(UsageError, match=r"own\.list, line \d"):
        read_clips(load_set(name), SetRequest(data=tmp_path, lists=path))


@pytest.mark.parametrize("column", ["file", "audio"])
@pytest.mark.parametrize("name", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4"])
def test_tables_name_files_of_their_folder(tmp_path: Path, column: str, name: str) -> None:
    (tmp_path / "clips.jsonl").write_text(json.dumps({"id": "a", column: name}))
    with pytest.raises(UsageError, match=r"line 1: file .* must lie inside"):
        read_clips(load_set("clips"), SetRequest(data=tmp_path))


def test_a_rendered_set_that_was_changed_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": "a", "file": "../../etc/passwd", "text": "t", "label": "l", "onsets": [0.5]}
    (tmp_path / "clips.jsonl").write_text(json.dumps(row))
    monkeypatch.setattr("protocols.impacts.build.build", lambda *_, **__: None)
    with pytest.raises(UsageError, match="must lie inside"):
        read_clips(load_set("impacts"), SetRequest(data=tmp_path, limit=1))
    (tmp_path / "clips.jsonl").write_text(json.dumps(row | {"file": "a.mp4", "onsets": "0.5"}))
    with pytest.raises(UsageError, match="line 1: onsets: expected a list"):
        read_clips(load_set("impacts"), SetRequest(data=tmp_path, limit=1))
