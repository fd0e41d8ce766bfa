"""Steps files: what is refused in them, what is still open, what they need, and videos at another frame rate."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import av_bench
from av_bench.cli.baselines import app
from av_bench.contracts import MissingRequirement, UsageError
from model_zoo.baselines import baseline, load_manifest, manifest_names
from model_zoo.baselines.load import HERE
from model_zoo.baselines.schema import read_manifest
from model_zoo.baselines.site import Site, missing, read_site
from model_zoo.baselines.steps import open_places, read_steps
from model_zoo.external.launching import launch
from model_zoo.external.silent import at_rate, silent_copy
from tests.conftest import ROOT
from tests.media_files import number_of, tone, write_video
from tests.model_zoo.official import SCRIPTS

NAMES = tuple(SCRIPTS)


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def open_manifest(folder: Path) -> Path:
    """A manifest of the user's with two open places."""
    data = yaml.safe_load((HERE / "thinksound.yaml").read_text())
    data["driver"]["status"] = "steps-to-fill"
    data["driver"]["steps"]["commands"][1]["run"][2:4] = ["<flag of the settings>", "<file of the settings>"]
    path = folder / "open.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_open_places_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    for what in ("PYTHON", "PYTHON2", "REPO", "WEIGHTS"):
        monkeypatch.setenv(f"AV_BENCH_THINKSOUND_{what}", sys.executable)
    path = open_manifest(tmp_path)
    manifest = load_manifest(str(path))
    assert manifest.driver.steps is not None
    with pytest.raises(MissingRequirement) as caught:
        av_bench.run(
            **{"set": "clips", "model": str(path), "data": tmp_path, "out": tmp_path / "run", "quiet": True},
            protocol="nano",
            metrics=("KL-nano",),
        )
    assert not (tmp_path / "run").exists()
    places = open_places(manifest.driver.steps)
    assert {place.partition(" ")[2] for place in places} == {"<flag of the settings>", "<file of the settings>"}
    for text in (*places, "setup thinksound --print", "setup thinksound --steps"):
        assert text in str(caught.value)
    assert "is not set" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_steps_are_a_steps_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    manifest = load_manifest(name)
    assert "driver.steps" in manifest.unverified
    assert f"| {name} |" in call("list", "--format", "markdown")
    template = tmp_path / "template.yaml"
    template.write_text(call("setup", name, "--print"))
    assert read_steps(template, manifest.conditions.extras)[0] == manifest.driver.steps


def baseline_error(name: str) -> str:
    with pytest.raises(MissingRequirement) as caught:
        baseline(name)
    return str(caught.value)


def test_only_filled_steps_run_and_no_manifest_pretends(tmp_path: Path) -> None:
    """Status and open places agree in every manifest; a manifest where they do not is refused."""
    assert all(load_manifest(name).driver.status != "steps-to-fill" for name in manifest_names())
    for path, change in ((open_manifest(tmp_path), "untested"), (HERE / "make-an-audio.yaml", "steps-to-fill")):
        data = yaml.safe_load(path.read_text())
        data["driver"]["status"] = change
        with pytest.raises(UsageError, match=f"driver.status is {change}, and [0-9]+ places"):
            read_manifest(data, "m.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commands": []}, "there is nothing to run"),
        ({"commands": [{"run": []}]}, "there is nothing to run"),
        ({"commands": [["{python}", "a.py"]]}, "commands[0]: expected keys and values"),
        ({"commands": [{"run": ["{pythn}"]}]}, "unknown placeholder 'pythn'. Did you mean 'python'"),
        ({"commands": [{"run": ["{video_fps}"]}]}, "unknown placeholder 'video_fps'"),
        ({"commands": [{"run": ["{"]}]}, "a brace that is meant is written twice"),
        ({"commands": [{"run": ["a"], "part": "mel"}]}, "expected one of features, generation, decoding"),
        ({"commands": [{"run": ["a"], "cwd": "../elsewhere"}]}, "commands.0.cwd"),
        ({"commands": [{"run": ["a"], "cwd": "/tmp"}]}, "commands.0.cwd"),
        ({"commands": [{"run": ["a"], "env": {"A": "{cot}"}}]}, "unknown placeholder 'cot'"),
        ({"write": {"../a.txt": "x"}}, "must be a relative path"),
        ({"copy": {"/a.mp4": "{video}"}}, "must be a relative path"),
        ({"collect": "/tmp/*.wav"}, "must be a relative path"),
        ({"collects": "*.wav"}, "Did you mean 'collect'"),
        ({"reencode": {"fps": 0}}, "reencode.fps is 0"),
        ({"reencode": {"fps": "4"}}, "expected a number"),
        ({"commands": [{"run": ["{python}", "-m", "x"], "keep": ["load"]}]}, "need run: [{python}, SCRIPT.py"),
        ({"commands": [{"run": ["{python}", "a.py"], "replace": {"{cot}": "x"}}]}, "unknown placeholder 'cot'"),
    ],
)
def test_a_steps_file_that_is_off_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    good = {"commands": [{"run": ["{python}", "{video}"], "cwd": "{work}/x"}], "collect": "*.wav"}
    path = tmp_path / "steps.yaml"
    path.write_text(yaml.safe_dump(good))
    read_steps(path, ())
    path.write_text(yaml.safe_dump(good | change))
    with pytest.raises(UsageError) as caught:
        call("setup", "frieren", "--steps", str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert read_site("frieren").steps is None
    monkeypatch.setenv("AV_BENCH_FRIEREN_STEPS", str(path))
    assert message in baseline_error("frieren")  # and one that was broken later is said, not run
    with pytest.raises(UsageError, match="not run by steps"):
        call("setup", "tango", "--steps", str(path))


def test_a_second_environment_is_asked_for_where_steps_name_it() -> None:
    vatt, frieren, prism = (load_manifest(name) for name in ("vatt", "frieren", "prismaudio"))
    here = Site(python=sys.executable, repo="/", weights="/")
    assert missing(vatt, here) == ["python2 is not set"]
    assert missing(vatt, Site(python=sys.executable, repo="/", weights="/", python2="/no/python")) == [
        "python2 /no/python does not exist"
    ]
    assert missing(frieren, here) == []
    image = Site(image="prism:1", python2="/opt/features/bin/python", repo="/", weights="/")
    assert image.in_container(prism)
    assert missing(prism, image) == []  # a path inside the image


@pytest.mark.parametrize("late", [0.0, 0.48])
@pytest.mark.parametrize("fps", [4, 5, 25, 12.5])
def test_another_frame_rate_keeps_length_and_order(tmp_path: Path, fps: float, late: float) -> None:
    write_video(tmp_path / "film.mp4", seconds=3, fps=25, audio=tone(3.0), video_delay=late)
    copy = silent_copy(tmp_path / "film.mp4", tmp_path / "silent")
    path = at_rate(copy, fps)
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["video"]
        assert float(container.streams.video[0].average_rate or 0) == fps
        frames = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(frames) == pytest.approx((3 + late) * fps, abs=1.0)
    for index, number in enumerate(frames):  # each frame is one shown within half a step of its time
        assert abs(number / 25 - max(0.0, index / fps - late)) <= 0.5 / fps + 1e-9
    written = path.stat().st_mtime_ns
    assert at_rate(copy, fps).stat().st_mtime_ns == written  # made once
    with av.open(str(at_rate(copy, fps, silence=True))) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        assert sound.shape[1] >= len(frames) / fps * container.streams.audio[0].rate
        assert not sound.any()


def test_a_container_gets_both_interpreters_and_the_gpu(tmp_path: Path) -> None:
    site = Site(image="prism:1", python2="/opt/features/bin/python", repo="/official")
    started = launch(load_manifest("prismaudio"), site, tmp_path, "cuda:0").argv
    inside = started[started.index("prism:1") + 1 :]
    assert (inside[0], inside[-1]) == ("python", "/opt/features/bin/python")
    assert started[started.index("--gpus") + 1] == "all"
    assert "--gpus" not in launch(load_manifest("prismaudio"), site, tmp_path, "cpu").argv


def test_the_example_of_the_docs_is_a_steps_file(tmp_path: Path) -> None:
    example = (ROOT / "docs/baselines.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "example.yaml").write_text(example)
    steps, _ = read_steps(tmp_path / "example.yaml", ())
    assert set(yaml.safe_load(example)) == {field.name for field in fields(steps)}  # every key is there


def test_the_table_of_the_docs_is_the_list() -> None:
    assert call("list", "--format", "markdown").strip() in (ROOT / "docs/baselines.md").read_text()
