"""The counts that tables quote are those the audit computes from the pinned lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_bench.audit.sources import Lists
from av_bench.audit.tables import table_a4
from protocols.overlaps import _rows, found
from reports.description import marked, overlaps

LISTS = Path(__file__).parents[2] / "../shared/lists"


@pytest.mark.skipif(not LISTS.is_dir(), reason="no lists: folder 'shared' is not beside the repo")
def test_quoted_counts_are_the_computed_ones() -> None:
    cells = {(c.test, c.train): c for c in table_a4(Lists(LISTS)).cells if not c.without and c.ours}
    quoted = [(name, overlap) for name, overlap in _rows() if overlap.rule == "id"]
    assert len(quoted) == 6
    for name, overlap in quoted:
        cell = cells[f"{name}/test", overlap.train]
        assert (cell.ours["id"][0], cell.n_clips) == (overlap.clips, overlap.of), (name, overlap.train)


def test_rows_are_marked_when_their_training_data_overlap_the_set() -> None:
    assert marked("audiocaps", ["vggsound/train"])
    assert not marked("audiocaps", ["audiocaps/train"])  # the two lists share nothing
    assert not marked("impacts", ["impacts/train"])
    (known, unknown) = overlaps("x", "audiocaps", ["vggsound/train", "bbc"])
    assert known.startswith("† x was trained on data that overlaps this set: vggsound/train shares 146 of 975 clips")
    assert unknown == "x was trained on bbc: overlap with this set not audited"
    assert found("clips", ["vggsound/train"]) == ([], ["vggsound/train"])
