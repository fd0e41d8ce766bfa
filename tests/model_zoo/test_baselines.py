"""Manifests, mapping of published samples, the command line, and the driver that runs official commands."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

import av_bench
from av_bench.cli.baselines import app
from av_bench.contracts import Clip, ClipSet, MissingRequirement, UsageError
from model_zoo import load
from model_zoo.baselines import baseline, load_manifest, manifest_names
from model_zoo.baselines.load import HERE
from model_zoo.baselines.schema import Manifest, read_manifest
from model_zoo.baselines.site import read_site
from reports.paper_rows import read as read_reported
from tests.jobs import job_for
from tests.media_files import tone, write_video

CLIPS = tuple(Clip(name) for name in ("-a_bcdefghi_000000", "b_cdefghijk_000012", "c-defghijkl_000431"))


# --------------------------------------------------------------------------- manifests


@pytest.mark.parametrize("name", manifest_names())
def test_each_manifest_holds_together(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.citation
    for row in manifest.paper:
        reported = {r.method: r for r in read_reported(row.table)}
        assert row.row in reported
        if manifest.parameters is not None and "params" in reported[row.row].values:
            assert manifest.parameters.count == pytest.approx(reported[row.row].values["params"] * 1e6)
    for part in manifest.driver.command:
        if part.startswith("{drivers}/"):
            assert (HERE / "drivers" / part.removeprefix("{drivers}/")).is_file()


def test_every_model_of_the_paper_has_a_manifest() -> None:
    known = {(row.table, row.row) for name in manifest_names() for row in load_manifest(name).paper}
    for table in ("table1", "table3"):
        wanted = {(table, r.method) for r in read_reported(table) if not r.method.startswith("MMAudio")}
        assert wanted <= known


@pytest.fixture
def data() -> dict[str, Any]:
    return dict(yaml.safe_load((HERE / "frieren.yaml").read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": None}, "m.yaml: title: expected text, got None"),
        ({"titel": "x"}, "unknown key 'titel'. Did you mean 'title'"),
        ({"task": "a2v"}, "task: expected one of v2a, tv2a, t2a, got 'a2v'"),
        ({"native": {"rate": "16k"}}, "native: rate: expected a whole number, got '16k'"),
        ({"conditions": {"video": "required"}}, "conditions: the key 'text' is missing"),
        ({"conditions": {"video": "unused", "text": "unused"}}, "task v2a but conditions.video is unused"),
        ({"modes": ["subprocess"], "driver": {"status": "none"}}, "mode subprocess needs driver.command"),
        ({"driver": {"status": "steps-to-fill"}, "modes": ["import"]}, "there are no driver.steps"),
        ({"modes": []}, "modes is empty"),
        ({"weights": [{"what": "a", "sha256": "abc"}]}, "sha256 of 'a' is not 64 hex digits"),
        ({"unverified": {"native.rat": "?"}}, "unverified: there is no key native.rat"),
        ({"driver": {"status": "none", "command": ["x"]}}, "driver.status is none"),
        ({"samples": {"source": "s", "files": "*", "pattern": "("}}, "not a regular expression"),
        ({"samples": {"source": "s", "files": "*", "pattern": "(?P<id>.*)", "clip": "{yt}"}}, "uses {yt}"),
        ({"self_normalised": "no"}, "self_normalised: expected true or false"),
    ],
)
def test_errors_name_file_and_key(data: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(data | change, "m.yaml")
    assert str(caught.value).startswith("m.yaml")
    assert message in str(caught.value)
    assert isinstance(read_manifest(data, "m.yaml"), Manifest)


def test_unknown_names_teach() -> None:
    with pytest.raises(UsageError, match="Did you mean 'frieren'"):
        load("friren")
    with pytest.raises(UsageError, match="only baselines have published samples"):
        av_bench.run(set="impacts", model="oracle", samples=Path("/tmp"), limit=1, metrics=("F1",))
    with pytest.raises(MissingRequirement, match=r"nothing to run.*--samples DIR"):
        load("v2a-mapper")


# --------------------------------------------------------------------------- published samples

RELEASES = {
    "frieren": "frieren_noreflow_25/{ytid}_{start}_{k}.wav",
    "vatt": "{id}.wav",
    "v2a-mapper": "vggsound/{id}.wav",
    "mmaudio-published": "MMAudio-L-44k/{id}.flac",
    "genau-large": "Y{ytid}_{start}.wav",
    "rewas": "{id}.wav",
}


def release_name(name: str, clip: Clip, k: int) -> str:
    return RELEASES[name].format(id=clip.id, ytid=clip.id[:11], start=int(clip.id[12:]), k=k)


def lay_out(folder: Path, name: str, clips: tuple[Clip, ...], samples: int = 1) -> Path:
    """A folder that looks like a release; the files hold a short tone."""
    for clip in clips:
        for k in range(samples):
            path = folder / release_name(name, clip, k)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone(0.1, 16_000, 200 + 50 * k)[0], 16_000)
    (folder / "README.txt").write_text("a release")
    return folder


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_a_release_is_mapped_and_its_gaps_are_reported(tmp_path: Path, name: str) -> None:
    per_clip = 3 if name == "frieren" else 1
    folder = lay_out(tmp_path / "release", name, CLIPS[:2], per_clip)
    stranger = lay_out(tmp_path / "release", name, (Clip("zzzzzzzzzzz_000030"),))
    assert stranger == folder
    model = baseline(name, folder)
    model.setup(ClipSet("toy", "1", CLIPS), 5.0, 0)
    found = {(g.clip_id, g.sample): g.path for g in model.produce(job_for(CLIPS, per_clip))}
    for clip in CLIPS[:2]:
        for k in range(per_clip):
            assert found[clip.id, k] == folder / release_name(name, clip, k)
    assert found[CLIPS[2].id, 0] is None
    coverage = model.coverage(CLIPS, per_clip)
    assert (coverage["expected"], coverage["covered"]) == (3, 2)
    assert coverage["missing"] == [CLIPS[2].id]
    assert coverage["not_in_list"] == ["zzzzzzzzzzz_000030"]
    assert coverage["samples_per_clip"] == {"0": 1, str(per_clip): 2}


def test_a_clip_with_too_few_samples_is_partial(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, "frieren", CLIPS, 2)
    (folder / release_name("frieren", CLIPS[1], 1)).unlink()
    coverage = baseline("frieren", folder).coverage(CLIPS, 2)
    assert coverage["partial"] == [CLIPS[1].id]
    assert coverage["share"] == pytest.approx(2 / 3)


def test_other_names_need_a_table_or_a_rule(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for i in range(2):
        soundfile.write(folder / f"prompt number {i + 1}.wav", tone(0.1, 16_000)[0], 16_000)
    with pytest.raises(UsageError, match=r"maps no file, e\.g\. prompt number 1\.wav; give mapping=FILE"):
        baseline("genau-large", folder)
    table = tmp_path / "names.tsv"
    table.write_text(f"file\tid\tk\nprompt number 1.wav\t{CLIPS[0].id}\t0\nprompt number 2.wav\t{CLIPS[0].id}\t1\n")
    assert set(baseline("genau-large", folder, mapping=str(table)).files) == {(CLIPS[0].id, 0), (CLIPS[0].id, 1)}
    rule = tmp_path / "rule.yaml"
    rule.write_text(yaml.safe_dump({"pattern": r"prompt (?P<id>\w+) (?P<k>\d)\.wav", "clip": "{id}", "first_k": 1}))
    assert set(baseline("genau-large", folder, mapping=str(rule)).files) == {("number", 0), ("number", 1)}
    for text, message in (
        ("name\tid\n", "no column file"),
        ("file\tid\nnone.wav\ta\n", "line 2: .*none.wav does not exist"),
        ("file\tid\tk\nprompt number 1.wav\ta\tx\n", "line 2: k is 'x'"),
        ("file\tid\nprompt number 1.wav\ta\nprompt number 2.wav\ta\n", "both sample 0 of clip a"),
    ):
        table.write_text(text)
        with pytest.raises(UsageError, match=message):
            baseline("genau-large", folder, mapping=str(table))


def test_five_seconds_are_not_scored_as_eight(tmp_path: Path) -> None:
    model = baseline("rewas", lay_out(tmp_path, "rewas", CLIPS))
    with pytest.raises(UsageError, match=r"at most 5\.12 s"):
        model.setup(ClipSet("toy", "1", CLIPS), 8.0, 0)


def test_runs_of_published_samples(tmp_path: Path) -> None:
    """Sound tracks of mp4 by number; several samples per clip by suffix; missing ones count against coverage."""
    rng = np.random.default_rng(0)
    data, films, takes = (tmp_path / name for name in ("data", "films", "takes"))
    for folder in (data, films, takes):
        folder.mkdir()
    for i in range(3):
        audio = (0.1 * rng.standard_normal((1, 8 * 44_100))).astype(np.float32)
        write_video(data / f"{i}.mp4", seconds=8, size=48, audio=audio)
        if i < 2:
            shutil.copyfile(data / f"{i}.mp4", films / f"{i:03d}.mp4")
    (films / "cover.mp4").write_bytes(b"")
    options: dict[str, Any] = {"set": "clips", "data": data, "metrics": ("KL-nano",), "quiet": True}
    result = av_bench.run(model="movie-gen-audio", samples=films, out=tmp_path / "run", **options)
    assert result.exit_code == 3
    assert result.scores["counts"]["excluded"] == {"missing-sample": 1}
    assert any("same features as the reference audio" in w for w in result.scores["warnings"])
    coverage = json.loads((result.path / "coverage.json").read_text())
    assert coverage["missing"] == ["2"]
    assert coverage["not_mapped"] == ["cover.mp4"]
    run_info = json.loads((result.path / "run.json").read_text())
    assert run_info["spec"]["label"] == "movie-gen-audio"
    assert run_info["generator"]["parameters"]["count"] == 13_000_000_000
    again = av_bench.run(model="movie-gen-audio", samples=films, min_coverage=0.6, out=tmp_path / "run", **options)
    assert again.exit_code == 0
    for i in range(3):
        for k in range(2):
            soundfile.write(takes / f"{i}_{k}.wav", 0.1 * rng.standard_normal(8 * 16_000), 16_000)
    rule = tmp_path / "rule.yaml"
    rule.write_text(yaml.safe_dump({"files": "*.wav", "pattern": r"(?P<id>\d)_(?P<k>\d)\.wav", "clip": "{id}"}))
    options |= {"out": tmp_path / "two", "label": "Frieren", "samples_per_clip": 2}
    both = av_bench.run(model=f"frieren:mapping={rule}", samples=takes, **options)
    assert both.scores["metrics"]["KL-nano"]["details"]["samples"] == 2
    assert "2 samples per clip, then over clips; sd over samples: KL-nano" in av_bench.table([both.path])


# --------------------------------------------------------------------------- command line


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_show_and_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    listed = call("list", "--format", "markdown")
    assert all(f"| {name} |" in listed for name in manifest_names())
    assert "not valid in the European Union" in listed
    assert "[unverified] samples.pattern" in call("show", "frieren")
    recipe = call("setup", "tango", "--print")
    assert "git -C tango checkout 34ecd38" in recipe
    assert "sha256 not known" in recipe
    assert not (tmp_path / "home").exists()
    (tmp_path / "repo").mkdir()
    said = call("setup", "tango", "--python", sys.executable, "--repo", str(tmp_path / "repo"))
    assert "still missing: weights is not set" in said
    assert read_site("tango").python == sys.executable
    monkeypatch.setenv("AV_BENCH_TANGO_PYTHON", "/other/python")
    assert read_site("tango").python == "/other/python"
    with pytest.raises(UsageError, match="no such file or folder"):
        call("setup", "tango", "--repo", str(tmp_path / "nowhere"))
    (tmp_path / "python").write_text("")
    with pytest.raises(UsageError, match="does not start"):
        call("setup", "tango", "--python", str(tmp_path / "python"))


# --------------------------------------------------------------------------- official commands

OFFICIAL = """
import csv, sys, wave
from pathlib import Path
rows = list(csv.DictReader(open(sys.argv[1])))
assert len(rows) == 1, rows
out = Path(sys.argv[2]) / "2026-01-01"
out.mkdir()
with wave.open(str(out / (rows[0]["prompt"].replace(" ", "_") + ".wav")), "wb") as handle:
    handle.setnchannels(1); handle.setsampwidth(2); handle.setframerate(16000)
    handle.writeframes(bytes([int(sys.argv[3]) % 100, 3]) * 16000)
if "nothing" in rows[0]["prompt"]:
    next(out.iterdir()).unlink()
if "breaks" in rows[0]["prompt"]:
    sys.exit("out of memory")
"""


def test_official_commands_once_per_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal prompts do not collide; one that leaves no file, or breaks, fails alone."""
    (tmp_path / "official.py").write_text(OFFICIAL)
    data = yaml.safe_load((HERE / "hunyuanvideo-foley.yaml").read_text())
    data |= {"name": "official", "native": {"rate": 16_000}, "min_vram_gib": None}
    data["unverified"] = {}
    data["driver"]["needs"] = ["python", "repo"]
    data["driver"]["steps"]["collect"] = "*/*.wav"
    arguments = ["{work}/item.csv", "{out}", "{seed}"]
    data["driver"]["steps"]["commands"] = [{"run": ["{python}", str(tmp_path / "official.py"), *arguments]}]
    (tmp_path / "official.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.setenv("AV_BENCH_OFFICIAL_PYTHON", sys.executable)
    monkeypatch.setenv("AV_BENCH_OFFICIAL_REPO", str(tmp_path))
    video = tmp_path / "a.mp4"
    write_video(video, seconds=0.2, size=48, audio=tone(0.2))
    texts = {"one": 'a dog, "barks"', "two": 'a dog, "barks"', "three": "nothing", "four": "breaks"}
    clips = ClipSet("toy", "1", tuple(Clip(i, video, text=t) for i, t in texts.items()))
    model = load(str(tmp_path / "official.yaml"))
    model.setup(clips, 8.0, 0)
    found = {g.clip_id: g for g in model.produce(job_for(clips.clips))}
    first, second = found["one"].path, found["two"].path
    assert first is not None, found["one"].detail
    assert second is not None
    assert first.read_bytes() != second.read_bytes()  # another seed
    assert "0 files fit" in found["three"].detail
    assert "stage 1 of 1 (generation): exit code 1; log ends: out of memory" in found["four"].detail
    assert not found["one"].timings  # a process per clip is not a measure of the model
