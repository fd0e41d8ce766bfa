"""Clips and sets of them: order, what the hash of a list covers, the unit of resampling."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from av_bench.contracts import Clip, ClipSet, UsageError, clip_seed

CLIP = Clip("a", Path("a.mp4"), text="rain", label="weather", onsets=(0.5, 1.0), group="r")


def hash_of(*clips: Clip) -> str:
    return ClipSet("s", "1", clips).list_hash


def test_the_hash_of_a_list_is_that_of_ids_texts_labels_and_onsets() -> None:
    """Worked out by hand: it is in every run's record, so it may never move."""
    written = '[["a", "rain", "weather", [0.5, 1.0]], ["b", null, null, null]]'
    assert hash_of(CLIP, Clip("b")) == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"id": "b"}, {"text": "hail"}, {"label": "noise"}, {"onsets": (0.5,)}])
def test_what_decides_a_score_changes_the_hash(change: dict[str, Any]) -> None:
    assert hash_of(replace(CLIP, **change)) != hash_of(CLIP)


def test_paths_do_not_change_the_hash_and_clips_are_sorted() -> None:
    assert hash_of(replace(CLIP, video=Path("elsewhere.mp4"), audio=Path("a.wav"))) == hash_of(CLIP)
    clips = ClipSet("s", "1", (Clip("b"), Clip("a"), Clip("B")))
    assert [clip.id for clip in clips.clips] == ["B", "a", "b"]
    with pytest.raises(UsageError, match=r"1 ids appear twice, e\.g\. 'a'"):
        ClipSet("s", "1", (Clip("a"), Clip("b"), Clip("a")))


def test_the_unit_of_resampling_is_the_recording_else_the_clip() -> None:
    assert (CLIP.cluster, Clip("a").cluster) == ("r", "a")


def test_a_separate_file_is_the_reference_audio() -> None:
    assert CLIP.reference_audio == Path("a.mp4")
    assert replace(CLIP, audio=Path("a.wav")).reference_audio == Path("a.wav")


def test_seeds_differ_by_seed_clip_and_sample_alone() -> None:
    """The first 8 bytes of a sha256, halved to fit 63 bits."""
    digest = hashlib.sha256(b"0\x1fa\x1f0").digest()
    assert clip_seed(0, "a") == int.from_bytes(digest[:8], "big") // 2
    assert len({clip_seed(0, "a"), clip_seed(1, "a"), clip_seed(0, "b"), clip_seed(0, "a", 1)}) == 4
    assert clip_seed(1, "1") != clip_seed(11, "")
