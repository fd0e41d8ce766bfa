"""Feature extraction: the partition rules, units shared by workers, a killed worker's unit done again."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch

from av_bench.contracts import Clip, MediaError, Reason, UsageError, VideoRequest
from av_bench.media.decode import DecodedMedia, decode
from model_zoo.mmaudio.features.crop_plan import CropPlan
from model_zoo.mmaudio.features.encode import MediaFeatures
from model_zoo.mmaudio.features.read import FeatureSet, empty_rows
from model_zoo.mmaudio.features.work import (
    Crop,
    duration,
    extract,
    partition,
    prepare,
    progress_line,
    start_in,
    unfinished,
)
from model_zoo.mmaudio.features.write import ShardWriter
from tests.command import av_bench
from tests.media_files import tone, write_video
from tests.model_zoo.mmaudio.goldens import full_disk
from tests.model_zoo.mmaudio.training_tools import folder as features_folder

RATE, WINDOW = 1000, 8.0


class Toy:
    """Latents that are the sound's own samples, so that what was cut from where can be read off."""

    window, fingerprint = WINDOW, "toy"

    def __init__(self) -> None:
        self.decoded = 0

    def text(self, text: str) -> torch.Tensor:
        return torch.full((5, 6), float(len(text)))

    def read(self, path: Path, video: bool) -> DecodedMedia:  # noqa: ARG002
        self.decoded += 1
        return decode(path)

    def latents(self, media: DecodedMedia, start: float) -> tuple[torch.Tensor, torch.Tensor]:
        wave = media.waveform(RATE, None, remove_mean=False)[round(start * RATE) :][: round(WINDOW * RATE)]
        if len(wave) < WINDOW * RATE:
            raise MediaError(media.path, Reason.TOO_SHORT_AUDIO, f"{len(wave)} samples")
        return wave.reshape(-1, 4)[::500], torch.zeros(4, 4)

    def video(self, media: DecodedMedia) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        return torch.zeros(4, 12), torch.zeros(8, 10)


def recordings(folder: Path, lengths: list[float]) -> list[Clip]:
    """Files whose samples count the time: sample n holds n / 2^16."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, seconds in enumerate(lengths):
        path = folder / f"{number:02d}.wav"
        soundfile.write(path, np.arange(round(seconds * RATE)) / 2**16, RATE, subtype="FLOAT")
        clips.append(Clip(f"{number:02d}", audio=path, text=f"text {number % 2}"))
    return clips


@pytest.mark.parametrize(
    ("seconds", "step", "expected"),
    [
        (7.99, 8.0, []),
        (8.0, 8.0, [0.0]),
        (15.99, 8.0, [0.0]),
        (16.0, 8.0, [0.0, 8.0]),
        (30.0, 8.0, [0.0, 11.0, 22.0]),
        (400.0, 8.0, [0.0, 98.0, 196.0, 294.0, 392.0]),
        (8.05, 8.1, []),
        (16.0, 8.1, [0.0]),
        (16.2, 8.1, [0.0, 8.1]),
    ],
)
def test_partition(seconds: float, step: float, expected: list[float]) -> None:
    assert partition(seconds, step) == pytest.approx(expected)


def test_crops_are_where_the_partition_says(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [8.05, 30.0, 3.0, 16.1])
    encoder = Toy()
    done = list(extract(tmp_path / "out", clips, CropPlan("paper", dtype="fp32", shard_size=4), encoder))
    assert done == ["text-000000", "000000", "000001"]
    features = FeatureSet(tmp_path / "out")
    assert list(zip(features.ids, features.crops, strict=True)) == [
        ("00", 0), ("01", 0), ("01", 1), ("01", 2), ("03", 0), ("03", 1),
    ]  # fmt: skip
    assert features.labels == ["text 0", "text 1", "text 1", "text 1", "text 1", "text 1"]
    rows = empty_rows(6, features.shapes | {"clip": (1,), "sync": (1,)}, torch.float32)
    features.read(np.arange(6), rows)
    starts = (rows.mean[:, 0, 0] * 2**16 / RATE).tolist()
    assert starts == pytest.approx([0, 0, 11, 22, 0, 8.1])
    assert encoder.decoded == 3  # each recording once, though its crops are many
    work = prepare(tmp_path / "out", clips, CropPlan("paper", dtype="fp32", shard_size=4), encoder)
    assert work.excluded == [{"id": "02", "reason": "too-short-audio", "detail": "3.00 s; rule paper wants 8 s"}]
    assert unfinished(tmp_path / "out", work) == []
    code = prepare(tmp_path / "code", clips, CropPlan("code"), encoder)
    assert [(c.clip, c.number) for c in code.crops] == [(1, 0), (1, 1), (1, 2), (3, 0)]


def encoded(path: Path, seconds: float, codec: str, rate: int) -> None:
    """A tone as a compressed file."""
    import av

    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(0.5 * wave[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        fitting = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size or 1024)
        for part in [*fitting.resample(frame), *fitting.resample(None), None]:
            for packet in stream.encode(part):
                container.mux(packet)


@pytest.mark.parametrize("rule", ["paper", "code"])
def test_the_last_crop_ends_where_an_opus_file_ends(tmp_path: Path, rule: Literal["paper", "code"]) -> None:
    """The header counts what the decoder drops at the start (6.5 ms), so crops planned from it reach beyond the end."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.opus"
    encoded(path, 24.5, "libopus", 48_000)
    assert duration(path) > decode(path).audio_seconds
    clips = [Clip("a", audio=path, text="t")]
    plan = CropPlan(rule, dtype="fp32")
    list(extract(tmp_path / "out", clips, plan, Toy()))
    features = FeatureSet(tmp_path / "out")
    assert features.excluded == []
    assert features.crops == list(range(len(prepare(tmp_path / "out", clips, plan, Toy()).crops))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("header", "decoded", "expected"),
    [
        (30.0, 30.0, [0.0, 11.0, 22.0]),
        (30.0, 28.0, [0.0, 10.0, 20.0]),
        (24.0065, 24.0, [0.0, 8.0, 16.0]),
        (30.0, 32.0, [0.0, 12.0, 24.0]),  # an estimate that is too short: no more crops, but up to the end
        (30.0, 18.0, [0.0, 10.0, None]),  # no overlap: one crop fewer, and it is named
        (15.0, 8.0, [0.0]),
    ],
)
def test_starts_follow_the_decoded_length(
    tmp_path: Path, header: float, decoded: float, expected: list[float | None]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(round(decoded * RATE)), RATE)
    media = decode(tmp_path / "a.wav")
    for number, start in enumerate(partition(header, WINDOW)):
        crop, wanted = Crop(0, number, start), expected[number]
        if wanted is None:
            with pytest.raises(MediaError, match=r"18\.00 s were decoded, too few for 3 crops"):
                start_in(media, crop, len(expected), WINDOW)
        else:
            assert start_in(media, crop, len(expected), WINDOW) == pytest.approx(wanted)


def test_unusable_files_are_listed_with_reasons(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [9.0, 9.0, 9.0])
    (tmp_path / "in" / "01.wav").write_bytes(b"RIFFgarbage")
    clips.append(Clip("03", audio=tmp_path / "in" / "none.wav"))
    cut = (tmp_path / "in" / "02.wav").read_bytes()
    (tmp_path / "in" / "02.wav").write_bytes(cut[: len(cut) // 2])
    plan = CropPlan("paper", dtype="fp32")
    list(extract(tmp_path / "out", clips, plan, Toy()))
    features, work = FeatureSet(tmp_path / "out"), prepare(tmp_path / "out", clips, plan, Toy())
    assert features.ids == ["00"]
    reasons = {e["id"].split("#")[0]: e["reason"] for e in [*work.excluded, *features.excluded]}
    assert reasons == {"01": "unreadable", "02": "unreadable", "03": "missing-file"}


def test_begun_with_something_else_is_refused(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [9.0])
    list(extract(tmp_path / "out", clips, CropPlan(), Toy()))
    for other in (CropPlan(most=2), CropPlan("code")):
        with pytest.raises(UsageError, match="started with different clips"):
            list(extract(tmp_path / "out", clips, other, Toy()))


def test_shards_of_other_clips_are_known_without_the_plan(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [8.0, 8.0])
    root = tmp_path / "out"
    list(extract(root, clips, CropPlan(), Toy()))
    (root / ".plan.json").unlink()
    with pytest.raises(UsageError, match="holds shards of other clips, settings or networks"):
        list(extract(root, clips[:1], CropPlan(), Toy()))
    assert list(extract(root, clips, CropPlan(), Toy())) == []


def test_an_extraction_says_what_it_took_and_left(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [16.0, 7.0, 8.0])
    clips[2] = Clip("02", audio=clips[2].audio)
    list(extract(tmp_path / "out", clips, CropPlan(), Toy()))
    found = progress_line(tmp_path / "out", prepare(tmp_path / "out", clips, CropPlan(), Toy()))
    assert found == "3 samples of 3 recordings, 2 with a text; left out: 1 too-short-audio"


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (["000001"], r"1 of 6 shards are missing \(000001\)"),
        (["text-000000"], r"1 of 6 shards are missing \(text-000000\)"),
        (["000000", "000001", "000002", "000003"], r"4 of 6 shards are missing \(000000, 000001, 000002, \.\.\.\)"),
        (["text-000001", "000000", "000001", "000002", "000003"], "5 of 6 shards are missing"),
    ],
)
def test_training_refuses_an_extraction_that_is_not_complete(tmp_path: Path, gone: list[str], words: str) -> None:
    clips, plan = recordings(tmp_path / "in", [8.0] * 7 + [2.0]), CropPlan(shard_size=2, dtype="fp32")
    out = tmp_path / "out"
    list(extract(out, clips, plan, Toy()))
    assert len(FeatureSet(out)) == 7
    for name in gone:
        shutil.rmtree(out / name)
    with pytest.raises(UsageError, match=rf"{words}.*run the same command to resume"):
        FeatureSet(out)
    assert sorted(extract(out, clips, plan, Toy())) == sorted(gone)
    assert len(FeatureSet(out)) == 7


def test_a_running_extraction_is_not_trained_on(tmp_path: Path) -> None:
    clips, plan = recordings(tmp_path / "in", [8.0] * 4), CropPlan(shard_size=2, dtype="fp32")
    running = extract(tmp_path / "out", clips, plan, Toy())
    for left in (3, 2, 1):
        next(running)
        with pytest.raises(UsageError, match=f"{left} of 4 shards are missing"):
            FeatureSet(tmp_path / "out")
    next(running)
    assert len(FeatureSet(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shard_size": 0}, "samples per shard must be at least 1, got 0"),
        ({"most": 0}, "crops of a recording must be at least 1, got 0"),
        ({"rule": "papers"}, "unknown rule 'papers'; choose paper or code"),
        ({"dtype": "fp16"}, "unknown storage type 'fp16'; choose one of bf16, fp32"),
    ],
)
def test_plans_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CropPlan(**settings)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_the_length_of_a_clip_is_positive(seconds: float) -> None:
    with pytest.raises(UsageError, match="length of a training clip must be a positive number"):
        MediaFeatures(SumCodec(), GreyConditioner(), seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}", None])
def test_a_damaged_plan_is_named_and_made_again(tmp_path: Path, damage: bytes | None) -> None:
    clips, plan = recordings(tmp_path / "in", [8.0] * 4), CropPlan(shard_size=2, dtype="fp32")
    list(extract(tmp_path / "out", clips, plan, Toy()))
    path = tmp_path / "out" / ".plan.json"
    path.write_bytes(path.read_bytes().replace(b"000001", b"000002") if damage is None else damage)
    for use in (lambda: FeatureSet(tmp_path / "out"), lambda: list(extract(tmp_path / "out", clips, plan, Toy()))):
        with pytest.raises(UsageError, match=r"\.plan\.json is damaged.*remove this file"):
            use()
    path.unlink()
    assert list(extract(tmp_path / "out", clips, plan, Toy())) == []  # as the message says: nothing is made twice
    assert len(FeatureSet(tmp_path / "out")) == 4


def test_extraction_and_writer_keep_out_of_each_others_folders(tmp_path: Path) -> None:
    clips = recordings(tmp_path / "in", [9.0])
    list(extract(tmp_path / "out", clips, CropPlan(), Toy()))
    with pytest.raises(UsageError, match=r"out was made by an extraction.*choose another folder"):
        ShardWriter(tmp_path / "out")
    (tmp_path / "out" / ".plan.json").unlink()
    with pytest.raises(UsageError, match="text-000000 is not a shard of a ShardWriter"):
        ShardWriter(tmp_path / "out")
    features_folder(tmp_path / "mine", 3)
    with pytest.raises(UsageError, match="came from elsewhere"):
        list(extract(tmp_path / "mine", clips, CropPlan(), Toy()))


FIRST = ["text-000000", "000000"]  # what the first worker finishes


class Killed(Toy):
    """Kills its process in the middle of its second unit of clips, as soon as another worker has finished one."""

    def __init__(self, others: list[Path]) -> None:
        super().__init__()
        self.others = others

    def latents(self, media: DecodedMedia, start: float) -> tuple[torch.Tensor, torch.Tensor]:
        if self.decoded == 4:  # of two clips in a unit
            while not any(log.exists() for log in self.others):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().latents(media, start)


def worker(root: Path, number: int) -> None:
    """One worker as a process of its own; writes the units it has finished.

    The first is killed; the others wait until it has finished a unit of clips.
    """
    torch.set_num_threads(1)
    logs = [root / f"{n}.txt" for n in range(3)]
    clips = [Clip(p.stem, audio=p, text="t") for p in sorted((root / "in").glob("*.wav"))]
    while number and not (logs[0].exists() and FIRST[-1] in logs[0].read_text()):
        time.sleep(0.01)
    features = Toy() if number else Killed(logs[1:])
    for name in extract(root / "out", clips, CropPlan(shard_size=2, dtype="fp32"), features):
        with logs[number].open("a") as handle:
            handle.write(name + "\n")


def test_workers_share_and_a_killed_one_is_made_good(tmp_path: Path) -> None:
    recordings(tmp_path / "in", [8.0] * 24)
    spawn = multiprocessing.get_context("spawn")
    logs = [tmp_path / f"{n}.txt" for n in range(3)]
    workers = [spawn.Process(target=worker, args=(tmp_path, number)) for number in range(3)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(120)
    assert [process.exitcode for process in workers] == [-signal.SIGKILL, 0, 0]
    assert logs[0].read_text().split() == FIRST
    finished = [name for log in logs if log.exists() for name in log.read_text().split()]  # a late one finds no work
    assert len(set(finished)) == len(finished)
    clips = [Clip(p.stem, audio=p, text="t") for p in sorted((tmp_path / "in").glob("*.wav"))]
    plan = CropPlan(shard_size=2, dtype="fp32")
    left = unfinished(tmp_path / "out", prepare(tmp_path / "out", clips, plan, Toy()))
    assert list(extract(tmp_path / "out", clips, plan, Toy())) == left
    assert FeatureSet(tmp_path / "out").ids == [f"{n:02d}" for n in range(24)]
    assert not list((tmp_path / "out").glob(".*.part"))


# ----------------------------------------------------------------------- codec and conditioner


class SumCodec:
    """One latent per 100 samples: their mean."""

    sample_rate, latent_dim, samples_per_latent = RATE, 1, 100

    def latent_len(self, seconds: float) -> int:
        return -(-round(seconds * RATE) // 100)

    def encode(self, wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = wave.unflatten(1, (-1, 100)).mean(-1, keepdim=True)
        return mean, torch.ones_like(mean)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        raise AssertionError("extraction decodes nothing")

    def to(self, device: torch.device) -> None:
        pass


class GreyConditioner:
    """Mean brightness of each frame."""

    requests = (VideoRequest(4.0, 16, "squash"),)
    fingerprint = "grey"

    def lengths(self, seconds: float) -> tuple[int, int]:
        return int(4 * seconds), int(4 * seconds)

    def video(self, media: DecodedMedia, seconds: float, start: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        assert start == 0.0
        frames = media.frames(self.requests[0])
        if len(frames) < 4 * seconds:
            raise MediaError(media.path, Reason.TOO_SHORT_VIDEO, f"{len(frames)} frames")
        grey = frames.float().mean(dim=(2, 3)) / 255
        return grey, grey[:, :1]

    def text(self, text: str) -> torch.Tensor:
        return torch.full((2, 3), float(len(text)))

    def to(self, device: torch.device) -> None:
        pass


def test_video_folder_to_features(tmp_path: Path) -> None:
    """Real mp4 files: features of the first seconds, sound scaled to the training peak, short and silent ones named."""
    for name, seconds, level in (("a", 3.0, 0.2), ("b", 1.0, 0.2), ("c", 3.0, 0.0)):
        write_video(tmp_path / f"{name}.mp4", seconds=seconds, fps=10, audio=level * 2 * tone(seconds))
    clips = [Clip(n, video=tmp_path / f"{n}.mp4", text="beep") for n in "abc"]
    encoder = MediaFeatures(SumCodec(), GreyConditioner(), seconds=2.0)  # type: ignore[arg-type]
    list(extract(tmp_path / "out", clips, CropPlan(video=True, dtype="fp32"), encoder))
    features = FeatureSet(tmp_path / "out")
    assert features.ids == ["a"]
    assert {e["id"]: e["reason"] for e in features.excluded} == {"b#0": "too-short-audio", "c#0": "silent"}
    assert features.shapes == {"mean": (20, 1), "std": (20, 1), "clip": (8, 3), "sync": (8, 1), "text": (2, 3)}
    media = encoder.read(tmp_path / "a.mp4", video=True)
    rows = empty_rows(1, features.shapes, torch.float32)
    features.read(np.array([0]), rows)
    assert torch.equal(rows.clip[0], encoder.video(media)[0])
    wave = media.waveform(RATE, None, remove_mean=False)[:2000]
    expected = (wave * (0.95 / wave.abs().max())).reshape(20, 100).mean(1)
    torch.testing.assert_close(rows.mean[0, :, 0], expected)
    assert torch.equal(rows.text[0], torch.full((2, 3), 4.0))
    assert torch.equal(features.text_features(""), torch.zeros(2, 3))


def test_a_full_disk_is_one_line_and_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("model_zoo.mmaudio.sampling.published.require_all_files", lambda *names: names)
    monkeypatch.setattr("model_zoo.mmaudio.codec.published.OfficialCodec", lambda *_, **__: SumCodec())
    monkeypatch.setattr("model_zoo.mmaudio.conditions.published.OfficialConditioner", GreyConditioner)
    recordings(tmp_path / "in", [8.0] * 3)
    (tmp_path / "list.csv").write_text("file,text\n" + "".join(f"0{n}.wav,beep\n" for n in range(3)))
    command = ["--data", str(tmp_path / "in"), "--table", str(tmp_path / "list.csv"), "--rate", "16k"]
    command += ["--out", str(tmp_path / "out")]
    with full_disk(200):  # the plan does not fit
        assert av_bench("features", command) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File too large; make room there" in said
    with full_disk(500):  # the plan does, the shard's index does not
        assert av_bench("features", command) == 4
    assert "File too large; make room there" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").glob(".*") if "part" in p.name] == []
    assert av_bench("features", command) == 0
    assert "complete" in capsys.readouterr().out
    assert FeatureSet(tmp_path / "out").ids == ["00", "01", "02"]
    assert av_bench("features", [*command, "--shard-size", "0"]) == 2
    assert "samples per shard must be at least 1" in capsys.readouterr().err
