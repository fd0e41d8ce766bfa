"""Training offline: features with nano's networks, files of the published training, small folders for the VAE."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from av_bench.contracts import Clip, ClipSet, MissingRequirement, UsageError
from av_bench.training import commands
from av_bench.weights import BadWeights
from model_zoo.mmaudio import config
from model_zoo.mmaudio.config import NetworkConfig, Variant
from model_zoo.mmaudio.features.read import FeatureSet
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.nano.model import MMAudioNano
from model_zoo.mmaudio.training.loop import train
from model_zoo.mmaudio.training.published_checkpoint import import_checkpoint
from tests.command import av_bench
from tests.media_files import tone, write_video
from tests.model_zoo.mmaudio.training_tools import NETWORK, SHAPES, text_features, tiny_recipe


def command(*args: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = av_bench(str(args[0]), [str(a) for a in args[1:]])
    return code, out.getvalue(), err.getvalue()


# ----------------------------------------------------------------------- nano's networks


def test_videos_become_features_a_fine_tuned_network_and_its_samples(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(2):
        sound = tone(8.1, 44_100, 300.0 + 200 * number)
        write_video(tmp_path / "videos" / f"v{number}.mp4", seconds=8.1, audio=sound)
    (tmp_path / "videos" / "clips.csv").write_text("id,text\nv0,a bell\nv1,a drum\n", encoding="utf8")
    asked = ("features", "--networks", "nano", "--data", tmp_path / "videos", "--video", "--out", tmp_path / "f")
    code, said, _ = command(*asked, "--quiet")
    assert code == 0
    assert "2 samples of 2 recordings, 2 with a text; left out: nothing" in said
    recipe = {
        "base": "nano", "name": "mine", "init": "mmaudio-nano", "batch": 2, "steps": 1, "lora": {"rank": 2},
        "data": {"train": [{"path": str(tmp_path / "f")}], "validation": []},
        "ema": {"snapshots": 4, "final": [0.1]},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf8")
    code, _, said = command("train", tmp_path / "mine.yaml", "--out", tmp_path / "run")
    assert code == 0, said
    file = tmp_path / "run" / "weights" / "last.safetensors"
    assert file.stat().st_size < 400_000
    code, _, said = command("train", tmp_path / "mine.yaml", "--out", tmp_path / "run", "--change", "steps=2")
    assert f"{tmp_path / 'run'}: resuming from step 1 of 2" in said
    assert command("mmaudio", "merge", file, "--out", tmp_path / "whole.safetensors")[0] == 0
    clips = ClipSet("x", "1", (Clip("v0", tmp_path / "videos" / "v0.mp4", text="a bell"),))
    made = {}
    for name, weights in (("adapters", file), ("whole", tmp_path / "whole.safetensors")):
        model = MMAudioNano(steps=1.0, weights=str(weights))
        model.setup(clips, 8.0, 1)
        made[name] = next(iter(model.generate(clips.clips, 1))).audio, model.identity
    assert torch.equal(made["adapters"][0], made["whole"][0])
    assert made["adapters"][1] == made["whole"][1]  # equal weights are the same model, in whatever file
    assert made["whole"][1] != MMAudioNano(steps=1.0).identity
    assert command("mmaudio", "merge", tmp_path / "whole.safetensors", "--out", tmp_path / "x.safetensors")[0] == 2


def test_a_flow_network_for_another_codec_and_missing_files_are_named_in_one_line(tmp_path: Path) -> None:
    weights = train(tiny_recipe(tmp_path, steps=1), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="made for another codec or other conditions than those of mmaudio-nano"):
        MMAudioNano(weights=str(weights / "last.safetensors"))
    with pytest.raises(MissingRequirement, match=r"nano.safetensors.*codec.safetensors.*sight.safetensors are missing"):
        MMAudioNano(weights=str(tmp_path / "nowhere"))


def test_features_name_all_missing_files_at_once_and_no_vocoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    soundfile.write(tmp_path / "a.wav", tone(8.1).T, 44_100)
    write_video(tmp_path / "a.mp4", seconds=0.2)
    code, _, said = command("features", "--data", tmp_path, "--rate", "16k", "--out", tmp_path / "f")
    assert code == 4
    first = said.splitlines()[0]
    assert all(name in first for name in ("mmaudio-vae-16k", "dfn5b-clip", "synchformer"))
    assert "vocoder" not in said
    assert not (tmp_path / "f").exists()
    assert command("features", "--data", tmp_path, "--out", tmp_path / "f")[0] == 2
    wrong = ("features", "--data", tmp_path, "--out", tmp_path / "f", "--networks", "nano", "--rate", "44k")
    assert command(*wrong)[0] == 2


def test_the_tiny_vae_trains_on_a_small_folder(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 16_000 * 4)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", noise, 16_000)
    small = ("steps=1", "batch=1", "log_every=1", "validate_every=1", "save_every=1", "adversarial=false")
    changes = [word for change in small for word in ("--change", change)]
    code, _, said = command("train", "vae-tiny", "--data", tmp_path / "sounds", "--out", tmp_path / "run", *changes)
    assert code == 0, said
    assert "2 files, 2 items" in said
    assert (tmp_path / "run" / "vae.safetensors").is_file()


# ----------------------------------------------------------------------- the published training's files

NAMES = {"mean": "mean", "std": "std", "clip_features": "clip", "sync_features": "sync", "text_features": "text"}


def write_memmap(folder: Path, count: int, video: bool = True) -> dict[str, torch.Tensor]:
    """A folder as ``TensorDict(...).memmap_(folder)`` leaves it, and its table."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, short in NAMES.items():
        if video or short not in ("clip", "sync"):
            found[name] = torch.rand(count, *SHAPES[short], generator=generator)
    for row in range(count):
        found["text_features"][row] = text_features(f"label {row % 2}")
    folder.mkdir()
    about: dict[str, Any] = {
        name: {"device": "cpu", "shape": list(t.shape), "dtype": "torch.float32"} for name, t in found.items()
    }
    about |= {"shape": [], "device": None, "_type": "<class 'tensordict._td.TensorDict'>"}
    (folder / "meta.json").write_text(json.dumps(about), encoding="utf8")
    for name, tensor in found.items():
        (folder / f"{name}.memmap").write_bytes(tensor.numpy().tobytes())
    rows = "".join(f"rec{row // 2}\tlabel {row % 2}\n" for row in range(count))
    folder.with_suffix(".tsv").write_text(f"id\tlabel\n{rows}", encoding="utf8")
    return found


@pytest.mark.parametrize("video", [True, False])
def test_a_published_feature_folder_is_imported_and_trained_on(tmp_path: Path, video: bool) -> None:
    arrays = write_memmap(tmp_path / "vgg", 6, video)
    torch.save([text_features("")], tmp_path / "empty_string.pth")
    asked = ("mmaudio", "import-features", tmp_path / "vgg", "--table", tmp_path / "vgg.tsv", "--out", tmp_path / "f")
    code, said, _ = command(*asked, "--empty-text", tmp_path / "empty_string.pth", "--fp32")
    assert (code, said) == (0, f"{tmp_path / 'f'}: 6 samples\n")
    assert command(*asked, "--fp32")[0] == 0  # again: nothing is written twice
    features = FeatureSet(str(tmp_path / "f"), True, (0, 1))
    assert list(features.ids) == ["rec0", "rec0", "rec1", "rec1", "rec2", "rec2"]
    assert list(features.crops) == [0, 1] * 3
    recipe = tiny_recipe(tmp_path, data={"train": [{"path": str(tmp_path / "f")}], "validation": []}, batch=6, steps=1)
    from model_zoo.mmaudio.training import setup
    from model_zoo.mmaudio.training.distributed import Cluster

    mix, _ = setup.mixes(recipe, Cluster(0, 1, torch.device("cpu")))
    rows = mix.fixed(0, 6).rows
    assert torch.equal(rows.mean.float(), arrays["mean"])
    assert torch.equal(rows.text.float(), arrays["text_features"])
    assert rows.video.tolist() == [video] * 6
    if video:
        assert torch.equal(rows.clip.float(), arrays["clip_features"])
        assert torch.equal(rows.sync.float(), arrays["sync_features"])
    train(recipe, tmp_path / "run", quiet=True)


def spoil(folder: Path, how: str) -> None:
    meta, table = folder / "meta.json", folder.with_suffix(".tsv")
    if how == "parts":
        (folder / "std.memmap").unlink()
        (folder / "sync_features.memmap").unlink()
    elif how == "meta":
        meta.unlink()
    elif how == "cut":
        file = folder / "mean.memmap"
        file.write_bytes(file.read_bytes()[:-4])
    elif how == "rows":
        table.write_text(table.read_text() + "more\tlabel 0\n")
    elif how == "shifted":
        lines = table.read_text().splitlines()
        lines[1], lines[3] = "rec0\tlabel 1", "rec1\tlabel 0"
        table.write_text("\n".join([*lines[:2], lines[3], *lines[3:]]) + "\n")
    elif how == "type":
        meta.write_text(meta.read_text().replace("torch.float32", "torch.int64", 1))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("parts", "incomplete: std, sync_features missing"),
        ("meta", "meta.json is missing"),
        ("cut", "it is cut off"),
        ("rows", "6 rows, and"),
        ("shifted", "the texts do not belong to these features"),
        ("type", "floats of three axes are expected"),
    ],
)
def test_an_incomplete_feature_folder_is_one_line_and_nothing_is_written(tmp_path: Path, how: str, says: str) -> None:
    write_memmap(tmp_path / "vgg", 6)
    spoil(tmp_path / "vgg", how)
    asked = ("mmaudio", "import-features", tmp_path / "vgg", "--table", tmp_path / "vgg.tsv", "--out", tmp_path / "f")
    code, _, said = command(*asked)
    assert code == 2
    assert says in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "f").exists()


@pytest.fixture
def tiny_variant(monkeypatch: pytest.MonkeyPatch) -> str:
    tiny = Variant("mmaudio-tiny", NetworkConfig(**NETWORK), "16k", "none")  # type: ignore[arg-type]
    monkeypatch.setitem(config.VARIANTS, "mmaudio-tiny", tiny)
    return tiny.name


def published_checkpoint(file: Path) -> list[dict[str, torch.Tensor]]:
    """A file as the published training writes it; returns the weights and both averages."""
    states = []
    for seed in range(3):
        torch.manual_seed(seed)
        network = FlowNetwork(NetworkConfig(**NETWORK), latent_mean=torch.ones(4), latent_std=torch.ones(4))  # type: ignore[arg-type]
        states.append({k: v.detach().clone() for k, v in network.state_dict().items()})
    ema: dict[str, Any] = {}
    for number, state in enumerate(states[1:]):
        ema |= {f"ema_models.{number}.ema_model.{k}": v for k, v in state.items()}
        ema[f"ema_models.{number}._extra_state"] = {"initted": torch.tensor(True), "step": 7}
    content = {"it": 7, "weights": states[0], "optimizer": {"state": {}}, "scheduler": {"last_epoch": 7}, "ema": ema}
    torch.save(content, file)
    return states


def test_a_published_checkpoint_gives_weights_and_averages(tmp_path: Path, tiny_variant: str) -> None:
    states = published_checkpoint(tmp_path / "exp_ckpt_last.pth")
    asked = ("mmaudio", "import-checkpoint", tmp_path / "exp_ckpt_last.pth", "--variant", tiny_variant)
    assert command(*asked, "--out", tmp_path / "w")[0] == 0
    for name, state in zip(("last", "ema-0.05", "ema-0.1"), states, strict=True):
        found = load_file(tmp_path / "w" / f"{name}.safetensors")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
    recipe = tiny_recipe(tmp_path, init=str(tmp_path / "w" / "ema-0.05.safetensors"), steps=1)
    train(recipe, tmp_path / "run", quiet=True)
    train(replace(recipe, init=str(tmp_path / "exp_ckpt_last.pth")), tmp_path / "other", quiet=True)


def test_a_checkpoint_of_another_variant_writes_nothing(tmp_path: Path, tiny_variant: str) -> None:
    published_checkpoint(tmp_path / "c.pth")
    other = Variant("mmaudio-tiny", NetworkConfig(**NETWORK | {"hidden": 32}), "16k", "none")  # type: ignore[arg-type]
    config.VARIANTS[tiny_variant] = other
    with pytest.raises(BadWeights, match=r"c.pth \(last\): not the layout of FlowNetwork") as caught:
        import_checkpoint(tmp_path / "c.pth", tiny_variant, tmp_path / "w")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_adapters_need_a_file_that_holds_some(tmp_path: Path) -> None:
    weights = train(tiny_recipe(tmp_path, steps=1), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="holds no adapters but a whole network"):
        commands.merge_adapters(weights / "last.safetensors", tmp_path / "x.safetensors")
