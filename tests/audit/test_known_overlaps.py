"""The counts that tables quote are those the audit computes from the pinned lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_bench.audit.overlaps import counts
from av_bench.audit.sources import Lists
from protocols.definitions import load_set
from protocols.known_overlaps import _rows, known_overlaps, list_name
from reports.notes import marked, overlaps

# list a set is scored on -> what the audit calls it
SCORED = {
    "test-975": "audiocaps/test",
    "wavcaps-957": f"captions-audioset:{Path(__file__).parents[2]}/../shared/lists/XinhaoMei+WavCaps/"
    "data__AudioCaps__csv_files__test.csv.gz",
    "test-15446": "vggsound/test",
    "mmaudio-15221": "mmaudio/vgg-test",
}
LISTS = Path(__file__).parents[2] / "../shared/lists"


@pytest.mark.skipif(not LISTS.is_dir(), reason="no lists: folder 'shared' is not beside the repo")
def test_quoted_counts_are_the_computed_ones() -> None:
    lists = Lists(LISTS)
    tests = {name: lists.open(where) for name, where in SCORED.items()}
    trains = {name: lists.open(name) for name in ("audioset/train", "audiocaps/train", "vggsound/train")}
    quoted = [(name, overlap) for name, overlap in _rows() if overlap.rule == "id"]
    assert len(quoted) == len(tests) * len(trains)
    for name, overlap in quoted:
        clips, _ = counts(tests[name], trains[overlap.train])["id"]
        assert (clips, tests[name].n_clips) == (overlap.clips, overlap.of), (name, overlap.train)


def test_every_pinned_list_of_those_sets_is_known() -> None:
    sets = ("vggsound", "vggsound-5s", "audiocaps", "audiocaps-957")
    pinned = {variant for name in sets for variant in load_set(name).lists}
    assert pinned == set(SCORED)


def test_rows_are_marked_when_their_training_data_overlap_the_set() -> None:
    assert marked("test-975", ["vggsound/train"])
    assert not marked("test-975", ["audiocaps/train"])  # the two lists share nothing
    assert not marked("impacts", ["impacts/train"])
    (known, unknown) = overlaps("x", "test-975", ["vggsound/train", "bbc"])
    assert known.startswith("† x was trained on data that overlaps this set: vggsound/train shares 146 of 975 clips")
    assert unknown == "x was trained on bbc: overlap with this set not audited"
    assert known_overlaps("clips", ["vggsound/train"]) == ([], ["vggsound/train"])
    assert list_name("vggsound", "1@mmaudio-15221") == "mmaudio-15221"
    assert list_name("impacts", "1") == "impacts"
    assert known_overlaps(list_name("vggsound", "1@sha256-0123456789ab"), ["vggsound/train"]) == (
        [],
        ["vggsound/train"],
    )
