"""A user with a folder of videos and a folder of wavs: which protocol, how long, which names, and what is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

import av_bench
from av_bench.accept import accept, markdown
from av_bench.cli.app import app
from av_bench.contracts import Clip, ClipSet, MissingRequirement, UsageError
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.preflight import describe, preflight
from av_bench.weights import lock
from tests.extractors.test_sfx import derived_state
from tests.media_files import write_video

NAMES = ("kick door", "long-one", "z_short")
LENGTHS = (4.0, 6.0, 3.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 4, 6 and 3 s with noise of their own."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, seconds) in enumerate(zip(NAMES, LENGTHS, strict=True)):
        rng = np.random.default_rng(number)
        sound = 0.1 * rng.standard_normal((1, int(seconds * 44_100))).astype(np.float32)
        write_video(folder / f"{name}.mp4", seconds=seconds, fps=25, size=32, audio=sound, sample_rate=44_100)
    return folder


@pytest.fixture(scope="module")
def sfx_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the file of ``sfx``, made of weights that follow from their names, and the lock that fits it."""
    home = tmp_path_factory.mktemp("home")
    path = home / "weights/aisfx-0.1.2/sfx.safetensors"
    path.parent.mkdir(parents=True)
    save_file(derived_state(), path)
    content = yaml.safe_load(Path(lock.__file__).with_name("lock.yaml").read_text())
    entry = content["files"]["sfx"]
    entry["sha256"], entry["bytes"] = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    (home / "lock.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return home


@pytest.fixture
def with_sfx(sfx_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV_BENCH_HOME", str(sfx_home))
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(sfx_home / "lock.yaml"))
    return sfx_home


def write_samples(folder: Path, videos: Path, pattern: str, noise: float = 0.0) -> Path:
    """The sound of each video with noise, as wav files named by a pattern."""
    from av_bench.media.decode import decode

    for number, name in enumerate(NAMES):
        media = decode(videos / f"{name}.mp4")
        assert media.audio is not None
        audio = media.audio.numpy()
        changed = audio + noise * np.random.default_rng(number).standard_normal(audio.shape)
        path = folder / pattern.replace("{id}", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, changed.T, media.sample_rate, subtype="FLOAT")
    return folder


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# --------------------------------------------------------------------------- which protocol


@pytest.mark.usefixtures("with_sfx")
def test_the_first_line_says_what_was_chosen_and_how_to_get_the_papers(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("run", "--model", "oracle", "--set", "clips", "--data", str(videos), "--seconds", "3", "--quiet")
    assert code == 0, said
    first = said.splitlines()[0]
    assert "protocol sfx@3s 1" in first
    assert "weights pull --for vggsound-8s" in first
    assert "FD-sfx" in said


def test_without_networks_nano_is_taken_and_says_what_it_knows(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    result = av_bench.run(set="clips", data=videos, model="oracle", out=tmp_path / "run", quiet=True, min_coverage=0.0)
    assert result.scores["protocol"]["name"] == "nano"
    assert "nano knows rendered impacts only" in result.scores["protocol"]["remark"]
    assert "av-bench weights pull sfx" in av_bench.table([result.path]).splitlines()[0]
    assert any("--seconds shortest" in warning for warning in result.scores["warnings"])  # all are shorter than 8 s


@pytest.mark.usefixtures("with_sfx")
def test_a_protocol_that_was_asked_for_is_no_choice(videos: Path, tmp_path: Path) -> None:
    result = av_bench.run(
        set="clips", data=videos, model="oracle", protocol="nano", out=tmp_path / "r", quiet=True, min_coverage=0.0
    )
    assert result.scores["protocol"]["name"] == "nano"
    assert "remark" not in result.scores["protocol"]


@pytest.mark.usefixtures("with_sfx")
def test_two_commands_order_several_folders_of_samples(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is `weights pull sfx`. A row for each folder in one table; the noisier one is worse."""
    monkeypatch.chdir(tmp_path)
    folders = [write_samples(tmp_path / f"noise-{noise}", videos, "{id}.wav", noise) for noise in (0.01, 0.1)]
    words = [word for folder in folders for word in ("--samples", str(folder))]
    command = ["run", "--set", "clips", "--data", str(videos), "--protocol", "any-length", "--quiet", *words]
    code, said = run(*command)
    assert code == 0, said
    value = {line.split("|")[1].strip(): line.split("|")[2] for line in said.splitlines() if line.startswith("| noise")}
    assert list(value) == ["noise-0.01", "noise-0.1"]
    assert "**" in value["noise-0.01"]
    assert "run folders: runs/clips-noise-0.01-" in said
    code, said = run("doctor", "--for", " ".join(command))
    assert (code, said.splitlines()[0]) == (0, "nothing is missing")
    (tmp_path / "other").mkdir()
    twin = shutil.copytree(folders[0], tmp_path / "other/noise-0.01")
    with pytest.raises(UsageError, match=r"two folders are called noise-0\.01"):
        run(*command, "--samples", str(twin))
    with pytest.raises(UsageError, match="--label with 2 folders of --samples"):
        run(*command, "--label", "mine")


# --------------------------------------------------------------------------- how long


@pytest.mark.usefixtures("with_sfx")
def test_noisier_samples_score_worse_on_clips_of_any_length(videos: Path, tmp_path: Path) -> None:
    """In one command a row: each clip over its own length, and the order of the rows is that of the damage."""
    values = []
    for noise in (0.01, 0.1):
        samples = write_samples(tmp_path / f"noise{noise}", videos, "{id}.wav", noise)
        result = av_bench.run(
            set="clips", data=videos, samples=samples, protocol="any-length", out=tmp_path / f"r{noise}", quiet=True
        )
        assert result.exit_code == 0
        assert result.scores["counts"]["scored"] == 3
        values.append(result.scores["metrics"]["FD-sfx"]["value"])
        assert result.scores["metrics"]["FD-sfx"]["details"]["rows"] == 2 + 4 + 1  # windows of 4, 6 and 3 s
    assert 0 < values[0] < values[1]


@pytest.mark.usefixtures("with_sfx")
def test_shortest_takes_the_length_of_the_shortest_part(videos: Path, tmp_path: Path) -> None:
    """A sample that is shorter than its video counts too; the rows have a protocol name of their own."""
    samples = write_samples(tmp_path / "s", videos, "{id}.wav")
    data, rate = soundfile.read(samples / "z_short.wav")
    soundfile.write(samples / "z_short.wav", data[: int(2.5 * rate)], rate)
    result = av_bench.run(set="clips", data=videos, samples=samples, seconds="shortest", out=tmp_path / "r", quiet=True)
    assert result.scores["protocol"]["name"] == "sfx@2.48s"  # whole frames at 25 per second
    assert result.scores["protocol"]["seconds"] == 2.48
    assert result.scores["counts"]["scored"] == 3


@pytest.mark.usefixtures("with_sfx")
def test_a_network_gets_no_less_than_it_was_trained_on(videos: Path, tmp_path: Path) -> None:
    options = {"set": "clips", "data": videos, "model": "oracle", "out": tmp_path / "r", "quiet": True}
    with pytest.raises(UsageError, match=r"sfx was trained on windows of 2\.3 s"):
        av_bench.run(**options, seconds=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a number of seconds, shortest or whole"):
        av_bench.run(**options, seconds="shrtest")  # type: ignore[arg-type]
    result = av_bench.run(**options, protocol="nano", seconds="whole", min_coverage=0.0)  # type: ignore[arg-type]
    assert result.scores["counts"]["excluded"] == {"too-short-audio": 3}


# --------------------------------------------------------------------------- which names


@pytest.mark.parametrize("pattern", ["pred_{id}.wav", "{id}/audio.wav", "mine/{id}_out.wav", "{id}/{id}.wav"])
@pytest.mark.usefixtures("with_sfx")
def test_samples_are_found_by_a_pattern(pattern: str, videos: Path, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s", videos, pattern)
    options = {"set": "clips", "data": videos, "samples": samples, "quiet": True, "seconds": 3}
    result = av_bench.run(**options, pattern=pattern, out=tmp_path / "r")  # type: ignore[arg-type]
    assert (result.scores["counts"]["scored"], result.scores["counts"]["excluded"]) == (3, {})
    with pytest.raises(UsageError) as caught:
        av_bench.run(**options, out=tmp_path / "r2")  # type: ignore[arg-type]
    if "/" not in pattern:
        assert f"--pattern {pattern!r} would fit 3 files" in str(caught.value)
    else:
        assert "lie in sub-folders: --pattern" in str(caught.value)


@pytest.mark.usefixtures("with_sfx")
def test_names_that_fit_nothing_come_with_the_nearest(videos: Path, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s", videos, "pred_{id}.wav")
    (samples / "pred_kick door.wav").rename(samples / "pred_kick_door.wav")
    result = av_bench.run(
        set="clips",
        data=videos,
        samples=samples,
        pattern="pred_{id}.wav",
        seconds=3,
        out=tmp_path / "r",
        quiet=True,
        min_coverage=0.0,
    )
    ledger = [json.loads(line) for line in (tmp_path / "r/ledger.jsonl").read_text().splitlines()]
    details = [(line["clip"], line.get("detail", "")) for line in ledger]
    assert any(c == "pred_kick_door.wav" and "the nearest id is kick door" in text for c, text in details)
    assert any(c == "kick door" and "the nearest unused name is kick_door" in text for c, text in details)
    assert result.scores["counts"]["excluded"] == {"missing-sample": 1}


@pytest.mark.parametrize(("pattern", "message"), [("audio.wav", "it needs {id}"), ("x/{id}.wav", "no file fits")])
@pytest.mark.usefixtures("with_sfx")
def test_patterns_that_are_off_are_refused(pattern: str, message: str, videos: Path, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "s", videos, "{id}.wav")
    with pytest.raises(UsageError, match=message):
        av_bench.run(set="clips", data=videos, samples=samples, pattern=pattern, out=tmp_path / "r", quiet=True)


# --------------------------------------------------------------------------- what is missing


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AV_BENCH_LISTS", raising=False)
    found = preflight(RunOptions(set="vggsound", model="mmaudio-l"))
    names = {(item.kind, item.name) for item in found}
    weights = (
        "passt",
        "panns",
        "vggish",
        "imagebind",
        "synchformer",
        "mmaudio-large-44k",
        "mmaudio-vae-44k",
        "dfn5b-clip",
    )
    assert {("weights", name) for name in weights} <= names
    assert {("list", "mmaudio-vgg-test"), ("data", "media of set vggsound")} <= names
    assert len(found) == len(set(found))
    text = describe(found)
    assert "imagebind: 4.8 GB, licence CC-BY-NC-SA-4.0 (non-commercial)" in text
    command = text.splitlines()[-1]
    assert "av-bench lists pull mmaudio-vgg-test" in command
    pull = next(part for part in command.split(" && ") if "weights pull" in part)
    assert pull.endswith("--accept-licence")
    assert set(pull.split()[3:-1]) == {item.name for item in found if item.kind == "weights"}
    with pytest.raises(MissingRequirement, match="things are missing") as caught:
        av_bench.run(set="vggsound", model="mmaudio-l", out=tmp_path / "r", quiet=True)
    assert str(caught.value) == text
    assert not (tmp_path / "r").exists()


def test_doctor_answers_for_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    code, said = run("doctor", "--for", f"av-bench run --model oracle --set clips --data {tmp_path}")
    assert (code, said.splitlines()[0]) == (0, "nothing is missing")
    code, said = run("doctor", "--for", f"run --samples {tmp_path}/nowhere --set clips --data {tmp_path}")
    assert code == 4
    assert f"data: samples: {tmp_path}/nowhere: no such folder" in said
    code, said = run("doctor", "--for", "run --model oracle --set clips --protocol sfx")
    assert code == 4
    assert "weights: sfx: 24.9 MB, licence CC-BY-4.0" in said
    with pytest.raises(UsageError, match="--modl"):
        run("doctor", "--for", "run --modl oracle")
    with pytest.raises(UsageError, match="a run command is expected"):
        run("doctor", "--for", "gate x")


def test_a_full_disk_is_foretold(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a run writes counts, each where it goes."""
    from av_bench.pipeline import disk

    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    options = RunOptions(set="vggsound", model="mmaudio-l", data=videos, out=tmp_path / "out", samples_per_clip=2)
    size = {one.what: one.size for one in disk.writes(options, preflight(options))}
    assert size["samples"] == 15_221 * 2 * 8 * 48_000 * 3
    assert size["videos to watch"] == 15_221 * 2 * (sum(p.stat().st_size for p in videos.iterdir()) // 3)
    assert size["features"] > 15_221 * 4 * 768 * 24 * (8 + 6 + 6)  # Synchformer's tokens of video and both sounds
    assert size["conditions"] == 15_221 * 4 * (64 * 1024 + 192 * 768)  # CLIP and sync tokens
    assert 15e9 < size["weights"] < 18e9
    few = {one.what: one.size for one in disk.writes(replace(options, limit=2), preflight(options))}
    assert few["samples"] == 2 * 2 * 8 * 48_000 * 3
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    (lacking,) = [item for item in preflight(options) if item.kind == "disk"]
    assert "samples 35.1 GB" in lacking.detail
    assert "1.0 MB are free" in lacking.detail
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**15))
    code, said = run("doctor", "--for", f"run --model mmaudio-nano --set clips --data {videos} --no-videos")
    assert code == 0
    assert said.splitlines()[1].startswith("writes about 4.0 MB (samples 3.5 MB, features ")
    assert "videos to watch" not in said


def test_a_published_model_needs_its_packages_whatever_scores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("av_bench.pipeline.needed._installed", lambda package: package != "open_clip")
    found = preflight(RunOptions(set="vggsound", model="mmaudio-l", protocol="sfx"))
    assert [str(item) for item in found if item.kind == "package"] == [
        "package: open_clip: not installed, needed by mmaudio-l"
    ]


def test_weights_are_pulled_for_a_protocol_a_set_or_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from av_bench.pipeline.needed import needed_by

    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    paper = {entry.name for entry in needed_by("vggsound-8s")}
    assert paper == {"passt", "panns", "vggish", "imagebind", "synchformer"}
    assert {entry.name for entry in needed_by("vggsound")} == paper
    assert "mmaudio-vae-44k" in {entry.name for entry in needed_by("mmaudio-l")}
    code, said = run("weights", "pull", "--for", "vggsound-8s", "--offline")
    assert code == 4
    assert "5 of 5 files failed" in said
    code, said = run("weights", "pull", "--for", "vggsund-8s")
    assert code == 2
    assert "vggsound-8s" in said


@pytest.mark.usefixtures("with_sfx")
def test_a_set_is_checked_before_a_night_is_spent(videos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    (data / "broken.mp4").write_bytes(b"no video")
    (data / "clips.csv").write_text("id,file\n" + "".join(f"{n},{n}.mp4\n" for n in (*NAMES, "broken", "zshort")))
    code, said = run("sets", "check", "clips", "--data", str(data), "--protocol", "any-length", "--quiet")
    assert code == 3
    assert "0 of 5 clips can be scored" in said
    code, said = run("sets", "check", "clips", "--data", str(videos), "--quiet", "--min-coverage", "0")
    assert code == 0
    assert "3 too-short" in said
    assert "z_short: 3.00 s, 8 s are scored" in said


def test_a_metric_whose_network_the_model_uses_itself_is_no_independent_judge() -> None:
    from av_bench import registry
    from av_bench.pipeline.score import _rests_on
    from protocols import load_protocol

    metrics = {}
    for name, options in load_protocol("vggsound-8s").metrics.items():
        arguments = {key: value for key, value in options.items() if key != "kind"}
        metrics[name] = registry.load("metrics", options["kind"])(name, **arguments)
    judged = {
        network: [n for n, m in metrics.items() if _rests_on(m, network)] for network in ("synchformer", "imagebind")
    }
    assert judged == {"synchformer": ["DeSync"], "imagebind": ["IB-score"]}


# --------------------------------------------------------------------------- acceptance


@pytest.mark.usefixtures("with_sfx")
def test_acceptance_runs_what_is_here_and_says_what_is_not(tmp_path: Path) -> None:
    """With one file of derived weights: it is checked, its network runs on the rendered clips, the rest is absent."""
    code, said = run("accept", "--out", str(tmp_path / "a"), "--quiet")
    assert code == 0, said
    report = json.loads((tmp_path / "a/accept.json").read_text())
    status = {item["what"]: item["status"] for item in (*report["files"], *report["networks"], *report["models"])}
    assert {name for name, found in status.items() if found == "ok"} == {"sfx"}
    assert status["passt"] == "absent"
    assert status["mmaudio-s-16k"] == "absent"
    (network,) = [item for item in report["networks"] if item["what"] == "sfx"]
    assert network["given"]["embedding"]["shape"] == [3, 5, 512]
    assert network["given"]["logits"]["sd"] > 0
    assert "| sfx | ok | on 3 clips |" in (tmp_path / "a/accept.md").read_text()


def test_acceptance_fails_for_a_wrong_file(
    tmp_path: Path, sfx_home: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(sfx_home / "weights", home / "weights")
    path = home / "weights/aisfx-0.1.2/sfx.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    monkeypatch.setenv("AV_BENCH_HOME", str(home))
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(sfx_home / "lock.yaml"))
    clips = ClipSet("toy", "1", (Clip("long-one", videos / "long-one.mp4"),))
    report = accept(clips, tmp_path / "a")
    assert not report.passed
    assert [item.what for item in report.files if item.status == "failed"] == ["sfx"]
    said = markdown(report)
    assert "| sfx | failed |" in said
    assert "Something failed." in said
