"""Clips of finished runs, found again with their media."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import av_bench
from av_bench.contracts import UsageError
from av_bench.media.decode import decode
from av_bench.pipeline.clip_media import REAL, clip_media
from av_bench.results.record import read_run
from tests.command import av_bench as command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real sound with videos to watch, and noise without, on three rendered clips."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        av_bench.run(
            set="impacts", model=m, limit=3, out=folder / m, quiet=True, metrics=["F1"], videos=m == "oracle"
        ).path
        for m in ("oracle", "noise")
    ]


def test_the_clips_are_found_where_the_run_found_them(runs: list[Path]) -> None:
    media = clip_media([read_run(path) for path in runs])
    assert sorted(media.clips) == [f"impacts_test_0000{i}" for i in range(3)]
    clip = "impacts_test_00001"
    real, oracle = (media.waveform(name, clip, 16_000) for name in (REAL, str(runs[0])))
    assert real is not None
    assert oracle is not None
    assert np.abs(real - oracle).max() < 1e-3
    assert media.height(clip) == 256
    assert media.link(REAL, clip) == media.clip(clip).video
    assert media.link(str(runs[0]), clip) == runs[0] / "videos" / f"{clip}.mp4"
    assert media.link(str(runs[1]), clip) == runs[1] / "audio" / f"{clip}.flac"


def test_a_sound_is_written_under_its_picture_with_a_gain(runs: list[Path], tmp_path: Path) -> None:
    media = clip_media([read_run(path) for path in runs])
    plain = media.write(str(runs[1]), "impacts_test_00000", tmp_path / "a")
    quiet = media.write(str(runs[1]), "impacts_test_00000", tmp_path / "b", gain=-20.0)
    assert plain == tmp_path / "a.mp4"
    assert quiet is not None
    levels = [float((decode(path).waveform(16_000, 7.0) ** 2).mean()) for path in (plain, quiet)]
    assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(20, abs=0.5)


def test_another_list_is_refused(runs: list[Path]) -> None:
    first, second = (read_run(path) for path in runs)
    second.scores["set"]["list_hash"] = "other"
    with pytest.raises(UsageError, match="make one report for each set"):
        clip_media([first, second])
    first.info["request"]["limit"] = 2
    with pytest.raises(UsageError, match="another list of clips than impacts holds now"):
        clip_media([first])


def test_a_folder_of_samples_is_read_in_place(runs: list[Path], tmp_path: Path) -> None:
    samples = tmp_path / "mine"
    samples.mkdir()
    soundfile.write(samples / "impacts_test_00002~0.wav", np.full(8000, 0.25, np.float32), 8000)
    run = read_run(runs[0])
    run.info["spec"]["samples"] = str(samples)
    media = clip_media([run])
    assert media.sound(str(runs[0]), "impacts_test_00002") == samples / "impacts_test_00002~0.wav"
    assert media.sound(str(runs[0]), "impacts_test_00001") is None
    assert media.write(str(runs[0]), "impacts_test_00001", tmp_path / "x") is None


def test_the_command_makes_a_report_that_links(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*runs, "--out", tmp_path / "r", "--link", "--quiet"]
    assert command("report", [*args, "--choose", "best", "--clips", "2"]) == 0
    assert json.loads((tmp_path / "r" / "report.json").read_text())["clips"] == 2
    assert not list((tmp_path / "r" / "media").glob("*.mp4"))
    assert "file://" in (tmp_path / "r" / "clips.html").read_text()
    capsys.readouterr()
    assert command("report", [*args, "--choose", "nicest"]) == 2
    assert "unknown rule 'nicest'" in capsys.readouterr().err
    assert json.loads((tmp_path / "r" / "report.json").read_text())["clips"] == 2  # the one before is still whole
