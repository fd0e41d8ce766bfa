"""Content audit on real media files: rendered clips, copied as the web copies, found again or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from av_bench.audit import content
from av_bench.audit.alignment import Alignment
from av_bench.audit.content import ContentAudit, audit_content, clip_names
from av_bench.audit.content_report import to_json
from av_bench.audit.copies import Keep, reversed_alignment
from av_bench.audit.library import Match
from av_bench.audit.report import load_audit, load_overlaps, load_training_side, write_json
from av_bench.audit.screen import matches_table
from av_bench.audit.turns import Change
from av_bench.cli.audit import app
from av_bench.contracts import Clip, UsageError
from av_bench.features.store import Store
from av_bench.media.folder import media_files
from av_bench.media.suffixes import VIDEO_SUFFIXES
from av_bench.pipeline.clean_subset import clean_subset, overlap_hash, warnings
from protocols.impacts.encode import write_mp4
from protocols.impacts.picture import render_frames
from protocols.impacts.scene import sample_scene
from protocols.impacts.sound import render_audio

RATE, FPS, SIZE = 22_050, 25, 96
CLIPS = Path(__file__).parents[2] / ".." / "shared" / "clips"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train: five clips. test: copies of clips 0 to 3 (shifted and quiet; cropped; other sound; other picture) and a
    clip that is nowhere else."""
    root = tmp_path_factory.mktemp("media")
    scenes = [sample_scene("train", 500 + i) for i in range(6)]
    pictures = [render_frames(scene, SIZE, FPS) for scene in scenes]
    sounds = [render_audio(scene, RATE) for scene in scenes]

    def write(path: str, picture: int, sound: int, cut: float = 0.0, gain: float = 1.0, keep: int = SIZE) -> None:
        (root / path).parent.mkdir(exist_ok=True)
        frames = pictures[picture][round(cut * FPS) :, :keep, :keep]
        audio = sounds[sound][:, round(cut * RATE) :] * np.float32(gain)
        write_mp4(root / path, np.ascontiguousarray(frames), audio, RATE, FPS, preset="ultrafast", crf=30)

    for i in range(5):
        write(f"train/original{i}.mp4", i, i)
    write("test/shifted.mp4", 0, 0, cut=1.6, gain=0.3)
    write("test/cropped.mp4", 1, 1, keep=84)
    write("test/dubbed.mp4", 2, 5)
    write("test/illustrated.mp4", 5, 3)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def matches(media: Path, store: Store) -> list[Match]:
    result = audit_content(media / "test", [media / "train"], store, workers=1)
    assert result.left_out == []
    return result.matches


def test_copies_are_found_with_their_kind(matches: list[Match]) -> None:
    assert [(m.test.stem, m.train.stem, m.kind) for m in matches] == [
        ("cropped", "original1", "audio and video"),
        ("dubbed", "original2", "video only"),
        ("illustrated", "original3", "audio only"),
        ("shifted", "original0", "audio and video"),
    ]


def test_offset_length_and_confidence(matches: list[Match]) -> None:
    shifted = next(m for m in matches if m.test.stem == "shifted")
    assert shifted.sound is not None
    assert shifted.picture is not None
    assert shifted.sound.offset == pytest.approx(1.6, abs=0.02)
    assert shifted.picture.offset == pytest.approx(1.6, abs=0.13)
    for found in (shifted.sound, shifted.picture):
        assert found.start + found.length <= 6.5
        assert 0.7 < found.confidence <= 1


def test_stored_fingerprints_are_used(
    media: Path, store: Store, matches: list[Match], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was fingerprinted again")

    monkeypatch.setattr(content, "fingerprint", refuse)
    again = audit_content(media / "test", [media / "train"], Store(store.root), workers=1)
    assert again.matches == matches


def test_a_folder_against_itself_has_no_duplicates(media: Path, store: Store) -> None:
    assert audit_content(media / "train", [media / "train"], store, workers=1).matches == []


def test_command_writes_json_and_page_and_names_unreadable_files(media: Path, store: Store, tmp_path: Path) -> None:
    test = tmp_path / "test"
    test.mkdir()
    (test / "cropped.mp4").symlink_to(media / "test" / "cropped.mp4")
    (test / "<b>broken.mp4").write_bytes(b"no video at all")
    (test / "README.md").write_text("what this is")
    out, page = tmp_path / "audit.json", tmp_path / "page.html"
    arguments = ["content", "--test", str(test), "--train", str(media / "train"), "--store", str(store.root), "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(out), "--page", str(page)])
    assert done.exit_code == 3, done.output
    assert "broken.mp4: unreadable" in done.output
    assert "INCOMPLETE: 1 files" in done.output
    assert "1 x a text file" in done.output
    assert load_overlaps(out) == {"cropped"}
    assert load_training_side(out) == {"original1"}
    data = json.loads(out.read_text())
    assert data["incomplete"] is True
    assert data["audited"] == ["cropped"]
    assert data["findings"][0]["kind"] == "audio and video"
    assert data["findings"][0]["train"]["file"].endswith("original1.mp4")
    assert [Path(m["file"]).name for m in data["malformed"]] == ["<b>broken.mp4"]
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") == 2 * 6 + 2
    assert len(html) < 150_000
    assert "original1.mp4" in html
    assert "Incomplete: 1 files" in html
    assert "<script" not in html


def test_an_incomplete_audit_says_so_where_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    data = {"version": 1, "kind": "content", "rule": "content", "findings": [], "overlapping": []}
    write_json({**data, "audited": ["a", "b"], "malformed": [{"file": "x.mp4", "reason": "unreadable"}]}, path)
    clips = [Clip("a"), Clip("c")]
    assert overlap_hash(path, clips) is not None  # complete or not, it is about this set
    assert "incomplete: 1 files or rows" in warnings(path)[0]
    with pytest.raises(UsageError, match=r"names no clip of this set .*'a'.*'z'.*1 files or rows were not compared"):
        overlap_hash(path, [Clip("z")])
    with pytest.raises(UsageError, match=r"found nothing in the training data.*1 files or rows were not compared"):
        load_audit(path).check_training()
    write_json(data, path)  # as 0.1 wrote it: it does not say which clips it compared
    with pytest.raises(UsageError, match="names no clip of this set"):
        overlap_hash(path, clips)


def test_json_counts(media: Path, store: Store) -> None:
    data = to_json(audit_content(media / "test", [media / "train", media / "test"], store, workers=1))
    assert data["overlapping"] == ["cropped", "dubbed", "illustrated", "shifted"]
    assert [t["overlapping_clips"] for t in data["train"]] == [4, 0]
    assert data["in_every_train"] == []
    assert (data["belongs_to"], data["incomplete"]) == ({}, False)


@pytest.fixture(scope="module")
def doubled(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with three copies of one recording, one shorter, and a clip of its own."""
    root = tmp_path_factory.mktemp("doubled")
    sources = {"a": "test/shifted.mp4", "b": "train/original0.mp4", "c": "train/original4.mp4"}
    for name, source in sources.items():
        (root / f"{name}.mp4").symlink_to(media / source)
    (root / "sub").mkdir()
    (root / "sub" / "d.mp4").write_bytes((media / "train/original0.mp4").read_bytes())
    return root


@pytest.mark.parametrize(("keep", "stays"), [("first", "a"), ("longest", "b"), ("best", "b")])
def test_of_copies_in_a_set_one_stays(keep: Keep, stays: str, doubled: Path, store: Store, tmp_path: Path) -> None:
    result = audit_content(doubled, [doubled], store, workers=1, keep=keep)
    pairs = [frozenset((m.test.stem, m.train.stem)) for m in result.matches]
    assert sorted(map(sorted, pairs)) == [["a", "b"], ["a", "d"], ["b", "d"]]  # each pair once
    goes = {"a", "b", "d"} - {stays}
    assert {m.test.stem for m in result.matches if m.train.stem == stays} == goes
    data = to_json(result)
    assert data["belongs_to"] == dict.fromkeys(sorted(goes), stays)
    write_json(data, tmp_path / "audit.json")
    assert load_overlaps(tmp_path / "audit.json") == load_training_side(tmp_path / "audit.json") == goes


def test_a_match_seen_from_the_other_side_is_the_same() -> None:
    there = Alignment(1.5, 2.0, 4.0, 0.9, Change(1.25, 3.9, "rotated by 90 degrees"))
    back = reversed_alignment(there)
    assert (back.start, back.length) == pytest.approx((4.0, 5.0))
    assert back.change.speed * back.start + back.offset == pytest.approx(there.start)
    assert back.change.turn == "rotated by 270 degrees"
    again = reversed_alignment(back)
    assert (again.offset, again.start, again.length) == pytest.approx((1.5, 2.0, 4.0))


@pytest.fixture(scope="module")
def alike(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """test: a clean dup.mp4 beside a leaked extra/dup.mp4 and a leaked extra/only.mp4. train: files of one name."""
    root = tmp_path_factory.mktemp("alike")
    for name, source in (
        ("test/dup.mp4", "train/original4.mp4"),
        ("test/extra/dup.mp4", "train/original0.mp4"),
        ("test/extra/only.mp4", "train/original1.mp4"),
        ("train/dog/1.mp4", "test/shifted.mp4"),
        ("train/cat/1.mp4", "train/original2.mp4"),
        ("train/cat/2.mp4", "test/cropped.mp4"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(media / source)
    return root


def test_namesakes_of_a_leaked_file_stay_in(alike: Path, store: Store, tmp_path: Path) -> None:
    result = audit_content(alike / "test", [alike / "train"], store, workers=1)
    write_json(to_json(result), tmp_path / "audit.json")
    assert load_overlaps(tmp_path / "audit.json") == {"extra/dup", "only"}
    assert load_training_side(tmp_path / "audit.json") == {"dog/1", "2"}
    ids = [Clip(p.stem, p) for p in media_files(alike / "test", VIDEO_SUFFIXES)]
    assert [clip.id for clip in clean_subset(ids, tmp_path / "audit.json")] == ["dup"]
    turned = [Clip(p.stem, p) for p in media_files(alike / "test/extra", VIDEO_SUFFIXES)]
    write_json(to_json(audit_content(alike / "test/extra", [alike / "train"], store, workers=1)), tmp_path / "e.json")
    assert clean_subset(turned, tmp_path / "e.json") == ()


def test_a_folder_holds_its_own_names_and_sound_beside_picture_is_one_clip() -> None:
    folder = Path("d")
    files = [folder / name for name in ("a.mp4", "x/a.mp4", "x/b.mp4", "x/b.wav", "x/v.1.mp4", "y/v.1.mp4")]
    assert list(clip_names(folder, files).values()) == ["a", "x/a", "b", "b", "x/v.1", "y/v.1"]


def test_a_training_folder_counts_once(alike: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(alike)
    twice = [Path("train"), alike / "train", Path("test/../train")]
    result = audit_content(alike / "test", twice, store, workers=1)
    assert len(result.matches) == 2
    assert [t["overlapping_clips"] for t in to_json(result)["train"]] == [2]
    with pytest.raises(UsageError, match="--train train/dog is inside --train train; give one"):
        audit_content(alike / "test", [Path("train/dog"), Path("train")])
    with pytest.raises(UsageError, match=r"--test .* is inside --train train: all of it is training data"):
        audit_content(Path("train/dog"), [Path("train")])
    with pytest.raises(UsageError, match="--train test/extra is inside --test test"):
        audit_content(Path("test"), [Path("test/extra")])


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no audio or video file"):
        audit_content(tmp_path, [tmp_path])
    with pytest.raises(UsageError, match="no such folder"):
        audit_content(tmp_path / "nowhere", [tmp_path])


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips (../shared/clips) are not here")
@pytest.mark.slow
def test_real_clips_are_all_different(store: Store) -> None:
    assert audit_content(CLIPS, [CLIPS], store, workers=1).matches == []


def test_a_narrow_screen_breaks_names_and_no_figures() -> None:
    """80 columns, as a log file has: what was found stays on its line, long names of files give way."""
    folders = Path("mine"), Path("training")
    found = Alignment(-1.25, 0.5, 10.0, 0.875, Change(turn="mirrored"))
    match = Match(folders[0] / ("a" * 60 + ".mp4"), folders[1] / ("b" * 60 + ".mp4"), found, found)
    result = ContentAudit(folders[0], (folders[1],), matches=[match])
    console = Console(width=80, file=io.StringIO())
    console.print(matches_table(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "sound -1.25 s, 10.0 s, 0.88" in text
    assert "picture -1.25 s, 10.0 s, 0.88" in text
    assert max(map(len, text.splitlines())) <= 80
