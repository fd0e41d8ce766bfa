"""The published lists themselves: every file reads, and the known counts come out. Skips where they are absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from av_bench.audit.cliplist import filter_labels
from av_bench.audit.lists import read_list
from av_bench.audit.overlaps import audit, counts
from av_bench.audit.sources import Lists
from av_bench.audit.tables import TableA4, table_a4
from protocols.lists import sources

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "lists"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published lists (../shared/lists) are not here")
NOT_FOUND_ROWS = {"wavcaps-blacklist-clotho": 19, "wavcaps-blacklist-clotho-v2": 1}  # the word "Not found" for an id


@pytest.fixture(scope="module")
def lists() -> Lists:
    return Lists(FOLDER)


@pytest.fixture(scope="module")
def a4(lists: Lists) -> TableA4:
    return table_a4(lists)


@pytest.mark.parametrize("name", [n for n, f in sources.sources().files.items() if f.format])
def test_every_file_reads_in_full(name: str, lists: Lists) -> None:
    item = sources.list_file(name)
    if name == "audioset-unbalanced":
        clips = lists.open("audioset/unbalanced")
    else:
        clips = read_list(FOLDER / item.local)  # by its rows alone
        assert clips.format == item.format
        assert clips.hashes == (item.sha256,)
    assert len(clips.malformed) == NOT_FOUND_ROWS.get(name, 0)
    if item.format == "wavcaps-json-audioset":  # the locked rows count both keys
        both = read_list(FOLDER / item.local, "wavcaps-json-freesound")
        assert len(clips) + len(both) + len(both.malformed) == item.rows
    else:
        assert len(clips) + len(clips.malformed) == item.rows


@pytest.mark.parametrize(
    ("name", "clips", "ids"),
    [
        ("vggsound/test", 15_446, 14_851),
        ("vggsound/train", 183_676, 146_723),
        ("audioset/train", 2_063_949, 2_063_949),
        ("audiocaps/train", 49_838, 49_838),
        ("audiocaps/val", 495, 495),
        ("audiocaps/test", 975, 975),
        ("mmaudio/vgg-test", 15_221, 14_632),
        ("greatest_hits/test", 244, 244),
        ("moviegen", 527, 527),
    ],
)
def test_clips_and_ids(name: str, clips: int, ids: int, lists: Lists) -> None:
    found = lists.open(name)
    assert (found.n_clips, found.n_ids) == (clips, ids)


def _cell(a4: TableA4, test: str, train: str, without: tuple[str, ...] = ()) -> dict[str, tuple[int, int]]:
    return next(dict(c.ours) for c in a4.cells if (c.test, c.train, c.without) == (test, train, without))


def test_speech_or_music_is_the_papers_percentage(a4: TableA4) -> None:
    note = a4.speech_or_music
    assert note is not None
    assert (note.carrying, note.rows) == (1_683_995, 2_041_789)
    assert f"{note.percent:.2f}" == f"{note.paper_percent:.2f}" == "82.48"


def test_table_a4_counts(a4: TableA4) -> None:
    speech_music = ("Speech", "Music")
    assert _cell(a4, "audiocaps/test", "audioset/train")["id"] == (975, 975)
    assert _cell(a4, "audiocaps/test", "audioset/train", speech_music)["id"] == (605, 605)
    assert _cell(a4, "audiocaps/test", "vggsound/train")["id"] == (146, 146)
    assert _cell(a4, "vggsound/test", "audioset/train")["id"] == (350, 334)
    assert _cell(a4, "vggsound/test", "audioset/train", speech_music)["id"] == (158, 147)
    captions = _cell(a4, "vggsound/test", "audiocaps/train")
    assert (captions["segment"][0], captions["id"][0]) == (9, 15)
    for cell in a4.cells:
        assert bool(cell.ours) != bool(cell.why)
        assert bool(cell.why) == ("avsync15" in cell.test + cell.train)


def test_sets_without_common_recordings(lists: Lists) -> None:
    assert counts(lists.open("audiocaps/test"), lists.open("audiocaps/train"))["id"] == (0, 0)
    assert counts(lists.open("mmaudio/vgg-val"), lists.open("mmaudio/vgg-test"))["id"] == (0, 0)
    assert counts(lists.open("greatest_hits/test"), lists.open("greatest_hits/train"))["id"] == (0, 0)
    inside = counts(lists.open("mmaudio/vgg-test"), lists.open("vggsound/test"))
    assert inside["segment"] == (15_221, 14_632)


def test_six_test_clips_are_listed_for_training(lists: Lists) -> None:
    train = [lists.open(f"vggsound/{part}-synchformer") for part in ("train", "valid")]
    leaked = audit(lists.open("vggsound/test"), train, "segment").union[0]
    assert leaked == {
        "9wW-losmGws_000097", "JixXL5s6fnE_000070", "K_EsxukdNXM_000030",
        "o4HqWhVTW2o_000043", "rajXrf_Dzfw_000029", "sKtU5y4czNc_000045",
    }  # fmt: skip


def test_label_names_are_resolved(lists: Lists) -> None:
    assert lists.label_ids(["Speech", "Music"]) == ["/m/09x0r", "/m/04rlf"]
    balanced = lists.open("audioset/balanced")
    assert len(filter_labels(balanced, keep=["/m/09x0r"])) + len(filter_labels(balanced, drop=["/m/09x0r"])) == 22_160


def test_user_supplied_lists_fill_table_a4(lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test, train = tmp_path / "test.txt", tmp_path / "train.txt"
    test.write_text("horse/FhaYvI1yrUM_21.mp4\nlions/1aDnyPubxdY_118.mp4\n")
    train.write_text("lions/1aDnyPubxdY_118.mp4\n")
    monkeypatch.setattr(lists, "own", {"avsync15/test": test, "avsync15/train": train})
    result = table_a4(lists)
    assert _cell(result, "avsync15/test", "avsync15/train")["segment"] == (1, 1)
    assert _cell(result, "vggsound/test", "avsync15/train")["segment"] == (1, 1)
    assert not any(c.why for c in result.cells)


@pytest.mark.slow
def test_memory_of_all_list_audits() -> None:
    """One process, Table A4 with the whole of AudioSet: under 2 GB. Its time is measured by benchmarks/audit.py."""
    code = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "from av_bench.audit.sources import Lists\n"
        "from av_bench.audit.tables import table_a4\n"
        "table = table_a4(Lists(Path(sys.argv[1])))\n"
        "print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(table.cells)]))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kilobytes, cells = json.loads(done.stdout)
    assert cells == 14
    assert kilobytes < 2_000_000
