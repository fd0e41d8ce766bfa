"""`av-bench accept`: what is wrong with a file is found and named, and outputs are compared with those of others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from av_bench.accept import Report, accept, load_known, markdown
from av_bench.accept.known import Comparison
from av_bench.accept.sketch import deviation, summary
from av_bench.accept.trial import Outputs, _outputs
from av_bench.cli.accept import _row_name
from av_bench.cli.app import app
from av_bench.contracts import Clip, ClipSet, MissingRequirement, UsageError
from av_bench.weights.lock import OWN, load_lock, not_released
from tests.extractors.test_sfx import derived_state
from tests.media_files import write_video

Change = Callable[[dict[str, Tensor]], None]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    """One video of 8 s with noise and a caption."""
    path = tmp_path_factory.mktemp("videos") / "one.mp4"
    sound = 0.1 * np.random.default_rng(0).standard_normal((1, 8 * 44_100)).astype(np.float32)
    write_video(path, seconds=8, fps=25, size=32, audio=sound, sample_rate=44_100)
    return ClipSet("toy", "1", (Clip("one", path, text="noise"),))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a home with a file of ``sfx`` that was changed, and a lock file that pins just this file.

    With ``variant`` the lock file says that mmaudio-nano needs the file: it counts as a variant whose files are here.
    """

    def make(change: Change, variant: bool = False) -> Path:
        state = derived_state()
        change(state)
        path = tmp_path / "home/weights/aisfx-0.1.2/sfx.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)
        content = yaml.safe_load(OWN.read_text())
        entry = content["files"]["sfx"]
        entry |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        entry["needed_by"] += ["mmaudio-nano"] * variant
        (tmp_path / "lock.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(tmp_path / "lock.yaml"))
        return path

    return make


def unchanged(state: dict[str, Tensor]) -> None:
    """As released."""


def renamed(state: dict[str, Tensor]) -> None:
    state["fc.0.0.wait"] = state.pop("fc.0.0.weight")


def too_large(state: dict[str, Tensor]) -> None:
    """Finite weights whose products are not."""
    state["fc.0.4.weight"] = torch.full_like(state["fc.0.4.weight"], 3e38)


def result(report: Report, name: str) -> tuple[str, str, str]:
    (item,) = [i for i in (*report.networks, *report.models) if i.what == name]
    return item.status, item.detail, item.compared


@pytest.mark.parametrize(("change", "said"), [(renamed, "fc.0.0.weight"), (too_large, "logits holds NaN or infinity")])
def test_wrong_keys_and_outputs_that_are_no_numbers_fail(
    home: Callable[..., Path], clips: ClipSet, tmp_path: Path, change: Change, said: str
) -> None:
    home(change)
    report = accept(clips, tmp_path / "a")
    status, detail, _ = result(report, "sfx")
    assert (status, report.passed) == ("failed", False)
    assert said in detail
    assert {item.status for item in report.files} == {"ok", "absent"}  # its hash is right


def test_outputs_are_compared_with_those_of_the_same_files(
    home: Callable[..., Path], clips: ClipSet, tmp_path: Path
) -> None:
    home(unchanged, variant=True)
    first = accept(clips, tmp_path / "a", steps=1)
    assert first.passed
    assert first.other_files == ("sfx",)
    assert "**Not the released files** (the lock file in use pins others): sfx." in markdown(first)
    assert result(first, "sfx")[2].startswith("not the released files")
    assert "8.00 s at 16000 Hz" in result(first, "mmaudio-nano")[1]
    kept = tmp_path / "first.json"
    kept.write_text(first.as_json())

    (network,) = (item for item in first.networks if item.what == "sfx")
    again = accept(clips, tmp_path / "b", known=load_known([kept]), steps=1)
    assert again.passed
    for name in ("sfx", "mmaudio-nano"):
        assert result(again, name)[2].startswith(f"agrees with {kept} (cpu)")
    (sample,) = (item for item in again.models if item.what == "mmaudio-nano")
    of_more_steps = replace(sample, given={"audio of 8 s": sample.given["audio of 8 s, steps=1"]})
    (compared,) = Comparison(load_known([kept]), "cpu").of([of_more_steps], "models")
    assert "agrees" not in compared.compared

    stored = json.loads(first.as_json())
    (item,) = [i for i in stored["networks"] if i["what"] == "sfx"]
    output = item["given"]["embedding"]
    output["sketch"][0] += np.hypot(output["mean"], output["sd"])
    kept.write_text(json.dumps(stored))
    (differs,) = Comparison(load_known([kept]), "cpu").of([network], "networks")
    assert differs.status == "failed"
    assert "other outputs than known for these files" in differs.detail
    assert "embedding deviates by 2.5e-01 of its size" in differs.detail

    item["files"]["sfx"] = 64 * "0"  # of another file: no comparison
    kept.write_text(json.dumps(stored))
    (other_file,) = Comparison(load_known([kept]), "cpu").of([network], "networks")
    assert other_file.status == "ok"
    assert other_file.compared == "no digest is known for these files yet: yours is the first, send this report in"
    kept.write_text('{"networks": []}')
    with pytest.raises(UsageError, match=r"first\.json: the key 'models' is missing"):
        load_known([kept])


def test_the_sides_of_a_pair_are_computed_once(clips: ClipSet) -> None:
    done: dict[str, Outputs] = {}
    given = _outputs("nano-sync", clips.clips, "cpu", done)
    assert sorted(done) == ["nano-sync", "nano-sync-audio", "nano-sync-video"]
    done["nano-sync-audio"] = {name: 0 * values for name, values in done["nano-sync-audio"].items()}
    assert _outputs("nano-sync", clips.clips, "cpu", done) is given
    del done["nano-sync"]
    again = _outputs("nano-sync", clips.clips, "cpu", done)
    assert any((again[name] != given[name]).any() for name in given)  # from what was there, not computed anew


def test_only_other_content_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(OWN.read_text())
    mirror = tmp_path / "mirror.yaml"
    monkeypatch.setenv("AV_BENCH_WEIGHTS_LOCK", str(mirror))
    for entry in content["files"].values():
        entry["url"] = "https://mirror.example/file"
    mirror.write_text(json.dumps(content))
    assert not_released(load_lock().values()) == []
    assert _row_name("mmaudio-s-16k") is None
    content["files"]["mmaudio-vae-16k"]["md5"] = 32 * "0"
    content["files"]["dfn5b-clip"]["sha256"] = 64 * "0"
    content["files"]["mine"] = {**content["files"]["panns"], "file": "mine.pth", "needed_by": ["panns"]}
    mirror.write_text(json.dumps(content))
    assert sorted(not_released(load_lock().values())) == ["dfn5b-clip", "mine", "mmaudio-vae-16k"]
    assert _row_name("mmaudio-s-16k:steps=2") == "not a result: mmaudio-s-16k:steps=2 with other weights"
    assert _row_name("oracle", ["FD-VGG"]) is None  # no network of this row has other files
    assert _row_name("oracle", ["KL-PANNs"]) == "not a result: oracle with other weights"
    monkeypatch.delenv("AV_BENCH_WEIGHTS_LOCK")
    assert not_released(load_lock().values()) == []


def test_what_table_1_lacks_is_told_before_any_network_runs(home: Callable[..., Path], tmp_path: Path) -> None:
    home(unchanged)
    words = ["accept", "--out", str(tmp_path / "a"), "--table1", "mmaudio-s-16k", "--metrics", "IB-score"]
    with pytest.raises(MissingRequirement) as caught:
        CliRunner().invoke(app, [*words, "--data", str(tmp_path / "nowhere")], catch_exceptions=False)
    for name in ("imagebind", "mmaudio-small-16k", "dfn5b-clip", "nowhere"):
        assert name in str(caught.value)
    assert "weights: passt" not in str(caught.value)  # of another metric
    assert not (tmp_path / "a").exists()


def test_a_run_with_other_weights_says_so_under_its_table(
    home: Callable[..., Path], clips: ClipSet, tmp_path: Path
) -> None:
    home(unchanged)
    assert clips.clips[0].video is not None
    data = clips.clips[0].video.parent
    words = ["--set", "clips", "--data", str(data), "--protocol", "sfx", "--out", str(tmp_path / "r"), "--quiet"]
    said = CliRunner().invoke(app, ["run", "--model", "oracle", *words], catch_exceptions=False).output
    assert "Warning: weights of sfx: the lock file of AV_BENCH_WEIGHTS_LOCK pins other files than the released" in said


def test_a_sketch_keeps_distances() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 5, 512))
    for share in (1e-5, 1e-3, 1.0):
        other = values + share * rng.standard_normal(values.shape)
        assert 0.5 * share < deviation(summary(other), summary(values)) < 1.5 * share
    assert deviation(summary(values), summary(values)) == 0
    assert deviation(summary(values[:2]), summary(values)) == float("inf")
