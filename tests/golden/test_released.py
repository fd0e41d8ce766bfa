"""`av-bench accept` end to end on files of derived weights in the released formats, at full size (1.8 GB on disk)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from av_bench.accept.report import read_items
from av_bench.cli.app import app
from protocols import load_set
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips
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


def test_the_row_of_table_1_is_set_beside_those_that_were_reported(home: Path, tmp_path: Path) -> None:
    """The whole command with one network: two rendered clips named as VGGSound's, scored against themselves."""
    released.write(home, ["vggish"])
    videos = tmp_path / "videos"
    videos.mkdir()
    names = ["0B4dYTMsgHA_000130", "3qesirWAGt4_000020"]
    for name, clip in zip(names, read_clips(load_set("impacts"), SetRequest(limit=2)).clips, strict=True):
        assert clip.video is not None
        (videos / f"{name}.mp4").symlink_to(clip.video)
    (tmp_path / "list.tsv").write_text("id\tlabel\n" + "".join(f"{name}\tan impact\n" for name in names))
    words = ["accept", "--out", str(home / "a"), "--only", "vggish", "--clips", "1", "--quiet", "--table1", "oracle"]
    words += ["--metrics", "FD-VGG", "--data", str(videos), "--lists", str(tmp_path / "list.tsv"), "--limit", "2"]
    told = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert "| not a result: oracle with other weights | 0.000 | 2 |" in told
    assert "| MMAudio-S-16kHz (reported) | 0.79 |  |" in told
    assert "| MMAudio-S-16kHz (MMAudio issue 90 (third party)) | 0.7972 |  |" in told
    assert "On 2 clips FD and IS are not comparable with the full set's." in told
    assert "## Models" not in told
    row = json.loads((home / "a/accept.json").read_text())["table1"]
    assert (row["model"], row["n"]) == ("not a result: oracle with other weights", 2)
    assert row["metrics"] == {"FD-VGG": pytest.approx(0, abs=1e-4)}


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
