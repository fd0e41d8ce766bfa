"""The example plugin, installed into an environment of its own and used from the command line."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.forks import Forks
from tests.media_files import tone, write_video
from tests.program import program

EXAMPLE = ROOT / "examples/plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees this environment's packages and, besides, the installed plugin."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    interpreter = folder / "env/bin/python"
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([str(interpreter), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    parents = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (Path(own) / "parent.pth").write_text(parents)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", own]
    subprocess.run([sys.executable, *install, str(folder / "source")], check=True)
    return interpreter


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i, pitch in enumerate((300.0, 1200.0, 2500.0)):
        write_video(folder / f"clip{i}.mp4", seconds=8, size=48, audio=tone(8.0, hertz=pitch))
    return folder


@pytest.fixture(scope="module")
def server(python: Path) -> Iterator[Forks]:
    """av-bench of that interpreter; nothing of the plugin is imported before a command needs it."""
    with program(str(python)) as started:
        yield started


def av_bench(server: Forks, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return server.output(["av-bench", *args], cwd, {"AV_BENCH_HOME": str(cwd / "home")})


def test_model_set_protocol_extractor_and_metric_make_a_table(server: Forks, data: Path, tmp_path: Path) -> None:
    args = ["run", "--model", "example-tone:base=400", "--set", "example-clips", "--data", str(data)]
    done = av_bench(server, *args, "--out", "run", "--metrics", "+FD-centroid", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Centroid gap (kHz)" in done.stdout
    assert "an example, not a measure of quality" in done.stdout
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["protocol"]["name"] == "example-2s"
    assert scores["metrics"]["Centroid gap"]["n"] == 3
    assert scores["metrics"]["Centroid gap"]["value"] == pytest.approx(0.9, abs=0.3)  # pitches 0.4-0.8 against 0.3-2.5
    assert scores["metrics"]["FD-centroid"]["value"] > 0


def test_a_metric_of_a_plugin_joins_a_shipped_protocol(server: Forks, data: Path, tmp_path: Path) -> None:
    args = ["run", "--model", "oracle", "--set", "clips", "--data", str(data), "--protocol", "greatest_hits-8s"]
    done = av_bench(server, *args, "--out", "run", "--metrics", "+centroid_gap", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["metrics"]["centroid_gap"]["value"] == pytest.approx(0.0, abs=1e-4)


def test_everything_is_listed(server: Forks, tmp_path: Path) -> None:
    for group, name in (("models", "example-tone"), ("sets", "example-clips"), ("protocols", "example-2s"),
                        ("metrics", "centroid_gap"), ("extractors", "example-centroid")):  # fmt: skip
        done = av_bench(server, "list", group, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "args", "expected"),
    [
        (
            "extractor.py",
            "        window = torch.hann_window",
            "        raise ValueError('boom')\n        window = torch.hann_window",
            ["--set", "example-clips"],
            r"extractor example-centroid (av-bench-example 1.0.0), clip clip0: ValueError: boom",
        ),
        (
            "metric.py",
            "        values: NDArray",
            "        raise KeyError('lost')\n        values: NDArray",
            ["--set", "example-clips"],
            "column Centroid gap: KeyError: 'lost'",
        ),
        (
            "model.py",
            "        for clip in clips:",
            "        raise RuntimeError('no luck')\n        for clip in clips:",
            ["--set", "example-clips"],
            "model example-tone (av_bench_example.model), before the first sample: RuntimeError: no luck",
        ),
        (
            "extractor.py",
            "    def forward(",
            "    def backward(",
            ["--set", "example-clips"],
            "(av_bench_example.extractor:SpectralCentroid): SpectralCentroid lacks forward",
        ),
        (
            "model.py",
            "class Tone(Generator)",
            "class Tone",
            ["--set", "example-clips"],
            "model 'example-tone' (av_bench_example.model:Tone): must be a subclass of av_bench.contracts.SampleSource",
        ),
    ],
)
def test_a_fault_of_a_plugin_names_it(
    python: Path,
    server: Forks,
    data: Path,
    tmp_path: Path,
    file: str,
    old: str,
    new: str,
    args: list[str],
    expected: str,
) -> None:
    code = "import av_bench_example; print(av_bench_example.__file__)"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip()).with_name(file)
    good = path.read_text()
    assert old in good
    try:
        path.write_text(good.replace(old, new, 1))
        done = av_bench(
            server,
            "run",
            "--model",
            "example-tone",
            *args,
            "--data",
            str(data),
            "--out",
            "run",
            "--quiet",
            cwd=tmp_path,
        )
    finally:
        path.write_text(good)
    assert done.returncode == 5
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_its_own_tests_pass(server: Forks) -> None:
    done = server.output(["pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")], EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
