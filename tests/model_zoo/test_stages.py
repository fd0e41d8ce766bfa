"""Official command lines run stage by stage, on stand-ins for the repositories of the models that are run by steps."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import av_bench
from av_bench.cli.baselines import app
from av_bench.contracts import Clip, ClipSet, Generated, GenerationJob, Reason, UsageError, clip_seed
from model_zoo.baselines import baseline, load, load_manifest
from model_zoo.baselines.load import HERE
from model_zoo.external.silent import at_rate, silent_copy
from tests.media_files import tone, write_video
from tests.model_zoo.official import SCRIPTS, stages, story, write_repository
from tests.model_zoo.second import NUMPY, interpreter, second_python

NAMES = tuple(SCRIPTS)
RATES = {"v-aura": (25, True), "frieren": (4, False), "rewas": (25, False)}
KEPT = {  # what has to be loaded once for all clips
    "rewas": {"control": 1, "encoder 24-01-04T16-39-21": 1},
    "seeing-and-hearing": {
        "AutoTokenizer Qwen-VL-Chat": 1,
        "AutoModelForCausalLM Qwen-VL-Chat": 1,
        "UNet2DConditionModel audioldm-m-full": 1,
        "AudioLDMPipeline audioldm-m-full": 1,
    },
    "v-aura": {"VAURAModel 24-08-01T08-34-26": 1},
    "frieren": {"cavp": 1, "cfm": 1, "bigvgan": 1},
    "vatt": {"vatt": 1, "LlamaTokenizer vicuna": 1, "AudioGen audiogen_model": 1},
    "thinksound": {"AutoModel metaclip": 1, "T5EncoderModel t5": 1, "state vae.ckpt": 1},
    "prismaudio": {"state vae.ckpt": 1},
    "hunyuanvideo-foley": {"hunyuan": 1},
    "controlfoley": {"controlfoley": 1, "features": 1},
    "genau-large": {"genau": 1},
    "make-an-audio": {"model m.ckpt": 1, "vocoder": 1},
    "make-an-audio-2": {"model m.ckpt": 1, "vocoder": 1},
}
NO_SEED_FLAG = ("v-aura", "frieren", "vatt", "hunyuanvideo-foley", "genau-large", "make-an-audio", "make-an-audio-2")
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
    """A model set up as a user would, with the stand-in repository."""

    def __init__(self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AV_BENCH_HOME", str(folder / "home"))
        self.folder, self.name = folder, name
        self.repo = write_repository(folder / "repo", name)
        (folder / "weights").mkdir()
        more = ["--python2", str(second_python())] if name == "vatt" else []
        said = call(
            *("setup", name, "--python", sys.executable, "--repo", str(self.repo)),
            *("--weights", str(folder / "weights"), *more),
        )
        assert "no CUDA device" in said or "can start" in said
        monkeypatch.setattr(load, "_has_cuda", lambda: True)
        for key in TEXTS:
            (folder / f"{key}.npy").write_text(f"features of {key}")
        extras = [
            {"id": key, "cot": COT, "struct_prompt": f"<{key}& all>", "features": str(folder / f"{key}.npy")}
            for key in TEXTS
        ]
        (folder / "extras.jsonl").write_text("\n".join(map(json.dumps, extras)))

    extras: str | None = "extras.jsonl"

    def own_steps(self, steps: dict[str, Any]) -> Path:
        """Record steps of the user's own."""
        path = self.folder / "steps.yaml"
        path.write_text(yaml.safe_dump(steps))
        call("setup", self.name, "--steps", str(path))
        return path

    def loads(self) -> dict[str, int]:
        """How often what was loaded."""
        return dict(Counter((self.repo / "loads.txt").read_text().splitlines()))

    def place(self, clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = self.folder / f"{clip_id}~{k}{suffix}"
        path.write_bytes(payload)
        return path

    def run(self, clips: tuple[Clip, ...], **options: Any) -> dict[str, Generated]:
        manifest = load_manifest(self.name)
        steps = manifest.driver.steps
        if self.extras is not None and (manifest.conditions.extras or (steps and steps.extras)):
            options.setdefault("extras", str(self.folder / "extras.jsonl"))
        self.generator = baseline(self.name, **options)
        self.generator.setup(ClipSet("toy", "1", clips), 5.0 if self.name == "rewas" else 8.0, 0)
        return {g.clip_id: g for g in self.generator.produce(self.job(clips))}

    def job(self, clips: tuple[Clip, ...]) -> GenerationJob:
        """One sample of each clip, all still to do."""
        todo = tuple((clip, 0) for clip in clips)
        return GenerationJob(clips, todo, 0, 1, "cpu", self.folder / "external", self.place)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        lines = (self.folder / "external/outputs.jsonl").read_text().splitlines()
        return {row["id"]: row for row in map(json.loads, lines)}


def given_video(name: str, clip: Clip) -> str:
    """The sha256 of the video that the official code has to see."""
    assert clip.video is not None
    copy = silent_copy(clip.video)
    path = at_rate(copy, *RATES[name]) if name in RATES else copy.path
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_every_model_starts_with_the_official_flags(
    name: str, tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, name, monkeypatch)
    shorten(setting, name)
    found = setting.run(clips)
    manifest = load_manifest(name)
    for clip in clips:
        path = found[clip.id].path
        assert path is not None, found[clip.id].detail
        told = story(path)
        if manifest.conditions.video != "unused":
            expected = given_video(name, clip) if name != "vatt" else f"features of {clip.id}"
            assert told["video"] == expected
        seed = clip_seed(0, clip.id, 0) % 2**32
        flag = str(random.Random(seed).getrandbits(32)) if name in NO_SEED_FLAG else str(seed)
        assert told["seeds"] == [flag]
        if manifest.conditions.text != "unused" and name not in ("seeing-and-hearing", "prismaudio"):
            assert told["caption"] == (clip.text if name != "genau-large" else str(clip.text).split("\n")[0])
        if "cot" in manifest.conditions.extras:
            assert told["cot"] == COT
        assert [stage[0] for stage in told["stages"]] == stages(name)
        environments = [stage[1] for stage in told["stages"]]
        assert environments == [NUMPY if (name, i) == ("vatt", 1) else np.__version__ for i in range(len(environments))]
        row = setting.rows[clip.id]
        assert manifest.driver.steps is not None
        assert set(row["seconds"]) == {step.part for step in manifest.driver.steps.commands}
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert not found[clip.id].timings  # they hold reading and writing, and the first one loading
    assert setting.loads() == KEPT[name]
    if name == "v-aura":
        assert told["seconds"] == "8.32"
    assert "fingerprint" in setting.generator.describe(tmp_path / "external")


def shorten(setting: Setting, name: str) -> None:
    """The stand-ins write 8 s; ReWaS may give at most 5.12 s."""
    if name == "rewas":
        library = setting.repo / "library.py"
        library.write_text(library.read_text().replace("ljust(8 *", "ljust(5 *"))


@pytest.mark.parametrize("name", ["frieren", "prismaudio", "seeing-and-hearing"])
def test_a_stage_that_breaks_costs_its_clip_and_is_named(
    name: str, tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frieren's stays for all clips, the others are started anew; either way the next clip is made."""
    setting = Setting(tmp_path, name, monkeypatch)
    manifest = load_manifest(name)
    assert manifest.driver.steps is not None
    number = 1 if name == "frieren" else 0
    broken = [stages(name)[number], given_video(name, clips[0])]
    (setting.repo / "broken.json").write_text(json.dumps(broken))
    found = setting.run(clips)
    assert found["dog again"].path is not None
    assert found["dog"].reason is Reason.GENERATOR_FAILED
    steps = manifest.driver.steps.commands
    title = f"stage {number + 1} of {len(steps)} ({steps[number].name}): exit code 3; log ends: "
    assert title in found["dog"].detail
    assert {"loading weights", "CUDA out of memory"} <= set(found["dog"].detail.rpartition("ends: ")[2].split(" | "))
    assert "CUDA out of memory" in (tmp_path / "external/log.txt").read_text()


def test_a_process_that_stays_is_started_again_after_a_crash(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, "hunyuanvideo-foley", monkeypatch)
    infer = setting.repo / "infer.py"
    crash = f"        if digest(row['video']) == {given_video('hunyuanvideo-foley', clips[0])!r}: os._exit(9)\n"
    infer.write_text(infer.read_text().replace("        story = told", crash + "        story = told"))
    found = setting.run(clips)
    assert found["dog"].path is None
    assert "stage 1 of 1 (generation): exit code 9" in found["dog"].detail
    assert found["dog again"].path is not None
    assert setting.loads() == {"hunyuan": 2}


def test_the_order_of_clips_and_a_restart_change_no_sample(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script without a seed flag, in a process that stays: its random state is the clip's own all the same."""
    setting = Setting(tmp_path, "make-an-audio", monkeypatch)
    forwards = {key: story(g.path)["seeds"] for key, g in setting.run(clips).items() if g.path}
    shutil.rmtree(tmp_path / "external")
    backwards = {key: story(g.path)["seeds"] for key, g in setting.run(clips[::-1]).items() if g.path}
    assert forwards == backwards
    assert len({str(seeds) for seeds in forwards.values()}) == 2


def test_another_revision_is_noticed_where_a_text_was_to_be_replaced(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, "seeing-and-hearing", monkeypatch)
    script = setting.repo / "v2a/video2audio.py"
    script.write_text(script.read_text().replace("config_seed_dict[video_name]", "30"))
    found = setting.run(clips)
    assert all(g.path is None and "not the revision of the manifest" in g.detail for g in found.values())


def test_other_options_and_other_steps_are_not_taken_silently(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(tmp_path, "frieren", monkeypatch)
    with pytest.raises(UsageError, match="run by steps, write guidance there"):
        setting.run(clips, guidance=3.0)
    steps = setting.own_steps(yaml.safe_load((HERE / "frieren.yaml").read_text())["driver"]["steps"])
    setting.run(clips)
    said = setting.generator.describe(tmp_path / "external")
    assert said["fingerprint"]["steps"] == said["steps"] == hashlib.sha256(steps.read_bytes()).hexdigest()
    steps.write_text(steps.read_text() + "\n# changed\n")
    with pytest.raises(UsageError, match="started with a different model"):
        setting.run(clips)
    with pytest.raises(UsageError, match="started with a different model"):
        setting.generator.finish(setting.job(clips))


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
        "sound('out/20260101/' + line['n'] + '.wav', story)\nsound('out/20260101/reference.wav', {})\n"
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
    (tmp_path / "extras.jsonl").unlink()
    monkeypatch.setattr(Setting, "extras", None)
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
    setting = Setting(tmp_path, "vatt", monkeypatch)
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for clip in clips:
        assert clip.video is not None
        name = clip.id.replace(" ", "_")
        shutil.copyfile(clip.video, data / f"{name}.mp4")
        rows.append(json.dumps({"id": name, "features": str(setting.folder / f"{clip.id}.npy")}))
    (tmp_path / "extras.jsonl").write_text("\n".join(rows))
    model = f"vatt:extras={tmp_path / 'extras.jsonl'}"
    result = av_bench.run(
        set="clips",
        data=data,
        model=model,
        protocol="nano",
        metrics=("KL-nano",),
        out=tmp_path / "run",
        quiet=True,
        workers=1,
    )
    assert result.exit_code == 0
    assert result.scores["counts"]["scored"] == 2
    said = json.loads((tmp_path / "run/run.json").read_text())["generator"]
    assert said["driver_status"] == "untested"
    assert "seconds_per_sample" not in said


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_driver_runs_on_old_and_new_pythons(
    tmp_path: Path, version: str, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interpreter is the model's; the second one of this test has what the stand-in asks for."""
    setting = Setting(tmp_path, "thinksound", monkeypatch)
    steps = yaml.safe_load((HERE / "thinksound.yaml").read_text())["driver"]["steps"]
    for command in steps["commands"]:
        command["run"][0] = "{python2}"
    setting.own_steps(steps)
    call("setup", "thinksound", "--python", str(interpreter(version)), "--python2", sys.executable)
    found = setting.run(clips)
    assert all(g.path is not None for g in found.values()), found
    assert setting.generator.describe(tmp_path / "external")["fingerprint"]["python"].startswith(version)
