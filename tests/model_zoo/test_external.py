"""Fake generators in a real second environment, through the real contract: each fault gives its reason and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from av_bench.contracts import (
    Clip,
    ClipSet,
    Generated,
    GenerationJob,
    MediaError,
    MissingRequirement,
    Reason,
    UsageError,
    VideoRequest,
)
from av_bench.media.decode import decode
from model_zoo.baselines import baseline, load_manifest
from model_zoo.baselines.site import Site
from model_zoo.external import process, runner
from model_zoo.external.checks import Native, common_level
from model_zoo.external.generator import ExternalProgram
from model_zoo.external.silent import silent_copy
from tests.conftest import ROOT
from tests.jobs import job_for
from tests.media_files import tone, write_video
from tests.model_zoo.second import NUMPY, second_python, write_manifest

COUNT = 5


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    """Five short videos with sound."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(COUNT):
        write_video(folder / f"clip_{i}.mp4", seconds=0.4, size=48, audio=tone(0.4, hertz=200 + 100 * i))
    return tuple(Clip(f"clip_{i}", folder / f"clip_{i}.mp4", text="a tone") for i in range(COUNT))


@pytest.fixture(scope="session")
def python() -> Path:
    return second_python()


class Bench:
    """A fake generator with a job folder, and what came out of it."""

    def __init__(self, folder: Path, python: Path, kind: str, *more: str, **changes: object) -> None:
        self.folder = folder
        manifest = load_manifest(str(write_manifest(folder, kind, *more, **changes)))
        self.generator = ExternalProgram(manifest, Site(python=str(python)))
        self.files: dict[tuple[str, int], Path] = {}
        (folder / "audio").mkdir(exist_ok=True)

    def place(self, clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = self.folder / "audio" / f"{clip_id}~{k}{suffix}"
        path.write_bytes(payload)
        self.files[clip_id, k] = path
        return path

    def run(self, clips: tuple[Clip, ...], samples: int = 1) -> dict[str, Generated]:
        self.generator.setup(ClipSet("toy", "1", clips), 8.0, 0)
        todo = [(clip, k) for clip in clips for k in range(samples)]
        todo = [(clip, k) for clip, k in todo if (clip.id, k) not in self.files]
        job = GenerationJob(clips, tuple(todo), 0, samples, "cpu", self.folder / "external", self.place)
        found = self.generator.produce(job)
        return {f"{g.clip_id}~{g.sample}" if samples > 1 else g.clip_id: g for g in found}

    @property
    def problems(self) -> list[str]:
        path = self.folder / "external/problems.json"
        return json.loads(path.read_text()) if path.is_file() else []


def reasons(found: dict[str, Generated]) -> dict[str, Reason]:
    return {name: g.reason for name, g in found.items() if g.reason is not None}


def test_honest_samples_come_as_the_model_wrote_them(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    bench = Bench(tmp_path, python, "sine")
    found = bench.run(clips, samples=2)
    assert not reasons(found)
    assert len(bench.files) == 2 * COUNT
    data, rate = soundfile.read(bench.files["clip_1", 1])
    assert (rate, len(data)) == (16_000, 8 * 16_000)
    assert not np.array_equal(data, soundfile.read(bench.files["clip_1", 0])[0])
    warm = [name for name, g in found.items() if g.timings]
    assert warm == [f"clip_{i}~{k}" for i in range(COUNT) for k in range(2)][2:]  # the first two warm up
    assert set(found["clip_4~0"].timings) == {"features", "generation"}
    said = bench.generator.describe(tmp_path / "external")
    assert said["parameters"] == {"count": 12_345, "source": "measured"}
    assert said["fingerprint"]["packages"] == {"numpy": NUMPY}
    assert not list((tmp_path / "external/outputs").iterdir())


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("nan", None, "NaN"),
        ("other-rate", None, "22050 Hz"),
        ("long", None, "11.000 s"),
        ("crash", Reason.CRASHED, "exit code 7; log ends: device-side assert"),
        ("fails", Reason.GENERATOR_FAILED, "the model says no"),
        ("missing", Reason.MISSING_SAMPLE, "gave no row"),
        ("twice", Reason.DUPLICATE_STEM, "two rows"),
        ("escape-climb", Reason.PATH_ESCAPE, "must not contain '..'"),
        ("escape-absolute", Reason.PATH_ESCAPE, "relative"),
        ("escape-link", Reason.PATH_ESCAPE, "symbolic link"),
        ("escape-folder", Reason.PATH_ESCAPE, "symbolic link"),
        ("says-rate", Reason.WRONG_RATE, "44100"),
        ("says-length", Reason.WRONG_LENGTH, "128001"),
        ("no-file", Reason.MISSING_FILE, "nowhere.wav"),
        ("text", Reason.UNREADABLE, "not a wav or flac"),
        ("typo", Reason.GENERATOR_FAILED, "Did you mean 'sample_rate'"),
        ("other-seed", Reason.GENERATOR_FAILED, "asked for was"),
    ],
)
def test_each_fault_has_its_reason(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...], kind: str, reason: Reason | None, detail: str
) -> None:
    """Faults of clip_2 leave the others alone; the three without a reason here are faults of every clip."""
    found = Bench(tmp_path, python, kind).run(clips)
    assert set(found) == {clip.id for clip in clips}
    whole = {"nan": Reason.NOT_FINITE, "other-rate": Reason.WRONG_RATE, "long": Reason.WRONG_LENGTH}
    if reason is None:
        assert reasons(found) == {clip.id: whole[kind] for clip in clips}
    else:
        assert reasons(found) == {"clip_2": reason}
    assert detail in found["clip_2"].detail


def test_a_slow_item_is_ended_and_the_rest_goes_on(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    bench = Bench(tmp_path, python, "slow", driver={"item_s": 1.0})
    found = bench.run(clips)
    assert reasons(found) == {"clip_2": Reason.TIMEOUT}
    assert "no sample within 1 s" in found["clip_2"].detail
    assert not _alive(tmp_path)


def test_time_for_the_whole_list(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    bench = Bench(tmp_path, python, "steady", "0.4")
    bench.generator.given["timeout"] = 1.5
    late = reasons(bench.run(clips))
    assert set(late.values()) == {Reason.TIMEOUT}
    assert 0 < len(late) < COUNT
    assert "clip_0" not in late


def test_a_model_that_never_loads(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    found = Bench(tmp_path, python, "hangs-at-load", driver={"load_s": 0.7, "item_s": 0.3}).run(clips)
    assert reasons(found) == {clip.id: Reason.TIMEOUT for clip in clips}


def test_a_model_that_cannot_start_is_not_started_for_every_item(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...]
) -> None:
    found = Bench(tmp_path, python, "import-error").run(clips)
    assert reasons(found) == {clip.id: Reason.CRASHED for clip in clips}
    assert "model_of_the_year" in found["clip_0"].detail
    assert (tmp_path / "external/log.txt").read_text().count("Traceback") == 1


def test_crashes_in_a_row_end_the_job(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(runner, "start", lambda *given: started.append(given) or process.start(*given))
    found = Bench(tmp_path, python, "crash-late").run(
        (*clips, replace(clips[0], id="clip_5"), replace(clips[0], id="clip_6"))
    )
    assert reasons(found) == {f"clip_{i}": Reason.CRASHED for i in range(2, 7)}
    assert len(started) == 3  # nobody waits for the same crash once per clip of a long list


def test_a_text_is_said_to_be_a_label_or_a_caption(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    given = (replace(clips[0], label="a tone"), replace(clips[1], label="music"), replace(clips[2], text=None))
    bench = Bench(tmp_path, python, "sine", task="tv2a", conditions={"video": "required", "text": "optional"})
    bench.run(given)
    items = [json.loads(line) for line in (tmp_path / "external/items.jsonl").read_text().splitlines()]
    assert [(i["text"], i["text_kind"]) for i in items] == [("a tone", "label"), ("a tone", "caption"), (None, "none")]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("stranger", "was not asked for"),
        ("garbage", "a row of no item"),
        ("miscounts", "result.json counts 8 rows, 5 were written"),
    ],
)
def test_problems_that_belong_to_no_item_are_kept(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...], kind: str, problem: str
) -> None:
    bench = Bench(tmp_path, python, kind)
    assert not reasons(bench.run(clips))
    assert any(problem in text for text in bench.problems)
    assert bench.generator.describe(tmp_path / "external")["problems"] == bench.problems


def test_a_loudness_set_afterwards_shows(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    honest, cheat = (Bench(tmp_path / kind, python, kind) for kind in _folders(tmp_path, "sine", "cheat"))
    honest.run(clips)
    cheat.run(clips)
    assert honest.generator.flags(honest.files) == {}
    flagged = cheat.generator.flags(cheat.files)
    assert set(flagged) == set(cheat.files)
    assert {reason for reason, _ in flagged.values()} == {Reason.LOUDNESS_CHANGED}
    declared = Bench(tmp_path / "cheat", python, "cheat", self_normalised=True)
    assert declared.generator.flags(cheat.files) == {}
    assert common_level(list(cheat.files.values())[:3]) is None  # three files are not evidence


def test_the_child_sees_no_sound_no_token_and_no_path_of_ours(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bench = Bench(tmp_path, python, "environment", str(tmp_path / "seen.json"))
    bench.run(clips)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["numpy"] == NUMPY != np.__version__
    assert "HF_TOKEN" not in seen["env"]
    assert str(ROOT) not in seen["path"]
    assert seen["env"]["HF_HUB_OFFLINE"] == "1"
    for line in (tmp_path / "external/items.jsonl").read_text().splitlines():
        with av.open(json.loads(line)["video"]) as container:
            assert [s.type for s in container.streams] == ["video"]


def test_two_at_once_keep_apart(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    kinds = _folders(tmp_path, "sine", "silence", "alone")
    benches = [Bench(tmp_path / kind, python, "sine" if kind == "alone" else kind) for kind in kinds]
    threads = [threading.Thread(target=bench.run, args=(clips,)) for bench in benches[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    benches[2].run(clips)
    both, alone = benches[0].files, benches[2].files
    assert {key: path.read_bytes() for key, path in both.items()} == {key: p.read_bytes() for key, p in alone.items()}
    assert all(not soundfile.read(path)[0].any() for path in benches[1].files.values())
    assert len(benches[1].files) == COUNT


def test_a_container_runs_the_same_contract(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    """A stand-in engine that runs what follows the image: the arguments are those of docker and podman."""
    engine = tmp_path / "engine"
    engine.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(tmp_path / 'argv.jsonl')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "if sys.argv[1] == 'run':\n"
        "    rest = sys.argv[sys.argv.index('some/image:1') + 1:]\n"
        "    pairs = [sys.argv[i + 1].split('=', 1) for i, a in enumerate(sys.argv) if a == '--env']\n"
        "    os.execve(rest[0], rest, {**os.environ, **dict(pairs)})\n"
    )
    engine.chmod(0o755)
    command = [str(python), str(Path(__file__).with_name("fake_driver.py")), "sine", "{request}"]
    driver = {"image": "some/image:1", "command": command}
    path = write_manifest(tmp_path, "sine", modes=["container"], driver=driver)
    bench = Bench(tmp_path, python, "sine", modes=["container"], driver=driver)
    bench.generator = ExternalProgram(load_manifest(str(path)), Site(engine=str(engine)))
    assert not reasons(bench.run(clips))
    run = json.loads((tmp_path / "argv.jsonl").read_text().splitlines()[0])
    assert run[:4] == ["run", "--rm", "--name", run[3]]
    assert run[run.index("--network") + 1] == "none"
    mounts = [run[i + 1] for i, part in enumerate(run) if part == "--volume"]
    assert [m for m in mounts if not m.endswith(":ro")] == [f"{tmp_path / 'external'}:{tmp_path / 'external'}"]
    assert not any(str(clips[0].video.parent) in m for m in mounts if clips[0].video)  # the films with sound stay out


def test_another_manifest_does_not_go_on_with_the_job(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    Bench(tmp_path, python, "sine").run(clips[:2])
    with pytest.raises(UsageError, match="started with a different model"):
        Bench(tmp_path, python, "sine", title="changed").run(clips)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"native": {"max_s": 5.0}}, "at most 5 s"),
        ({"conditions": {"video": "required", "text": "required"}}, "needs text"),
        ({"conditions": {"video": "required", "text": "unused", "extras": ["cot"]}}, "needs cot"),
        ({"driver": {"command": ["{pythn}"]}}, "placeholder 'pythn'"),
        ({"driver": {"command": ["/no/such/program"]}}, "cannot start /no/such/program"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, python: Path, clips: tuple[Clip, ...], changes: dict[str, object], message: str
) -> None:
    bench = Bench(tmp_path, python, "sine", **changes)
    with pytest.raises(UsageError, match=message):
        bench.run(tuple(replace(clip, text=None) for clip in clips))


def test_a_missing_interpreter_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"python is not set.*setup fake-sine --print"):
        baseline(str(write_manifest(tmp_path, "sine")))


def test_the_contract_of_sample_sources(tmp_path: Path, python: Path, clips: tuple[Clip, ...]) -> None:
    """A file, or a reason where there is no sample, for every clip."""
    generator = Bench(tmp_path, python, "fails").generator
    generator.setup(ClipSet("toy", "1", clips), 8.0, 0)
    found = {g.clip_id: g for g in generator.produce(job_for(clips, folder=tmp_path))}
    assert sorted(found) == [clip.id for clip in clips]
    assert found[clips[2].id].reason is Reason.GENERATOR_FAILED
    path = found[clips[0].id].path
    assert path is not None
    assert soundfile.info(path).frames == 128_000


@pytest.mark.parametrize(
    ("native", "seconds", "wanted"),
    [
        (Native(step_s=0.64), 8.0, 8.32),
        (Native(min_s=10.0, max_s=10.0), 8.0, 10.0),
        (Native(max_s=5.12), 8.0, None),
        (Native(max_s=5.12), 5.0, 5.0),
        (Native(), 8.0, 8.0),
        (Native(min_s=8.2, max_s=8.2), 8.0, 8.2),
    ],
)
def test_lengths_a_model_gives(native: Native, seconds: float, wanted: float | None) -> None:
    assert native.request(seconds) == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_the_silent_copy_has_the_same_picture(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"film{suffix}"
    write_video(source, seconds=1, size=48, audio=tone(1.0, channels=2))
    copy = silent_copy(source, tmp_path / "silent")
    with av.open(str(source)) as a, av.open(str(copy.path)) as b:
        assert [s.type for s in b.streams] == ["video"]
        packets = [[bytes(p) for p in c.demux(c.streams.video[0]) if p.size] for c in (a, b)]
    assert packets[0] == packets[1]
    request = VideoRequest(25, 32)
    first, second = (decode(p, [request], 1.0, audio=False).frames(request) for p in (source, copy.path))
    assert first.shape[0] == 25
    assert bool((first == second).all())
    assert (copy.fps, copy.width, copy.height) == (25.0, 48, 48)
    written = copy.path.stat().st_mtime_ns
    assert silent_copy(source, tmp_path / "silent").path.stat().st_mtime_ns == written  # made once
    soundfile.write(tmp_path / "a.wav", tone(0.1)[0], 44_100)
    with pytest.raises(MediaError, match="no-video"):
        silent_copy(tmp_path / "a.wav", tmp_path / "silent")


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_helper_runs_on_old_and_new_pythons(tmp_path: Path, version: str, clips: tuple[Clip, ...]) -> None:
    """Standard library only: plain lists in, float WAV out."""
    python = _interpreter(version)
    script = tmp_path / "driver.py"
    script.write_text(
        "from avbench_driver import Job\njob = Job.from_arguments()\n"
        "job.run(lambda item: ([[0.25, -0.5] * 8000, [0.125] * 16000], 16000))\n"
    )
    bench = Bench(tmp_path, python, "plain", driver={"command": ["{python}", str(script), "{request}"]})
    assert not reasons(bench.run(clips))
    data, rate = soundfile.read(bench.files["clip_0", 0])
    assert (rate, data.shape) == (16_000, (16_000, 2))
    assert data[:2].tolist() == [[0.25, 0.125], [-0.5, 0.125]]


def _interpreter(version: str) -> Path:
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found.append(Path(folder) / f"python{version}")
    for path in found:
        if path.is_file() and not subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
            return path
    pytest.skip(f"no Python {version} on this machine")


def _folders(root: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (root / name).mkdir()
    return names


def _alive(folder: Path) -> bool:
    """Whether a process of the last child's group is left."""
    group = json.loads((folder / "external/child.json").read_text())["group"]
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
