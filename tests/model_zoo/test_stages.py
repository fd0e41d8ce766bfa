"""Official command lines run stage by stage, on stand-ins for the repositories of the seven models that need steps."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import av_bench
from av_bench.cli.baselines import app
from av_bench.contracts import Clip, ClipSet, Generated, GenerationJob, Reason, UsageError, clip_seed
from model_zoo.baselines import baseline, load_manifest
from model_zoo.external.silent import at_rate, silent_copy
from tests.jobs import job_for
from tests.media_files import tone, write_video
from tests.model_zoo.official import FILLED, SCRIPTS, story, write_repository
from tests.model_zoo.second import NUMPY, second_python
from tests.model_zoo.test_external import _interpreter

SEVEN = tuple(SCRIPTS)
TWO_ENVIRONMENTS = ("vatt", "prismaudio")
RATES = {"v-aura": 25, "frieren": 4, "vatt": 5}
AWKWARD = 'a "dog", {barks} at {0} {text} {{twice}}\n"then"; \\n $(ls) <b>%s</b> \u00fcn\u00ef \u2028 \u85fb \'end\''
COT = '<think> {cot} step 1,\n\tstep "2" {"a": [1]} </think>'
TEXTS = {"dog": AWKWARD, "dog again": AWKWARD + ", {id}"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    """Two videos of 8 s with sound; the second one has twice the frame rate."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(TEXTS):
        write_video(folder / f"{name}.mp4", seconds=8, fps=12 * (1 + number), size=48, audio=tone(8.0))
    return tuple(Clip(name, folder / f"{name}.mp4", text=text) for name, text in TEXTS.items())


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


class Setting:
    """A model set up as a user would: the printed template filled in and recorded, with the stand-in repository."""

    def __init__(self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AV_BENCH_HOME", str(folder / "home"))
        self.folder, self.name = folder, name
        self.repo = write_repository(folder / "repo", name)
        template = call("setup", name, "--print")
        for place, text in FILLED[name].items():
            assert place in template
            template = template.replace(place, text)
        (folder / "steps.yaml").write_text(template)
        (folder / "weights").mkdir()
        more = ["--python2", str(second_python())] if name in TWO_ENVIRONMENTS else []
        said = call(
            *("setup", name, "--python", sys.executable, "--repo", str(self.repo), "--steps"),
            *(str(folder / "steps.yaml"), "--weights", str(folder / "weights"), *more),
        )
        assert "can start" in said
        lines = [json.dumps({"id": key, "cot": COT}) for key in TEXTS]
        (folder / "extras.jsonl").write_text("\n".join(lines))

    def place(self, clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = self.folder / f"{clip_id}~{k}{suffix}"
        path.write_bytes(payload)
        return path

    def run(self, clips: tuple[Clip, ...], **options: Any) -> dict[str, Generated]:
        if load_manifest(self.name).conditions.extras:
            options["extras"] = str(self.folder / "extras.jsonl")
        self.generator = baseline(self.name, **options)
        self.generator.setup(ClipSet("toy", "1", clips), 5.0 if self.name == "rewas" else 8.0, 0)
        todo = tuple((clip, 0) for clip in clips)
        job = GenerationJob(clips, todo, 0, 1, "cpu", self.folder / "external", self.place)
        found = self.generator.produce(job)
        return {g.clip_id: g for g in found}

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        lines = (self.folder / "external/outputs.jsonl").read_text().splitlines()
        return {row["id"]: row for row in map(json.loads, lines)}


def given_video(name: str, clip: Clip) -> str:
    """The sha256 of the video that the official code has to see."""
    assert clip.video is not None
    copy = silent_copy(clip.video)
    path = at_rate(copy, RATES[name]) if name in RATES else copy.path
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", SEVEN)
def test_each_of_the_seven_can_be_run_by_steps(
    name: str, tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, name, monkeypatch)
    if name == "rewas":  # at most 5.12 s; the stand-in writes 8 s
        library = setting.repo / "library.py"
        library.write_text(library.read_text().replace("ljust(8 *", "ljust(5 *"))
    found = setting.run(clips)
    manifest = load_manifest(name)
    for clip in clips:
        path = found[clip.id].path
        assert path is not None, found[clip.id].detail
        told = story(path)
        assert told["video"] == given_video(name, clip)
        assert told["seeds"] == [str(clip_seed(0, clip.id, 0) % 2**32)]
        if manifest.conditions.text != "unused":
            assert told["caption"] == clip.text
        if manifest.conditions.extras:
            assert told["cot"] == COT
        assert [Path(script).name for script in SCRIPTS[name]] == [stage[0] for stage in told["stages"]]
        environments = [stage[1] for stage in told["stages"]]
        second = {"vatt": 2, "prismaudio": 0}.get(name)
        assert environments == [NUMPY if i == second else np.__version__ for i in range(len(environments))]
        assert {stage[2] for stage in told["stages"]} == {"v2a" if name == "seeing-and-hearing" else "repo"}
        row = setting.rows[clip.id]
        assert manifest.driver.steps is not None
        assert set(row["seconds"]) == {step.part for step in manifest.driver.steps.commands}
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert not found[clip.id].timings  # processes that load a model are no measure of it
    if name == "v-aura":
        assert told["seconds"] == "8.32"
    said = setting.generator.describe(tmp_path / "external")
    digest = hashlib.sha256((tmp_path / "steps.yaml").read_bytes()).hexdigest()
    assert said["fingerprint"]["steps"] == said["steps"] == digest


@pytest.mark.parametrize("name", SEVEN)
def test_a_stage_that_breaks_costs_its_clip_and_is_named(
    name: str, tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, name, monkeypatch)
    scripts = list(SCRIPTS[name])
    number = len(scripts) // 2
    broken = [Path(scripts[number]).name, given_video(name, clips[0])]
    (setting.repo / "broken.json").write_text(json.dumps(broken))
    library = setting.repo / "library.py"
    library.write_text(library.read_text().replace("ljust(8 *", "ljust(5 *"))
    found = setting.run(clips)
    assert found["dog again"].path is not None
    assert found["dog"].reason is Reason.GENERATOR_FAILED
    title = yaml.safe_load((tmp_path / "steps.yaml").read_text())["commands"][number]["name"]
    expected = f"stage {number + 1} of {len(scripts)} ({title}): exit code 3; log ends: "
    assert expected in found["dog"].detail
    assert {"loading weights", "CUDA out of memory"} <= set(found["dog"].detail.rpartition("ends: ")[2].split(" | "))
    assert "CUDA out of memory" in (tmp_path / "external/log.txt").read_text()


def test_other_options_and_other_steps_are_not_taken_silently(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, "frieren", monkeypatch)
    with pytest.raises(UsageError, match="run by steps, write guidance there"):
        setting.run(clips, guidance=3.0)
    setting.run(clips)
    steps = tmp_path / "steps.yaml"
    steps.write_text(steps.read_text() + "\n# changed\n")
    with pytest.raises(UsageError, match="started with a different model"):
        setting.run(clips)
    with pytest.raises(UsageError, match="started with a different model"):
        setting.generator.finish(job_for(clips, folder=tmp_path))


def test_steps_of_the_users_own(tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Features from the extras file, a JSON line, variables, a folder of one's own, and the older of two files."""
    setting = Setting(tmp_path, "vatt", monkeypatch)
    (tmp_path / "eva.npy").write_text("features of a video")
    script = setting.repo / "own.py"
    script.write_text(
        "import os, sys, json\nfrom pathlib import Path\n"
        "sys.path.insert(0, os.environ['REPO'])\nfrom library import *\n"
        "line = json.loads(Path('in.jsonl').read_text())\n"
        "story = dict(line, cwd=os.getcwd(), feature=Path('features/f.npy').read_text(), env=os.environ['KEY'])\n"
        "story['path'] = os.environ.get('PYTHONPATH')\n"
        "sound('out/20260101', line['n'] + '.wav', story)\nsound('out/20260101', 'reference.wav', {})\n"
    )
    own = {
        "extras": ["eva"],
        "copy": {"features/f.npy": "{eva}"},
        "jsonl": {
            "file": "in.jsonl",
            "fields": {"n": "{name}", "t": "{text}", "k": 7, "deep": {"list": ["{id}", None]}},
        },
        "commands": [
            {"run": ["{python}", "{repo}/own.py"], "cwd": "{work}", "env": {"KEY": "{text}", "REPO": "{repo}"}}
        ],
        "collect": "*/{name}.wav",
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    call("setup", "vatt", "--steps", str(tmp_path / "own.yaml"))
    with pytest.raises(UsageError, match="needs eva for every clip"):
        setting.run(clips)
    extras = tmp_path / "extras.jsonl"
    extras.write_text("\n".join(json.dumps({"id": key, "eva": str(tmp_path / "eva.npy")}) for key in TEXTS))
    found = setting.run(clips, extras=str(extras))
    for clip in clips:
        path = found[clip.id].path
        assert path is not None, found[clip.id].detail
        told = story(path)
        assert (told["t"], told["env"], told["deep"]) == (clip.text, clip.text, {"list": [clip.id, None]})
        assert (told["feature"], told["k"], told["path"]) == ("features of a video", 7, None)
        assert Path(str(told["cwd"])).is_relative_to(tmp_path / "external")


def test_a_whole_run_with_two_environments(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Setting(tmp_path, "vatt", monkeypatch)
    data = tmp_path / "data"
    data.mkdir()
    for clip in clips:
        assert clip.video is not None
        shutil.copyfile(clip.video, data / f"{clip.id.replace(' ', '_')}.mp4")
    result = av_bench.run(
        set="clips", data=data, model="vatt", metrics=("KL-nano",), out=tmp_path / "run", quiet=True, workers=1
    )
    assert result.exit_code == 0
    assert result.scores["counts"]["scored"] == 2
    said = json.loads((tmp_path / "run/run.json").read_text())["generator"]
    assert said["driver_status"] == "steps of the user's own"
    assert said["fingerprint"]["steps"] == hashlib.sha256((tmp_path / "steps.yaml").read_bytes()).hexdigest()
    assert "seconds_per_sample" not in said


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_driver_runs_on_old_and_new_pythons(
    tmp_path: Path, version: str, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interpreter is the model's; the second one of this test has what the stand-in asks for."""
    setting = Setting(tmp_path, "thinksound", monkeypatch)
    template = (tmp_path / "steps.yaml").read_text()
    (tmp_path / "steps.yaml").write_text(template.replace("'{python}'", "'{python2}'"))
    call("setup", "thinksound", "--python", str(_interpreter(version)), "--python2", sys.executable)
    found = setting.run(clips)
    assert all(g.path is not None for g in found.values()), found
    assert setting.generator.describe(tmp_path / "external")["fingerprint"]["python"].startswith(version)
