"""The rendered set on disk: encoding, building, planted copies and counterfactual pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av_bench.contracts import MediaError, UsageError
from protocols.impacts import VERSION
from protocols.impacts.build import build, counterfactual_pairs, plant_reuploads
from protocols.impacts.encode import read_mp4, write_mp4
from protocols.impacts.reuploads import COUNT, PERTURBATIONS, draw_plan
from protocols.impacts.scene import sample_scene
from protocols.impacts.streams import stream

RATE = 44100


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test-set")
    build("test", folder, count=2, workers=2)
    return folder


def test_clicks_and_frames_return_in_place(tmp_path: Path) -> None:
    """Encoded and decoded: 200 frames, 8 s, sound to the sample, every frame its own."""
    audio = np.zeros((2, 8 * RATE), np.float32)
    clicks = [round(t * RATE) for t in (0.2, 2.5, 7.9)]
    audio[:, clicks] = 0.9
    frames = np.zeros((200, 64, 64, 3), np.uint8)
    frames[:] = np.arange(200, dtype=np.uint8)[:, None, None, None] + 30
    path = write_mp4(tmp_path / "a.mp4", frames, audio, RATE, 25.0)
    seen, heard, rate, fps = read_mp4(path)
    assert (seen.shape, rate, fps) == (frames.shape, RATE, 25.0)
    assert 0 <= heard.shape[1] - audio.shape[1] < 1024  # the last AAC block is filled up
    for click in clicks:
        near = np.abs(heard[0, click - 2000 : click + 2000])
        assert abs(int(near.argmax()) - 2000) < 0.001 * RATE
    brightness = seen.mean(axis=(1, 2, 3))
    assert np.abs(brightness - frames.mean(axis=(1, 2, 3))).max() < 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (10, 256, 256, 3), dtype=np.uint8)  # as rendered; see write_mp4
    audio = rng.uniform(-0.5, 0.5, (1, 17640)).astype(np.float32)
    one, two = (write_mp4(tmp_path / name, frames, audio, RATE, 25.0) for name in ("1.mp4", "2.mp4"))
    assert one.read_bytes() == two.read_bytes()
    assert write_mp4(tmp_path / "3.mp4", frames, audio, RATE, 25.0, crf=40).stat().st_size < one.stat().st_size


@pytest.mark.parametrize(
    ("frames", "audio"),
    [
        (np.zeros((2, 33, 32, 3), np.uint8), np.zeros((1, 100), np.float32)),
        (np.zeros((2, 3, 32, 32), np.uint8), np.zeros((1, 100), np.float32)),
        (np.zeros((2, 32, 32, 3), np.float32), np.zeros((1, 100), np.float32)),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(100, np.float32)),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros((1, 0), np.float32)),
    ],
)
def test_what_cannot_be_encoded_is_refused(tmp_path: Path, frames: Any, audio: Any) -> None:
    with pytest.raises(UsageError, match=r"x\.mp4"):
        write_mp4(tmp_path / "x.mp4", frames, audio, RATE, 25.0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_mp4(tmp_path / "x.mp4")


def test_a_build_holds_what_its_table_says(built: Path) -> None:
    table = rows_of(built / "clips.jsonl")
    assert [row["id"] for row in table] == ["impacts_test_00000", "impacts_test_00001"]
    for i, row in enumerate(table):
        scene = sample_scene("test", i)
        assert (row["text"], row["label"], tuple(row["onsets"])) == (scene.caption, scene.label, scene.onsets)
        assert row["params"] == scene.params()
        assert row["group"] == row["id"]
        frames, audio, rate, fps = read_mp4(built / row["file"])
        assert (frames.shape, rate, fps) == ((200, 256, 256, 3), RATE, 25.0)
        assert audio.shape[0] == 2
        assert abs(audio.shape[1] / rate - 8.0) < 0.03
    assert json.loads((built / "set.json").read_text()) == {"set": "impacts", "version": VERSION, "split": "test"}


def test_a_build_keeps_what_is_there_and_renders_what_is_missing(built: Path) -> None:
    first, second = built / "impacts_test_00000.mp4", built / "impacts_test_00001.mp4"
    bytes_of_second = second.read_bytes()
    second.unlink()
    (built / ".impacts_test_00001.99999.part").write_bytes(b"left by a killed builder")
    stamp = first.stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    build("test", built, count=2, workers=1, progress=lambda done, of: told.append((done, of)))
    assert first.stat().st_mtime_ns == stamp
    assert second.read_bytes() == bytes_of_second  # rendering again gives the same file
    assert told == [(1, 2), (2, 2)]
    build("test", built, count=1, workers=1)
    assert len(rows_of(built / "clips.jsonl")) == 2  # a shorter build takes nothing away


def test_a_folder_holds_one_set_only(built: Path) -> None:
    with pytest.raises(UsageError, match="another folder"):
        build("val", built, count=1)


@pytest.mark.parametrize(("split", "count"), [("train", None), ("test", 257), ("test", 0), ("dev", 1)])
def test_impossible_builds_are_refused(tmp_path: Path, split: Any, count: int | None) -> None:
    with pytest.raises(UsageError, match="impacts"):
        build(split, tmp_path, count=count)


def test_planted_copies_show_the_source_at_the_offset(tmp_path: Path) -> None:
    """One of each perturbation drawn; two are written and compared with their source."""
    table = rows_of(plant_reuploads("val", tmp_path, 2, seed=3))
    assert [row["perturbation"] for row in table] == list(PERTURBATIONS[:2])
    for row in table:
        assert len(row["id"]) == 11
        assert "impacts" not in row["id"]
        scene = sample_scene("val", int(row["source"][-5:]))
        frames, audio, rate, _ = read_mp4(tmp_path / row["file"])
        assert abs(audio.shape[1] / rate - 8) < 0.03
        # loudest 10 ms of the copy is where the source is struck
        level = np.abs(audio[0, : 8 * RATE]).reshape(800, -1).max(axis=1)
        assert min(abs(level.argmax() / 100 + row["offset"] - t) for t in scene.onsets) < 0.05
        assert frames.shape[0] == 200
    stamps = [(tmp_path / row["file"]).stat().st_mtime_ns for row in table]
    assert rows_of(plant_reuploads("val", tmp_path, 2, seed=3)) == table
    assert [(tmp_path / row["file"]).stat().st_mtime_ns for row in table] == stamps


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_plans_stay_inside_the_clip(name: str) -> None:
    for seed in range(40):
        plan = draw_plan(name, stream(seed, "plan"))
        shown = min(COUNT, plan.start + plan.length) - max(0, plan.start)
        assert shown / 25.0 >= 5.0  # at least 5 s of the source
        top, left, side = plan.crop
        assert 0 <= top <= 256 - side
        assert 0 <= left <= 256 - side
        assert plan != type(plan)()  # something is done


def test_pairs_share_their_group(tmp_path: Path) -> None:
    pairs = rows_of(counterfactual_pairs("val", tmp_path, 1, workers=1))
    clips = {row["id"]: row for row in rows_of(tmp_path / "clips.jsonl")}
    assert [pair["factor"] for pair in pairs] == ["material"]
    for pair in pairs:
        one, other = clips[pair["id"]], clips[pair["counterfactual"]]
        assert one["group"] == other["group"] == pair["id"]
        assert one["label"] != other["label"]
        assert one["onsets"] == other["onsets"]
        assert (tmp_path / one["file"]).exists()
        assert (tmp_path / other["file"]).exists()
