"""`av-bench accept` end to end on files of derived weights in the released formats, at full size (1.8 GB on disk)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from av_bench.accept.report import read_items
from av_bench.cli.app import app
from tests.golden import released

pytestmark = [pytest.mark.golden, pytest.mark.paper]
TAGGERS = {"passt": "hear21passt", "panns": "panns_inference", "vggish": "torchvggish"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home whose lock file is the one that pins what the test writes."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path))
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(tmp_path / "lock.yaml"))
    return tmp_path


def test_taggers_in_their_released_formats_pass(home: Path) -> None:
    absent = [package for package in TAGGERS.values() if importlib.util.find_spec(package) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}; pip install 'av-bench[paper]'")
    released.write(home, TAGGERS)
    words = ["accept", "--out", str(home / "a"), "--clips", "1", "--quiet"]
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    assert "6 ok, 0 failed" in first.output
    assert "**Not the released files** (the lock file in use pins others): passt, panns, vggish." in first.output
    items, _ = read_items(home / "a/accept.json")
    shapes = {i.what: {name: value["shape"] for name, value in i.given.items()} for i in items if i.status == "ok"}
    assert shapes["panns"] == {"embedding": [1, 2048], "logits": [1, 527]}
    again = CliRunner().invoke(app, [*words, "--against", str(home / "a/accept.json")], catch_exceptions=False)
    assert again.output.count(f"agrees with {home}/a/accept.json (cpu)") == 3


def test_the_16_khz_codec_in_its_released_formats_loads_and_gives_sound(home: Path) -> None:
    """VAE and vocoder with weight normalisation, from files through the lock to a wave."""
    from model_zoo.mmaudio.codec.published import OfficialCodec

    released.write(home, ["mmaudio-vae-16k", "mmaudio-vocoder-16k"])
    codec = OfficialCodec("16k")
    mean, _ = codec.encode(torch.randn(1, 8 * codec.samples_per_latent) * 0.1)
    wave = codec.decode(mean)
    assert wave.shape == (1, 8 * codec.samples_per_latent)
    assert wave.isfinite().all()
    assert wave.std() > 0
