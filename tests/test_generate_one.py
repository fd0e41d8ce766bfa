"""Sound for one clip: videos, stills and texts through the command line, and sets whose rows have no video."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from av_bench.contracts import Clip, ClipSet, Reason, UsageError
from model_zoo.mmaudio.nano.model import MMAudioNano
from protocols.definitions import SetRequest, load_set
from protocols.readers.read import read_clips
from tests.command import av_bench
from tests.media_files import tone, write_video

FAST = "mmaudio-nano:steps=2"


def generate(*args: str | Path) -> tuple[int, str]:
    """Exit code of ``av-bench generate`` and what it says on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = av_bench("generate", ["--model", FAST, *map(str, args)])
    return code, err.getvalue()


def write_picture(path: Path, level: int) -> Path:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def test_a_video_sounds_as_it_would_in_a_run(tmp_path: Path) -> None:
    video = tmp_path / "strike.mp4"
    write_video(video, seconds=8.3)
    code, said = generate("--video", video, "--text", "a glass bowl", "--seed", 3, "--out", tmp_path / "made.wav")
    assert (code, said) == (0, "")
    clips = ClipSet("x", "1", (Clip("strike", video, text="a glass bowl"),))
    model = MMAudioNano(steps=2.0)
    model.setup(clips, 8.0, 3)
    wanted = next(iter(model.generate(clips.clips, 3))).audio
    made, rate = soundfile.read(tmp_path / "made.wav", dtype="float32")
    assert (rate, len(made)) == (16_000, 128_000)
    np.testing.assert_allclose(made, wanted[0].numpy(), rtol=0, atol=2**-23)


def test_a_short_video_gives_its_own_length_and_an_mp4_keeps_its_picture(tmp_path: Path) -> None:
    video = tmp_path / "short.mp4"
    write_video(video, seconds=3.0)
    assert generate("--video", video, "--out", tmp_path / "made.mp4")[0] == 0
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert (len(container.streams.video), len(container.streams.audio)) == (1, 1)
        assert abs(container.duration / av.time_base - 3.0) < 0.15


def test_a_still_picture_and_a_negative_text_change_the_sample(tmp_path: Path) -> None:
    dark, light = write_picture(tmp_path / "dark.png", 20), write_picture(tmp_path / "light.png", 220)
    asked = {
        "text": ["--text", "a metal bar"],
        "negative": ["--text", "a metal bar", "--negative", "wood"],
        "dark": ["--text", "a metal bar", "--video", dark],
        "light": ["--text", "a metal bar", "--video", light],
    }
    made = {}
    for name, options in asked.items():
        assert generate(*options, "--seconds", 2, "--out", tmp_path / f"{name}.flac") == (0, "")
        made[name], _ = soundfile.read(tmp_path / f"{name}.flac")
    assert all(len(wave) == 32_000 for wave in made.values())
    values = list(made.values())
    assert not any(np.array_equal(a, b) for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--text", "x" * 10_000], "a text of 10,000 characters; at most 5,000"),
        (["--video", "one.mp4"], "one.mp4: too-short-video: it lasts 0.04 s; mmaudio-nano makes 0.5 s"),
        (["--video", "one.mp4", "--seconds", "8"], "one.mp4: too-short-video"),
        (["--video", "no.png"], "no.png: unreadable: not a picture that can be read"),
        (["--video", "nowhere.png"], "nowhere.png: missing-file"),
        ([], "give --video FILE (or a picture), --text TEXT, or both"),
        (["--text", "x", "--model", f"{FAST},cfg=1", "--negative", "y"], "which cfg=1 leaves out"),
        (["--text", "x", "--model", "oracle"], "made from the reference audio"),
        (["--text", "x", "--model", "audiox"], "audiox"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path, options: list[str], says: str) -> None:
    write_video(tmp_path / "one.mp4", seconds=0.04)
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with contextlib.chdir(tmp_path):
        code, said = generate(*options, "--out", "made.wav")
    assert code in (2, 4)
    assert says in said
    assert len(said.strip().splitlines()) == 1 or code == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["no.png", "one.mp4"]


@pytest.mark.parametrize("suffix", ["mp3", "mp4"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_loaded(tmp_path: Path, suffix: str) -> None:
    code, said = generate("--text", "x", "--model", "no-such-model", "--out", tmp_path / f"made.{suffix}")
    assert code == 2
    assert f"--out {tmp_path / f'made.{suffix}'}" in said


# --------------------------------------------------------------------------- sets


def rows(folder: Path, table: str, name: str = "clips") -> ClipSet:
    (folder / "clips.csv").write_text(table, encoding="utf8")
    return read_clips(load_set(name), SetRequest(data=folder))


def test_rows_without_a_file_are_prompts_and_lost_videos_are_not(tmp_path: Path) -> None:
    prompts = rows(tmp_path, "id,text,negative\na,rain,speech\nb,wind,\n")
    assert [(c.video, c.text, c.negative) for c in prompts.clips] == [(None, "rain", "speech"), (None, "wind", None)]
    assert prompts.notes == ("2 of 2 rows of clips.csv have no video",)
    write_video(tmp_path / "c.mp4", seconds=0.2)
    lost = rows(tmp_path, "id,text\na,rain\nc,wind\n")
    assert [c.video for c in lost.clips] == [tmp_path / "a.mp4", tmp_path / "c.mp4"]
    mixed = rows(tmp_path, "id,file,text\na,,rain\nc,,wind\nd,d.png,fire\ne,e.mp4,ice\n")
    assert [c.video for c in mixed.clips] == [None, tmp_path / "c.mp4", None, tmp_path / "e.mp4"]
    assert mixed.clips[2].image == tmp_path / "d.png"
    assert mixed.notes == ("2 of 4 rows of clips.csv have no video (1 with a still picture)",)


def test_a_negative_text_counts_in_the_identity_of_a_list() -> None:
    plain, other = (ClipSet("x", "1", (Clip("a", text="rain", negative=n),)) for n in (None, "speech"))
    assert plain.list_hash != other.list_hash
    assert plain.list_hash == ClipSet("x", "1", (Clip("a", text="rain"),)).list_hash


def test_a_negative_text_of_a_clip_is_that_clips_alone() -> None:
    clips = ClipSet("x", "1", (Clip("a", text="wood"), Clip("b", text="wood", negative="metal")))
    plain = ClipSet("x", "1", tuple(Clip(c.id, text=c.text) for c in clips.clips))

    def made(found: ClipSet, **options: float | str) -> list[np.ndarray]:
        model = MMAudioNano(steps=2.0, **options)
        model.setup(found, 2.0, 1)
        return [g.audio.numpy() for g in model.generate(found.clips, 1)]

    own, without, common = made(clips), made(plain), made(plain, negative="metal")
    assert np.array_equal(own[0], without[0])
    assert np.array_equal(own[1], common[1])
    assert not np.array_equal(own[1], without[1])
    with pytest.raises(UsageError, match="clip b has a negative text"):
        made(clips, cfg=0.5)


def test_a_set_of_texts_is_scored_by_what_can_be(tmp_path: Path) -> None:
    import av_bench as package

    (tmp_path / "data").mkdir()
    for number, word in enumerate(("glass", "wood", "metal")):
        wave = tone(8.1, hertz=300.0 * (number + 1)).T
        soundfile.write(tmp_path / "data" / f"{word}.wav", wave, 44_100)
    table = "id,text\nglass,a glass bowl\nwood,a wooden block\nmetal,a metal bar\n"
    (tmp_path / "data" / "clips.csv").write_text(table, encoding="utf8")
    definition = {
        "name": "texts", "version": "1", "title": "texts", "kind": "folder", "protocol": "nano",
        "conditions": ["text"], "reference": "own", "licence": "own", "changelog": ["1: first"],
    }  # fmt: skip
    (tmp_path / "texts.yaml").write_text(json.dumps(definition), encoding="utf8")
    found = package.run(
        set=str(tmp_path / "texts.yaml"), model=FAST, data=tmp_path / "data", out=tmp_path / "run", quiet=True
    )
    assert found.scores["counts"]["scored"] == 3
    assert set(found.scores["metrics"]) == {"FD-nano", "KL-nano"}
    assert "needs video" in found.scores["absent"]["DeSync-nano"]
    assert len(list((tmp_path / "run" / "audio").iterdir())) == 3


def test_a_broken_picture_loses_only_its_clip(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png", 100)
    (tmp_path / "bad.png").write_bytes(bytes(range(256)))
    clips = ClipSet("x", "1", tuple(Clip(n, image=tmp_path / f"{n}.png") for n in ("good", "bad")))
    model = MMAudioNano(steps=1.0)
    model.setup(clips, 2.0, 1)
    found = {g.clip_id: g for g in model.generate(clips.clips, 1)}
    assert found["good"].audio is not None
    assert found["bad"].reason is Reason.UNREADABLE
