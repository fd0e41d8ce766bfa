"""Runs from end to end on small real files: what is scored, what is excluded and why, and what a killed run leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import av_bench
import protocols
from av_bench.contracts import UsageError
from av_bench.features.extractor_set import ExtractorSet
from av_bench.pipeline.plan import RunResult
from av_bench.results.record import read_run
from tests.kills import KILLED, kill_server
from tests.media_files import tone, write_video

COUNT = 14


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen videos of 8 s with clicks at known times, and their table."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        onsets = sorted(float(t) for t in rng.uniform(0.5, 7.5, 5).round(2))
        audio = 1e-3 * rng.standard_normal((1, 8 * 44_100)).astype(np.float32)
        for onset in onsets:
            at = round(onset * 44_100)
            ring = np.exp(-np.arange(8_000) / (300 + 150 * i)) * np.sin(np.arange(8_000) * (0.05 + 0.01 * i))
            audio[0, at : at + 8_000] += 0.6 * ring[: audio.shape[1] - at].astype(np.float32)
        name = f"-clip_{i:02d}"
        write_video(folder / f"{name}.mp4", seconds=8, size=48, audio=audio)
        rows.append({"id": name, "file": f"{name}.mp4", "text": "clicks", "onsets": onsets, "group": f"g{i // 2}"})
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def run(folder: Path, target: Path, /, **options: object) -> RunResult:
    """A run with the store that the module's tests share (features of the real side are computed once)."""
    store = folder.parent / "store"
    return av_bench.run(**{"set": "clips", "data": folder, "out": target, "quiet": True, "store": store} | options)


def test_oracle_is_perfect_where_it_must_be(data: Path, out: Path) -> None:
    result = run(data, out, model="oracle")
    assert result.exit_code == 0
    values = {name: entry["value"] for name, entry in result.scores["metrics"].items()}
    assert values["FD-nano"] == pytest.approx(0, abs=1e-3)
    assert values["KL-nano"] == pytest.approx(0, abs=1e-4)
    assert values["F1"] > 0.9
    assert result.scores["counts"] == {"expected": COUNT, "scored": COUNT, "excluded": {}, "flagged": {}}
    frame = pd.read_parquet(out / "clips.parquet")
    assert set(frame["metric"]) >= {"KL-nano", "Bind-nano", "DeSync-nano", "F1", "Acc", "AP"}
    assert (frame.groupby("metric").size() == COUNT).all()
    assert frame["value"].notna().all()


def test_shuffled_is_worse_on_paired_metrics(data: Path, tmp_path: Path) -> None:
    oracle = run(data, tmp_path / "a", model="oracle").scores["metrics"]
    shuffled = run(data, tmp_path / "b", model="shuffled").scores["metrics"]
    assert shuffled["F1"]["value"] < oracle["F1"]["value"] - 0.3
    assert shuffled["KL-nano"]["value"] > oracle["KL-nano"]["value"]


def test_warm_run_computes_nothing_and_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "a", model="shuffled")
    again = run(data, tmp_path / "a", model="shuffled")
    assert read_run(first.path).info["network_runs"] == 0  # run.json is that of the second run: nothing was computed
    cold = run(data, tmp_path / "b", model="shuffled", store=tmp_path / "other")
    assert read_run(cold.path).info["network_runs"] > 0
    for name in ("scores.json", "clips.parquet"):
        assert (again.path / name).read_bytes() == (cold.path / name).read_bytes()


@pytest.mark.slow
def test_one_network_at_a_time_gives_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(data, tmp_path / "a", model="shuffled")
    most = {"together": 0, "alone": 0}
    mode = "together"
    built = ExtractorSet._build

    def counted(self: ExtractorSet, name: str, build: object) -> object:
        network = built(self, name, build)  # type: ignore[arg-type]
        most[mode] = max(most[mode], len(self._built))
        return network

    monkeypatch.setattr(ExtractorSet, "_build", counted)
    run(data, tmp_path / "b", model="shuffled", store=tmp_path / "other")
    mode = "alone"
    alone = run(data, tmp_path / "c", model="shuffled", store=tmp_path / "third", one_network=True)
    assert most["alone"] == 1 < most["together"]
    for name in ("scores.json", "clips.parquet"):
        assert (alone.path / name).read_bytes() == (first.path / name).read_bytes()


def _spoil(folder: Path) -> dict[str, str]:
    """Samples for every clip but spoiled in all the ways a folder of outputs is; id -> reason."""
    folder.mkdir()
    for i in range(COUNT):
        soundfile.write(folder / f"-clip_{i:02d}.wav", tone(8.0, 16_000, 200 + 40 * i).T, 16_000)
    (folder / "-clip_00.wav").unlink()
    (folder / "-clip_01.wav").write_bytes(b"")
    (folder / "-clip_02.wav").write_text("<!doctype html> not a wav")
    (folder / "-clip_03.wav").write_bytes((folder / "-clip_03.wav").read_bytes()[:9_000])
    bad = tone(8.0, 16_000)
    bad[0, 5] = np.inf
    soundfile.write(folder / "-clip_04.wav", bad.T, 16_000, subtype="FLOAT")
    soundfile.write(folder / "-clip_05.wav", tone(7.5, 16_000).T, 16_000)
    soundfile.write(folder / "-clip_06.wav", np.zeros(8 * 16_000), 16_000)
    soundfile.write(folder / "-clip_07.wav", tone(9.5, 16_000).T, 16_000)
    (folder / "-clip_08.wav").unlink()
    soundfile.write(folder / "-clip_08.flac", tone(8.0, 44_056, channels=6).T, 44_056)
    soundfile.write(folder / "stranger.wav", tone(1.0, 16_000).T, 16_000)
    return {
        "-clip_00": "missing-sample",
        "-clip_01": "empty",
        "-clip_02": "unreadable",
        "-clip_03": "unreadable",
        "-clip_04": "not-finite",
        "-clip_05": "too-short-audio",
    }


def test_bad_samples_are_excluded_with_their_reason(data: Path, tmp_path: Path) -> None:
    reasons = _spoil(tmp_path / "mine")
    result = run(data, tmp_path / "run", samples=tmp_path / "mine")
    assert result.exit_code == 3
    ledger = [json.loads(line) for line in (result.path / "ledger.jsonl").read_text().splitlines()]
    excluded = {line["clip"]: line["reason"] for line in ledger if line["status"] == "excluded"}
    assert excluded == reasons
    flagged = {(line["clip"], line["reason"]) for line in ledger if line["status"] == "flagged"}
    assert flagged == {("-clip_06", "silent"), ("-clip_07", "cut"), ("stranger.wav", "extra-sample")}
    counts = result.scores["counts"]
    assert counts["scored"] == COUNT - len(reasons)
    assert {e["n"] for e in result.scores["metrics"].values()} == {counts["scored"]}
    assert "IS-nano" in result.scores["absent"]
    assert {line["clip"] for line in ledger if line["stage"] == "score"} == {f"-clip_{i:02d}" for i in range(6, COUNT)}
    assert run(data, tmp_path / "run", samples=tmp_path / "mine", min_coverage=0.5).exit_code == 0


def test_copies_of_the_reference_are_warned_of(data: Path, tmp_path: Path) -> None:
    oracle = run(data, tmp_path / "oracle", model="oracle")
    copied = run(data, tmp_path / "run", samples=oracle.path / "audio")
    assert any("same features as the reference audio" in w for w in copied.scores["warnings"])
    noise = run(data, tmp_path / "noise", model="noise")
    assert not any("same features" in w for w in noise.scores["warnings"])
    assert not any("same features" in w for w in oracle.scores["warnings"])  # it is the reference and says so


def test_networks_trained_on_one_set_are_cautioned_about_on_others(data: Path, tmp_path: Path) -> None:
    caution = "were trained on set impacts only"
    options = {"model": "silence", "limit": 2, "metrics": ("KL-nano",)}
    assert any(caution in w for w in run(data, tmp_path / "other", **options).scores["warnings"])
    text = protocols.protocol_names()["nano"].read_text()
    (tmp_path / "own.yaml").write_text(text.replace("trained_on: impacts", "trained_on: clips"))
    own = run(data, tmp_path / "own", **options, protocol=str(tmp_path / "own.yaml"))
    assert not any("were trained on" in w for w in own.scores["warnings"])
    assert any("2 generated samples are silent" in w for w in own.scores["warnings"])


def test_silence_of_the_reference_is_not_said_of_the_samples(tmp_path: Path) -> None:
    for folder in ("data", "mine"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "data" / f"{name}.mp4", seconds=8, size=48, audio=np.zeros((1, 8 * 44_100), np.float32))
        soundfile.write(tmp_path / "mine" / f"{name}.wav", tone(8.0, 16_000).T, 16_000)
    result = run(tmp_path / "data", tmp_path / "run", samples=tmp_path / "mine", metrics=("KL-nano",))
    assert result.scores["counts"]["flagged"] == {"silent": 2}
    assert not any("silent" in warning for warning in result.scores["warnings"])


def test_several_samples_per_clip_are_averaged(data: Path, tmp_path: Path) -> None:
    both = run(data, tmp_path / "both", model="noise", samples_per_clip=2, limit=12)
    assert len(list((both.path / "audio").iterdir())) == 24
    frame = read_run(both.path).values()
    folders = []
    for k in range(2):
        folder = tmp_path / f"only{k}"
        folder.mkdir()
        for path in (both.path / "audio").glob(f"*~{k}.*"):
            (folder / path.name.replace(f"~{k}", "")).write_bytes(path.read_bytes())
        folders.append(read_run(run(data, tmp_path / f"run{k}", samples=folder, limit=12).path))
    mean = (folders[0].values()["KL-nano"] + folders[1].values()["KL-nano"]) / 2
    np.testing.assert_allclose(frame["KL-nano"], mean, rtol=1e-6)
    fds = [r.scores["metrics"]["FD-nano"]["value"] for r in folders]
    assert both.scores["metrics"]["FD-nano"]["value"] == pytest.approx(np.mean(fds), rel=1e-6)
    assert fds[0] != fds[1]
    details = both.scores["metrics"]["FD-nano"]["details"]
    assert details["std_over_samples"] == pytest.approx(abs(fds[0] - fds[1]) / 2**0.5, rel=1e-6)  # of a sample of two


def test_limit_takes_the_first_ids(data: Path, out: Path) -> None:
    result = run(data, out, model="oracle", limit=3)
    assert sorted(read_run(result.path).values().reset_index()["id"]) == ["-clip_00", "-clip_01", "-clip_02"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "orcale"}, "Did you mean 'oracle'"),
        ({"model": "oracle:shft=1"}, "shft"),
        ({"model": "oracle:shift"}, "not key=value"),
        ({}, "either --model NAME or --samples DIR"),
        ({"model": "oracle", "set": "clip"}, "Did you mean 'clips'"),
        ({"model": "oracle", "data": Path("/does/not/exist")}, "no such folder"),
        ({"model": "oracle", "metrics": ("FD-nana",)}, "Did you mean 'FD-nano'"),
        ({"model": "oracle", "device": "gpu"}, "--device"),
        ({"model": "oracle", "limit": 0}, "--limit"),
        ({"model": "oracle", "min_coverage": 2.0}, "--min-coverage"),
        ({"model": "shuffled", "limit": 1}, "at least two clips"),
        ({"samples": Path("/does/not/exist")}, "no such folder"),
    ],
)
def test_usage_errors_come_before_work(data: Path, out: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(data, out, **options)
    assert not out.exists()


def test_samples_of_the_same_stem_are_refused(data: Path, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    for suffix in ("wav", "flac"):
        soundfile.write(folder / f"-clip_00.{suffix}", tone(8.0).T, 44_100)
    with pytest.raises(UsageError, match="same clip"):
        run(data, out, samples=folder)


def test_a_folder_of_another_run_is_refused(data: Path, out: Path) -> None:
    run(data, out, model="oracle", limit=2)
    with pytest.raises(UsageError, match=r"different list of clips \(list_hash\), model"):
        run(data, out, model="noise", limit=3)


@pytest.mark.skipif(sys.platform != "linux", reason="the server looks into /proc before it forks")
def test_killed_and_started_again_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    """Three kills, each after a quarter of all changes of the run folder and the cache, then a start to the end."""
    metrics = ["KL-nano", "DeSync-nano"]  # an extractor of the audio alone, and one of audio and video
    options = {"set": "clips", "model": "shuffled", "data": str(data), "limit": 4, "metrics": metrics}
    with kill_server(tmp_path) as server:
        assert server.run(server.job("whole/run", options, watch="whole", home="whole/home")) == [0]
        quarter = server.count("whole/run") // 4
        kept: dict[Path, int] = {}
        for _ in range(3):
            job = server.job("broken/run", options, quarter, watch="broken", home="broken/home")
            assert server.run(job) == [KILLED]
            finished = [p for p in (tmp_path / "broken").rglob("*") if p.suffix in (".flac", ".safetensors")]
            kept |= {path: path.stat().st_mtime_ns for path in finished if path not in kept}
        assert {path.suffix for path in kept} == {".flac", ".safetensors"}
        assert not (tmp_path / "broken/run/scores.json").exists()
        assert server.run({**job, "point": 0}) == [0]
    for path, written in kept.items():
        assert path.stat().st_mtime_ns == written  # finished work is not repeated
    for name in ("scores.json", "clips.parquet"):
        assert (tmp_path / "whole/run" / name).read_bytes() == (tmp_path / "broken/run" / name).read_bytes()
    assert not list((tmp_path / "broken/run").rglob("*.part"))


def test_two_processes_do_not_share_a_run_folder(data: Path, out: Path) -> None:
    from av_bench.results.record import RunFolder

    with RunFolder(out).locked(), pytest.raises(UsageError, match="another process"):
        run(data, out, model="oracle", limit=2)


def test_ten_real_clips(shared: Path, out: Path, tmp_path: Path) -> None:
    result = run(shared / "clips", out, model="oracle", store=tmp_path / "store")
    assert result.exit_code == 3
    assert result.scores["counts"]["excluded"] == {"no-audio": 1, "too-short-audio": 3}
    assert result.scores["counts"]["scored"] == 6
    assert "more than 10 clips" in result.scores["absent"]["IS-nano"]
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert len({line["clip"] for line in ledger}) == 10
    again = run(
        shared / "clips", out, model="oracle", store=tmp_path / "store"
    )  # short and silent files are not looked at again either
    assert read_run(again.path).info["network_runs"] == 0


def test_the_clean_subset_stands_beside_the_full_set(data: Path, tmp_path: Path) -> None:
    overlaps = {
        "version": 1,
        "test": "clips",
        "train": [],
        "rule": "id",
        "overlapping": ["-clip_00", "g3"],
        "findings": [],
    }
    (tmp_path / "audit.json").write_text(json.dumps(overlaps))
    result = run(data, tmp_path / "run", model="shuffled", dedup=tmp_path / "audit.json")
    clean = result.scores["clean"]
    assert (clean["scored"], clean["left_out"]) == (COUNT - 3, 3)  # one clip by id, two by their source recording
    frame = read_run(result.path).values().reset_index()
    kept = frame[(frame["id"] != "-clip_00") & (frame["group"] != "g3")]["KL-nano"]
    entry = clean["metrics"]["KL-nano"]
    assert entry["value"] == pytest.approx(kept.mean())
    low, high = entry["against_full"]["interval"]
    assert low < entry["against_full"]["difference"] < high
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(UsageError, match="not an audit file"):
        run(data, tmp_path / "other", model="shuffled", dedup=tmp_path / "audit.json")


def test_videos_to_watch_have_the_clips_picture_and_the_samples_sound(data: Path, out: Path) -> None:
    import av

    result = run(data, out, model="oracle:gain=-6", limit=2, videos=True)
    files = sorted((result.path / "videos").glob("*.mp4"))
    assert len(files) == 2
    original = sorted(data.glob("*.mp4"))[0]
    with av.open(str(files[0])) as ours, av.open(str(original)) as theirs:
        pictures = [f.to_ndarray() for f in ours.decode(video=0)]
        assert all(np.array_equal(p, q.to_ndarray()) for p, q in zip(pictures, theirs.decode(video=0), strict=False))
        assert len(pictures) == 200
    from av_bench.media.decode import decode

    sound, sample = decode(files[0]), decode(next((result.path / "audio").glob(f"{files[0].stem}.*")))
    wave, wanted = sound.waveform(16_000, 7.5), sample.waveform(16_000, 7.5)
    assert float((wave - wanted).square().mean().sqrt()) < 0.1 * float(wanted.square().mean().sqrt())


def test_optional_metrics_come_when_they_are_asked_for(data: Path, tmp_path: Path) -> None:
    plain = run(data, tmp_path / "plain", model="oracle", limit=2)
    asked = run(data, tmp_path / "asked", model="oracle", limit=2, metrics=("+FD-infinity-nano",))
    named = {*asked.scores["metrics"], *asked.scores["absent"]}
    assert named - {*plain.scores["metrics"], *plain.scores["absent"]} == {"FD-infinity-nano"}
    assert "needs at least 32 clips" in asked.scores["absent"]["FD-infinity-nano"]
    only = run(data, tmp_path / "only", model="oracle", limit=2, metrics=("FD-nano", "+FD-infinity-nano"))
    assert {*only.scores["metrics"], *only.scores["absent"]} == {"FD-nano", "FD-infinity-nano"}


def test_a_picture_that_cannot_be_copied_costs_its_video_only(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from av_bench.contracts import MediaError, Reason
    from av_bench.pipeline import videos

    whole = videos.mux

    def fails_once(video: Path, audio: Path, target: Path, seconds: float) -> None:
        if target.stem.endswith("00"):
            raise MediaError(video, Reason.UNREADABLE, "no such codec in mp4")
        whole(video, audio, target, seconds)

    monkeypatch.setattr(videos, "mux", fails_once)
    result = run(data, out, model="oracle", limit=2, videos=True, quiet=False)
    assert result.scores["counts"]["scored"] == 2
    assert len(list((result.path / "videos").glob("*.mp4"))) == 1
    assert "no video to watch of -clip_00" in capsys.readouterr().err


def test_a_video_to_watch_starts_where_decoding_starts(data: Path, tmp_path: Path) -> None:
    """MPEG-TS begins later than 0; picture and sound must still begin together."""
    import av

    from av_bench.media.mux import mux

    source, late = sorted(data.glob("*.mp4"))[0], tmp_path / "late.ts"
    with av.open(str(source)) as given, av.open(str(late), "w") as sink:
        copy = sink.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.pts is not None:
                packet.stream = copy
                sink.mux(packet)
    with av.open(str(late)) as shifted:
        assert (shifted.start_time or 0) > 0
    soundfile.write(tmp_path / "tone.wav", tone(8.0, 16_000)[0], 16_000)
    mux(late, tmp_path / "tone.wav", tmp_path / "out.mp4", 8.0)
    with av.open(str(tmp_path / "out.mp4")) as made:
        starts = [float((s.start_time or 0) * s.time_base) for s in made.streams]
        assert max(abs(s) for s in starts) < 0.05
        assert sum(1 for _ in made.decode(video=0)) == 200


def test_a_protocol_too_short_for_its_networks_is_refused_before_the_generator_is_built(
    data: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.yaml"
    short.write_text(
        "name: short\nversion: '1'\ntitle: Two seconds\nseconds: 2.0\nflavour: strict\nreference: none\nlicence: none\n"
        "metrics:\n  KL-nano: {kind: kl, extractor: nano-tagger, output: logits}\n"
    )
    built: list[object] = []
    monkeypatch.setattr("av_bench.pipeline.prepare.sample_source", lambda *names: built.append(names))
    with pytest.raises(UsageError, match="nano-tagger was trained on windows of 8 s, the protocol scores 2 s"):
        run(data, out, model="oracle", protocol=str(short))
    assert not built
