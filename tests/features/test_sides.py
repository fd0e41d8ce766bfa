"""Reference and generated media of a run: who is scored, why others are not, which pairs are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_bench.contracts import Clip, MediaError, Reason
from av_bench.features.sides import MediaFile, ReferenceMedia, Sides

CLIPS = tuple(Clip(name, Path(f"{name}.mp4")) for name in ("a", "b"))


def media(suffix: str, sample: int = 0) -> dict[str, MediaFile]:
    return {c.id: MediaFile(c.id, Path(f"{c.id}.{suffix}"), sample, digest=f"{c.id}-{suffix}-{sample}") for c in CLIPS}


@pytest.fixture
def both() -> tuple[ReferenceMedia, list[MediaFile]]:
    """Videos with a separate reference file, and two samples per clip."""
    return ReferenceMedia(media("mp4"), media("wav")), [*media("flac").values(), *media("flac", 1).values()]


def test_all_samples_of_a_clip_must_be_there(both: tuple[ReferenceMedia, list[MediaFile]]) -> None:
    sides = Sides(CLIPS, *both)
    assert sides.scored(2) == CLIPS
    sides.generated["b"].pop()
    assert sides.scored(2) == CLIPS[:1]
    problem = sides.problem("b", 2)
    assert problem is not None
    assert (problem.stage, problem.reason) == ("generated", Reason.MISSING_SAMPLE)
    assert sides.scored(1) == CLIPS


@pytest.mark.parametrize(("side", "stage"), [("video", "reference"), ("audio", "reference"), ("second", "generated")])
def test_one_bad_file_keeps_its_clip_out(side: str, stage: str, both: tuple[ReferenceMedia, list[MediaFile]]) -> None:
    reference, generated = both
    bad = {"video": reference.video["b"], "audio": reference.audio["b"], "second": generated[3]}[side]
    bad.problem = MediaError(bad.path, Reason.EMPTY, "nothing in it")
    sides = Sides(CLIPS, reference, generated)
    assert sides.scored(2) == CLIPS[:1]
    problem = sides.problem("b", 2)
    assert problem is not None
    assert (problem.stage, problem.reason, problem.detail) == (stage, Reason.EMPTY, "nothing in it")


def test_flags_and_digests_of_both_sides_are_told(both: tuple[ReferenceMedia, list[MediaFile]]) -> None:
    reference, generated = both
    reference.audio["a"].flags.append((Reason.SILENT, "peak 0"))
    generated[2].flags.append((Reason.CUT, "9 s"))
    sides = Sides(CLIPS, reference, generated)
    assert list(sides.flags("a")) == [("reference", Reason.SILENT, "peak 0"), ("generated", Reason.CUT, "9 s")]
    assert list(sides.flags("b")) == []
    assert sides.origin("a") == {"reference": "a-wav-0", "picture": "a-mp4-0", "generated": ["a-flac-0", "a-flac-1"]}


def test_a_file_that_holds_both_is_one_file() -> None:
    one = media("mp4")
    reference = ReferenceMedia(one, one)
    assert reference.files("a") == [one["a"]]
    one["a"].flags.append((Reason.CUT, "9 s"))
    assert len(list(Sides(CLIPS, reference, []).flags("a"))) == 1


def test_pairs_are_each_video_with_every_sample_or_with_its_own_audio(
    both: tuple[ReferenceMedia, list[MediaFile]],
) -> None:
    sides = Sides(CLIPS, *both)
    clips = (*CLIPS, Clip("c"))  # without a video: no pair
    names = [(video.path.name, audio.path.name, audio.sample) for video, audio in sides.pairs(clips, "generated")]
    assert names == [("a.mp4", "a.flac", 0), ("a.mp4", "a.flac", 1), ("b.mp4", "b.flac", 0), ("b.mp4", "b.flac", 1)]
    assert [audio.path.name for _, audio in sides.pairs(clips, "reference")] == ["a.wav", "b.wav"]


def test_the_same_file_in_another_window_is_another_key() -> None:
    assert media("wav")["a"].key(8.0) != media("wav")["a"].key(5.0)
