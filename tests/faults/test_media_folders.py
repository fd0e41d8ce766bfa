"""Files that are not seen, files whose level says that something is wrong, and one bad file among good ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import av_bench
from av_bench.contracts import UsageError
from av_bench.media import sound as sounds
from av_bench.media.folder import list_folder
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.pipeline.plan import RunResult
from model_zoo.samples import SampleFolder
from protocols import load_set
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips
from tests.faults.media import RATE, write_wav
from tests.media_files import tone, write_video

SECONDS = 8.0
CLIPS = 4


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of 8 s."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, seconds=SECONDS, size=32, audio=tone(SECONDS, RATE), sample_rate=RATE)
    return path


@pytest.fixture
def data(film: Path, tmp_path: Path) -> Path:
    """Four clips of one video."""
    (tmp_path / "data").mkdir()
    for i in range(CLIPS):
        shutil.copyfile(film, tmp_path / f"data/c{i}.mp4")
    return tmp_path / "data"


def run(data: Path, out: Path, **options: Any) -> RunResult:
    return av_bench.run(**{"set": "clips", "data": data, "out": out, "quiet": True, "metrics": ("KL-nano",)} | options)


def samples(folder: Path, **special: np.ndarray[Any, Any]) -> Path:
    """A tone for each clip, or what is given for it."""
    folder.mkdir()
    for i in range(CLIPS):
        wave = special.get(f"c{i}", tone(SECONDS, RATE, 300 + 90 * i)[0].astype("<f4"))
        write_wav(folder / f"c{i}.wav", np.ascontiguousarray(wave), channels=1 if wave.ndim == 1 else wave.shape[1])
    return folder


def flags(result: RunResult) -> set[tuple[str, str]]:
    lines = map(json.loads, (result.path / "ledger.jsonl").read_text().splitlines())
    return {(line["clip"], line["reason"]) for line in lines if line["status"] == "flagged"}


# --------------------------------------------------------------------------- 3: files that are not seen


@pytest.mark.parametrize("suffix", [".m4v", ".ts", ".flv", ".mpg", ".3gp", ".wmv", ".MP4", ".m2ts", ".ogv", "", ".dat"])
def test_a_video_of_any_suffix_is_a_clip(film: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copyfile(film, tmp_path / f"c0{suffix}")
    found = list_folder(tmp_path, VIDEO_SUFFIXES)
    if suffix == ".ts":  # .ts is TypeScript, too: only a transport stream is used for its suffix, others are opened
        (tmp_path / "c1.ts").write_text("const answer: number = 42;\n")
        found = list_folder(tmp_path, VIDEO_SUFFIXES)
        assert [path.name for path in found.used] == ["c0.ts"]
    assert [path.stem for path in found.used] == ["c0"]
    assert read_clips(load_set("clips"), SetRequest(data=tmp_path)).clips[0].id == "c0"


@pytest.mark.parametrize("suffix", [".aac", ".aiff", ".wma", ".oga", ".m4b", ".mka", ".au", ".w64", ".caf", ".dat"])
def test_a_sample_of_any_suffix_is_a_sample(tmp_path: Path, suffix: str) -> None:
    write_wav(tmp_path / f"c0{suffix}", np.full(RATE, 9000, "<i2"))
    (tmp_path / "notes.txt").write_text("no recording")
    assert list(SampleFolder(tmp_path).files) == [("c0", 0)]
    assert list_folder(tmp_path, AUDIO_SUFFIXES).left_out == ()


def test_what_is_left_out_is_in_table_counts_and_ledger(data: Path, tmp_path: Path) -> None:
    (data / "c9.rar").write_bytes(b"Rar!\x1a\x07" + bytes(100))
    write_wav(data / "c8.wav", np.full(RATE, 9000, "<i2"))
    (data / "more").mkdir()
    (data / "more" / "c7.mp4").write_bytes(b"x")
    (data / "empty").mkdir()
    (data / "README.txt").write_text("no recording")
    (data / ".hidden.mp4").write_bytes(b"x")
    result = run(data, tmp_path / "run", model="noise")
    assert result.scores["counts"]["flagged"]["left-out"] == 3
    assert {name for name, reason in flags(result) if reason == "left-out"} == {"c9.rar", "c8.wav", "more"}
    table = av_bench.table([result.path])
    assert "3 files of its folder are left out, e.g. c8.wav (sound, where a video is wanted)" in table


def test_left_out_samples_are_counted(data: Path, tmp_path: Path) -> None:
    folder = samples(tmp_path / "samples")
    (folder / "c3.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    result = run(data, tmp_path / "run", samples=folder)
    assert result.scores["counts"]["flagged"]["extra-sample"] == 1
    assert ("c3.zip", "extra-sample") in flags(result)


def test_a_folder_without_videos_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "videos.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UsageError, match=r"videos\.zip is there, but: an archive"):
        read_clips(load_set("clips"), SetRequest(data=tmp_path))


# --------------------------------------------------------------------------- 10: names


def test_a_name_that_leads_nowhere_is_a_clip_that_is_excluded(data: Path, tmp_path: Path) -> None:
    (data / "c8.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(data / "c9.mp4")
    result = run(data, tmp_path / "run", model="noise")
    assert result.scores["counts"]["expected"] == CLIPS + 2
    assert result.scores["counts"]["excluded"] == {"missing-file": 1, "unreadable": 1}
    assert "a link that leads nowhere: nowhere.mp4" in (result.path / "ledger.jsonl").read_text()


def test_ids_of_a_table_find_videos_of_any_suffix(film: Path, tmp_path: Path) -> None:
    for name in ("a.webm", "b.m4v", "c.mp4"):
        shutil.copyfile(film, tmp_path / name)
    (tmp_path / "clips.csv").write_text("id,text\na,one\nb,two\nc.mp4,three\nd,four\n")
    clips = read_clips(load_set("clips"), SetRequest(data=tmp_path)).clips
    assert [clip.video and clip.video.name for clip in clips] == ["a.webm", "b.m4v", "c.mp4", "d.mp4"]
    shutil.copyfile(film, tmp_path / "a.mkv")
    with pytest.raises(UsageError, match=r"a\.mkv and a\.webm both belong to a; keep one"):
        read_clips(load_set("clips"), SetRequest(data=tmp_path))


# --------------------------------------------------------------------------- 4: level


def test_level_and_silence_of_what_is_scored_are_flagged(data: Path, tmp_path: Path) -> None:
    wave = tone(SECONDS, RATE)[0].astype("<f4")
    folder = samples(
        tmp_path / "samples",
        c0=32767 * wave,
        c1=np.stack([wave, -wave], 1),
        c2=np.full(len(wave), 0.5, "<f4"),
        c3=2.5 * wave,
    )
    result = run(data, tmp_path / "run", samples=folder)
    assert result.scores["counts"]["scored"] == CLIPS
    assert flags(result) == {
        ("c0", "above-full-scale"),
        ("c1", "silent"),
        ("c2", "silent"),
        ("c3", "above-full-scale"),
    }
    table = av_bench.table([result.path])
    assert "1 samples peak far above full scale, e.g. c0 at 16383.5" in table
    assert "2 generated samples are silent" in table


def test_levels_of_the_real_side_are_flagged_too(data: Path, tmp_path: Path) -> None:
    write_wav(data / "real.wav", (32767 * tone(SECONDS, RATE)[0]).astype("<f4"))
    (data / "clips.csv").write_text("id,file,audio\nc0,c0.mp4,real.wav\nc1,c1.mp4,\n")
    result = run(data, tmp_path / "run", model="noise")
    assert ("c0", "above-full-scale") in flags(result)
    assert "1 reference files peak far above full scale" in av_bench.table([result.path])


def test_full_scale_itself_is_no_flag(data: Path, tmp_path: Path) -> None:
    folder = samples(tmp_path / "samples")
    wave = np.where(np.arange(round(SECONDS * RATE)) % 40 < 20, -32768, 32767).astype("<i2")
    write_wav(folder / "c0.wav", wave)
    assert flags(run(data, tmp_path / "run", samples=folder)) == set()


# --------------------------------------------------------------------------- 8: one bad file


def test_one_file_without_memory_ends_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = samples(tmp_path / "samples")
    soundfile.write(folder / "c1.wav", tone(SECONDS + 1, RATE).T, RATE)
    whole = sounds.Sound.tensor

    def lacking(sound: sounds.Sound) -> Any:
        if sound.samples > SECONDS * RATE:
            raise MemoryError
        return whole(sound)

    monkeypatch.setattr(sounds.Sound, "tensor", lacking)
    result = run(data, tmp_path / "run", samples=folder)
    assert result.exit_code == 3
    assert result.scores["counts"]["scored"] == CLIPS - 1
    assert result.scores["counts"]["excluded"] == {"out-of-memory": 1}
