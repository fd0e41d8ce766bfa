"""What would make a number wrong in silence: other media under old samples, labels nobody heard, lost features."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import av_bench
from av_bench import registry
from av_bench.contracts import UsageError
from av_bench.features.reference_pack import read
from av_bench.features.store import Store
from av_bench.pipeline.make_pack import make_pack
from av_bench.pipeline.plan import RunResult
from av_bench.results import gate
from tests.media_files import tone, write_video

SECONDS = 10.0


def clicks(times: list[float], seed: int) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    audio = 1e-3 * rng.standard_normal((1, round(SECONDS * 16_000))).astype(np.float32)
    for time in times:
        at = round(time * 16_000)
        ring = np.exp(-np.arange(3_000) / 300) * np.sin(np.arange(3_000) * (0.1 + 0.05 * seed))
        audio[0, at : at + 3_000] += 0.7 * ring[: audio.shape[1] - at].astype(np.float32)
    return audio


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of 10 s with clicks, two of them behind the scored 8 s."""
    folder = tmp_path_factory.mktemp("media")
    rows = []
    for i in range(4):
        times = [1.0 + 0.1 * i, 3.0, 5.0 + 0.2 * i, 8.5, 9.2]
        write_video(folder / f"c{i}.mp4", seconds=SECONDS, size=48, audio=clicks(times, i), sample_rate=16_000)
        rows.append({"id": f"c{i}", "onsets": times, "text": "clicks"})
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture
def data(media: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(media, tmp_path / "data"))


def run(data: Path, out: Path, **options: object) -> RunResult:
    return av_bench.run(**{"set": "clips", "data": data, "out": out, "quiet": True} | options)


def values(result: RunResult) -> dict[str, float]:
    return {name: entry["value"] for name, entry in result.scores["metrics"].items()}


def test_labels_behind_the_scored_window_are_no_misses(media: Path, tmp_path: Path) -> None:
    result = run(media, tmp_path / "run", model="oracle", metrics=("Acc", "F1"))
    assert values(result) == {"Acc": 1.0, "F1": 1.0}
    assert "F1: 8 labels after 8 s were ignored" in av_bench.table([result.path])


def test_a_clip_whose_file_of_labels_is_missing_is_left_out(tmp_path: Path) -> None:
    """Without its labels every hit of a model would count as a false alarm."""
    names = ["2015-02-16-17-08-51", "2015-02-16-17-09-22"]
    (tmp_path / "list.txt").write_text("".join(f"{name}_denoised_thumb.mp4\n" for name in names))
    for name in names:
        write_video(tmp_path / f"{name}_denoised.mp4", seconds=SECONDS, size=48)
        soundfile.write(tmp_path / f"{name}_denoised.wav", clicks([1.0, 3.0], 1).T, 16_000)
    (tmp_path / f"{names[0]}_times.txt").write_text("1.00 wood hit\n3.00 wood hit\n")
    options = {"set": "greatest_hits", "lists": tmp_path / "list.txt", "metrics": ("Acc",)}
    result = run(tmp_path, tmp_path / "run", model="oracle", **options)
    assert result.scores["counts"]["excluded"] == {"missing-file": 1}
    assert result.scores["metrics"]["Acc"]["n"] == 1
    ledger = [json.loads(line) for line in (result.path / "ledger.jsonl").read_text().splitlines()]
    (line,) = [line for line in ledger if line["status"] == "excluded"]
    assert (line["clip"], line["detail"]) == (names[1], "its file of onset times is not there")


def test_a_separate_file_of_real_sound_is_what_is_scored(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "warm", model="noise")  # the videos' own soundtracks are in the store
    (data / "clips.jsonl").unlink()
    with (data / "clips.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "file", "audio", "text"])
        for i in range(4):
            soundfile.write(data / f"real{i}.wav", tone(SECONDS, 16_000, 300 + 90 * i).T, 16_000)
            writer.writerow([f"c{i}", f"c{i}.mp4", f"real{i}.wav", 'a "dog"\nbarks'])
    for store in (None, tmp_path / "cold"):
        result = run(data, tmp_path / f"run-{store is None}", model="oracle", store=store)
        assert values(result)["FD-nano"] == pytest.approx(0, abs=1e-3)
        assert values(result)["KL-nano"] == pytest.approx(0, abs=1e-4)
    samples = tmp_path / "samples"
    samples.mkdir()
    for i in range(4):
        shutil.copyfile(data / f"real{i}.wav", samples / f"c{i}.wav")
    make_pack("clips", tmp_path / "pack", data, None, None, None, None, True, "cpu")
    packed = run(data, tmp_path / "packed", samples=samples, reference=tmp_path / "pack")
    assert values(packed)["KL-nano"] == pytest.approx(0, abs=1e-6)


def test_samples_made_for_other_media_are_not_scored(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "run", model="oracle")
    shutil.copyfile(data / "c1.mp4", data / "c0.mp4")
    with pytest.raises(UsageError, match=r"before the media of 1 clips changed, e\.g\. c0"):
        run(data, tmp_path / "run", model="oracle")
    again = run(data, tmp_path / "new", model="oracle")
    assert values(again)["KL-nano"] == pytest.approx(values(first)["KL-nano"], abs=1e-4)


def test_a_broken_medium_may_be_mended(data: Path, tmp_path: Path) -> None:
    whole = (data / "c0.mp4").read_bytes()
    (data / "c0.mp4").write_bytes(whole[:2_000])
    options = {"model": "noise", "metrics": ("KL-nano",)}
    assert run(data, tmp_path / "run", **options).exit_code == 3
    (data / "c0.mp4").write_bytes(whole)
    mended = run(data, tmp_path / "run", **options)
    assert mended.exit_code == 0
    assert mended.scores == run(data, tmp_path / "new", **options).scores


def test_a_folder_does_not_lose_metrics(media: Path, tmp_path: Path) -> None:
    run(media, tmp_path / "run", model="noise", metrics=("FD-nano", "KL-nano"))
    with pytest.raises(UsageError, match="holds scores of FD-nano, which would be lost"):
        run(media, tmp_path / "run", model="noise", metrics=("KL-nano",))
    assert set(values(run(media, tmp_path / "run", model="noise"))) > {"FD-nano", "KL-nano"}


def test_damaged_features_are_computed_again_in_the_same_run(media: Path, tmp_path: Path) -> None:
    options = {"model": "noise", "store": tmp_path / "store"}
    whole = run(media, tmp_path / "run", **options)
    for shard in Store(tmp_path / "store").root.rglob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    again = run(media, tmp_path / "run", **options)
    assert again.scores == whole.scores


def test_nothing_scored_is_not_complete(media: Path, tmp_path: Path) -> None:
    result = run(media, tmp_path / "run", model="oracle", metrics=("IS-nano",))
    assert result.scores["metrics"] == {}
    assert result.exit_code == 3
    lines = av_bench.table([result.path]).splitlines()
    assert lines[2:4] == ["| model | n |", "|---|---:|"]


# --------------------------------------------------------------------------- samples


def test_samples_beyond_those_asked_for_are_told(media: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for i in range(4):
        for k in range(3):
            soundfile.write(samples / f"c{i}~{k}.wav", tone(8.0, 16_000, 300 + 50 * i + 7 * k).T, 16_000)
    result = run(media, tmp_path / "run", samples=samples, metrics=("KL-nano",))
    assert result.scores["counts"]["flagged"]["extra-sample"] == 8
    assert "--samples-per-clip takes more" in (result.path / "ledger.jsonl").read_text()


def test_an_id_may_end_like_a_sample_number(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    (tmp_path / "data").mkdir()
    for k in (1, 2):
        write_video(tmp_path / f"data/take~{k}.mp4", seconds=8, size=48, audio=tone(8.0))
        soundfile.write(samples / f"take~{k}.wav", tone(8.0, 16_000).T, 16_000)
    result = run(tmp_path / "data", tmp_path / "run", samples=samples, metrics=("KL-nano",))
    assert result.scores["counts"]["scored"] == 2


# --------------------------------------------------------------------------- packs


@pytest.fixture(scope="module")
def pack(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    make_pack("clips", folder, media, None, None, None, None, True, "cpu")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 5.0}, "its window is 5 s"),
        ({"flavour": "paper"}, "its flavour is paper"),
        ({"fingerprints": {"nano-tagger": "nano-tagger-0"}}, "its nano-tagger features come from other weights"),
        ({"set": {"name": "other", "version": "1", "list_hash": "0"}}, "it was made for set other"),
    ],
)
def test_a_pack_of_something_else_is_refused(
    media: Path, pack: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    other = Path(shutil.copytree(pack, tmp_path / "pack"))
    info = json.loads((other / "reference.json").read_text())
    (other / "reference.json").write_text(json.dumps(info | change))
    with pytest.raises(UsageError, match=message):
        run(media, tmp_path / "run", model="noise", reference=other)


def test_a_pack_made_on_another_device_serves(media: Path, pack: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(pack, tmp_path / "pack"))
    info = json.loads((other / "reference.json").read_text())
    for name in info["fingerprints"]:
        kind = registry.load("extractors", name)
        info["fingerprints"][name] = kind.fingerprint_for(kind.weights_hash_of(None), "cuda", "strict")
    (other / "reference.json").write_text(json.dumps(info))
    packed = run(media, tmp_path / "run", model="noise", reference=other)
    assert values(packed) == values(run(media, tmp_path / "own", model="noise"))


def test_statistics_of_another_list_are_refused(media: Path, tmp_path: Path) -> None:
    make_pack("clips", tmp_path / "pack", media, None, None, ("FD-nano",), 3, False, "cpu")
    with pytest.raises(UsageError, match="statistics are of another list"):
        run(media, tmp_path / "run", model="noise", reference=tmp_path / "pack", metrics=("FD-nano",))


def test_statistics_alone_score_without_the_real_sound(media: Path, tmp_path: Path) -> None:
    make_pack("clips", tmp_path / "pack", media, None, None, ("FD-nano",), None, False, "cpu")
    options = {"model": "noise", "reference": tmp_path / "pack", "metrics": ("FD-nano",)}
    result = run(media, tmp_path / "run", store=tmp_path / "cold", **options)
    own = run(media, tmp_path / "own", model="noise", metrics=("FD-nano",))
    assert values(result)["FD-nano"] == pytest.approx(values(own)["FD-nano"], rel=1e-5)
    assert "the reference is a reference pack" in av_bench.table([result.path])


def test_what_a_pack_lacks_comes_from_the_videos(media: Path, tmp_path: Path) -> None:
    make_pack("clips", tmp_path / "pack", media, None, None, ("KL-nano", "FD-nano"), None, True, "cpu")
    packed = run(media, tmp_path / "run", model="noise", reference=tmp_path / "pack", store=tmp_path / "cold")
    own = run(media, tmp_path / "own", model="noise")
    assert values(packed) == values(own)


def test_clips_of_the_same_bytes_stay_in_a_pack(data: Path, tmp_path: Path) -> None:
    shutil.copyfile(data / "c0.mp4", data / "c1.mp4")
    info = make_pack("clips", tmp_path / "pack", data, None, None, ("KL-nano",), None, True, "cpu")
    assert info["clips"] == 4
    assert set(read(tmp_path / "pack").features["nano-tagger"]) == {"c0", "c1", "c2", "c3"}


# --------------------------------------------------------------------------- gate


def test_clips_for_which_one_run_is_undefined_still_count(data: Path, tmp_path: Path) -> None:
    """Two clips without onsets: silence is right there (undefined), hits there halve the F1."""
    rows = [json.loads(line) for line in (data / "clips.jsonl").read_text().splitlines()]
    for row in rows[:2]:
        row["onsets"] = []
    (data / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    folders = []
    for name, spoiled in (("base", False), ("new", True)):
        samples = tmp_path / name
        samples.mkdir()
        for i in range(4):
            audio = clicks([1.0 + 0.1 * i, 3.0, 5.0 + 0.2 * i], i) * (i >= 2 or spoiled)
            soundfile.write(samples / f"c{i}.wav", audio.T, 16_000)
        folders.append(run(data, tmp_path / f"run-{name}", samples=samples, metrics=("F1",)).path)
    (check,) = [c for c in gate.gate(folders[1], folders[0]).checks if c.name == "F1"]
    assert check.difference is not None
    assert check.difference.clips == 4  # two of them defined in the new run only
    assert check.difference.value == pytest.approx(-0.5)
    assert check.difference.low is not None
    assert check.difference.high is not None
    assert check.difference.low <= -0.5 <= check.difference.high  # four clips say little, and the interval says so


def test_samples_of_other_weights_are_not_scored(media: Path, tmp_path: Path) -> None:
    from model_zoo.mmaudio.nano.model import FLOW, WEIGHTS

    weights = Path(shutil.copytree(WEIGHTS, tmp_path / "weights"))
    options = {"model": f"mmaudio-nano:weights={weights},steps=1", "metrics": ("KL-nano",), "limit": 2}
    first = run(media, tmp_path / "run", **options)
    assert run(media, tmp_path / "run", **options).scores == first.scores
    content = bytearray((weights / FLOW).read_bytes())
    content[-2] ^= 1  # a weight, not the header
    (weights / FLOW).write_bytes(content)
    with pytest.raises(UsageError, match="with other weights"):
        run(media, tmp_path / "run", **options)
