"""A user's folder of samples: names are matched exactly, and what does not fit is said."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from av_bench.contracts import Clip, ClipSet, Generated, Reason, UsageError
from model_zoo.samples import SampleFolder
from tests.jobs import job_for

CLIPS = (Clip("a"), Clip("b"))


def folder(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).write_bytes(b"not looked into")
    return path


def found(path: Path, samples: int = 1) -> tuple[SampleFolder, list[Generated]]:
    source = SampleFolder(path)
    source.setup(ClipSet("s", "1", CLIPS), 8.0, 0)
    return source, list(source.produce(job_for(CLIPS, samples)))


def test_each_clip_gets_its_file_or_says_which_name_is_missing(tmp_path: Path) -> None:
    source, (first, second) = found(folder(tmp_path / "s", "a.flac", "c.wav", "d.txt"))
    assert first.path == tmp_path / "s" / "a.flac"
    assert (second.path, second.reason) == (None, Reason.MISSING_SAMPLE)
    assert second.detail == f"no file b.wav (or flac, mp4, ...) in {tmp_path / 's'}"
    assert source.extra_files()["c.wav"] == "no clip of the set has this name; not scored"


def test_samples_are_numbered_from_0(tmp_path: Path) -> None:
    source, four = found(folder(tmp_path / "s", "a~0.wav", "a~1.wav", "a~2.wav", "b.wav"), 2)
    assert [(g.clip_id, g.sample, g.path and g.path.name) for g in four] == [
        ("a", 0, "a~0.wav"),
        ("a", 1, "a~1.wav"),
        ("b", 0, "b.wav"),
        ("b", 1, None),
    ]
    assert "no file b~1.wav" in four[-1].detail
    assert dict(source.extra_files()) == {"a~2.wav": "2 per clip are scored; --samples-per-clip takes more"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no audio or video files directly in this folder"),
        (("a.wav", "a.flac"), "samples of the same clip; remove one"),
        (("a.wav", "a~0.wav"), "samples of the same clip; remove one"),
        (("A.wav", "a_.wav"), r"no file is named after a clip \(found .*; clips are a, b\)"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        found(folder(tmp_path / "s", *names))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        SampleFolder(tmp_path / "nowhere")


def test_accents_and_capitals_of_a_suffix_do_not_hide_a_file(tmp_path: Path) -> None:
    """One file system keeps é as one character, another as two; the pattern's suffix fits in capitals too."""
    one, two = (unicodedata.normalize(form, "café ö.x") for form in ("NFC", "NFD"))
    assert one != two
    clips = (Clip(one), Clip("b"))
    for pattern, name in ((None, f"{two}.wav"), ("pred_{id}.flac", f"pred_{two}.FLAC"), ("{id}/y.wav", f"{two}/y.WAV")):
        home = tmp_path / str(pattern is None) / name
        home.parent.mkdir(parents=True, exist_ok=True)
        home.write_bytes(b"not looked into")
        source = SampleFolder(tmp_path / str(pattern is None), pattern=pattern)
        source.setup(ClipSet("s", "1", clips), 8.0, 0)
        assert next(iter(source.produce(job_for(clips)))).path == home
        home.unlink()
    home.parent.rmdir()
    both = folder(tmp_path / "both", f"{one}.wav", f"{two}.wav")
    source = SampleFolder(both)
    with pytest.raises(UsageError, match="samples of the same clip; remove one"):
        source.setup(ClipSet("s", "1", clips), 8.0, 0)
