"""VAE training: data, losses, resuming, processes, and what it refuses. Networks of a few thousand parameters."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from av_bench.contracts import MetricError, MissingRequirement, UsageError
from av_bench.runtime.files import lock
from av_bench.weights import load_state_dict
from model_zoo.mmaudio.codec.mel import MelConfig, log_mel
from model_zoo.mmaudio.codec.vae import VAE, VAEConfig
from model_zoo.mmaudio.training.checkpoints import load_latest
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.mix import Loader
from model_zoo.mmaudio.vae_training import data, loop
from model_zoo.mmaudio.vae_training.data import Windows, digest, open_items
from model_zoo.mmaudio.vae_training.discriminators import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)
from model_zoo.mmaudio.vae_training.recipes import RECIPES, VAERecipe, difference, plain, read_recipe
from model_zoo.mmaudio.vae_training.trainer import VAETrainer
from tests.command import av_bench
from tests.conftest import ROOT
from tests.model_zoo.mmaudio.goldens import full_disk

SMALL = VAERecipe(
    "small",
    MelConfig(8_000, n_fft=256, hop=64, n_mels=16, high=4_000.0),
    VAEConfig(16, 4, 16, ch_mult=(1, 2), num_res_blocks=1),
    frames=32,
    batch=4,
    steps=6,
    rate=5e-3,
    disc_start=3,
    disc_width=4,
    disc_layers=2,
    holdout=2,
    statistics_items=50,
    log_every=1,
    validate_every=2,
    save_every=3,
)
SETTINGS = """recipe: tiny
mel: {sample_rate: 8000, n_fft: 256, hop: 64, n_mels: 16, high: 4e3}
vae: {data_dim: 16, embed_dim: 4, hidden: 16, num_res_blocks: 1}
frames: 32
batch: 4
steps: 4
disc_start: 3
disc_width: 4
disc_layers: 2
log_every: 2
validate_every: 2
save_every: 2
"""


def sounds(count: int = 12, samples: int = 4_096) -> NDArray[Any]:
    """Decaying tones of random pitch, int16."""
    rng = np.random.default_rng(5)
    time = np.arange(samples) / 8_000
    waves = [np.sin(2 * np.pi * rng.uniform(200, 3_000) * time) * np.exp(-6 * time) for _ in range(count)]
    noisy = np.stack(waves) * 0.7 + rng.normal(0, 0.003, (count, samples))
    return (noisy * 32_767).astype(np.int16)


def silent(_: str) -> None:
    return


def floats(losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in losses.items()}


# --------------------------------------------------------------------------- recipes


def test_the_published_recipe() -> None:
    for rate, seconds in (("16k", 8.0), ("44k", 8.01)):
        recipe = RECIPES[rate]
        assert (recipe.batch, recipe.steps, recipe.rate, recipe.disc_start) == (512, 300_000, 2e-3, 20_001)
        assert recipe.rate_at(1) == recipe.rate_at(300_000) == 2e-3
        assert recipe.frames * recipe.mel.hop / recipe.mel.sample_rate == pytest.approx(seconds, abs=0.01)


def test_schedule() -> None:
    recipe = replace(SMALL, rate=1.0, warmup=10, decay_from=100)
    assert [recipe.rate_at(step) for step in (1, 5, 10, 100, 400)] == pytest.approx([0.1, 0.5, 1, 1, 0.5])


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: 16k\nrate: 1e-3\nadversarial: false\nbetas: [5e-1, 0.9]\nvae: {ch_mult: [1, 2]}\n")
    recipe = read_recipe(path)
    assert (recipe.rate, recipe.adversarial, recipe.vae.ch_mult) == (1e-3, False, (1, 2))
    assert replace(recipe, rate=2e-3, adversarial=True, vae=RECIPES["16k"].vae) == RECIPES["16k"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe: 16k\nrat: 1\n", "unknown key 'rat'"),
        ("recipe: 99k\n", "one of 16k, 44k, tiny"),
        ("recipe: 16k\nsteps: many\n", "steps: expected a whole number"),
        ("recipe: 16k\nframes: 501\n", "multiple of 2"),
        ("recipe: 16k\nvae: {data_dim: 64}\n", "VAE of 64 bins, mel of 80"),
        ("recipe: 16k\nvae: 3\n", "vae: expected keys and values"),
        ("recipe: 16k\nsave_every: 5050\nlog_every: 100\n", "multiples of log_every"),
        ("recipe: 16k\nbatch: 0\n", "batch must be positive"),
        ("recipe: 16k\ndisc_width: 0\n", "disc_width must be positive"),
        ("recipe: 16k\nbetas: [2, 3]\n", r"betas must be two numbers in \[0, 1\), got \[2.0, 3.0\]"),
        ("recipe: 16k\nbetas: [0.9]\n", "betas: expected 2 values, got 1"),
        ("recipe: 16k\nbetas: [0.5, .nan]\n", "betas must be two numbers"),
        ("recipe: 16k\nbetas: [0.5, true]\n", r"betas\[1\]: expected a number"),
        ("recipe: 16k\nbetas: [0.5, high]\n", r"betas\[1\]: expected a number"),
        ("recipe: 16k\nvae: {ch_mult: [1, wide]}\n", r"ch_mult\[1\]: expected a whole number"),
        ("recipe: 16k\ndisc_weight: .nan\n", "disc_weight must be numbers that are not negative"),
        ("recipe: 16k\nrate: .inf\nkl_weight: -1\n", "rate, kl_weight must be numbers that are not negative"),
        ("recipe: 16k\nwarmup: -5\nseed: -1\n", "warmup, seed must be numbers"),
    ],
)
def test_refuses_odd_recipe_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_recipe(tmp_path / "mine.yaml")


# --------------------------------------------------------------------------- data


def test_every_item_once_per_epoch_and_never_the_held_out() -> None:
    windows = Windows(sounds(), SMALL)  # 10 of 12 items, 4 per step: two epochs are 5 steps
    rows = [row for step in range(1, 6) for row in windows.rows(step)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert windows.rows(2) == rows[4:8]  # whatever was asked before
    assert len(windows.held_out()) == 2


def test_windows_are_pieces_of_the_items() -> None:
    waves = sounds()
    windows = Windows(waves, SMALL)
    batch, again = windows.batch(1), windows.batch(1, slice(1, None, 2))
    assert batch.shape == (4, 2_048)
    assert torch.equal(batch[1::2], again)
    assert not torch.equal(batch, windows.batch(2))
    for piece, row in zip(batch.numpy(), windows.rows(1), strict=True):
        item = waves[row].astype(np.float32) / 32_767
        assert any(np.array_equal(piece, item[start : start + 2_048]) for start in range(2_049))


def test_mels_as_items_and_their_statistics() -> None:
    mels = np.random.default_rng(0).normal(-2, 1.5, (40, 16, 32)).astype(np.float32)
    windows = Windows(mels, SMALL)
    assert torch.equal(windows.mel(windows.batch(1))[0], torch.from_numpy(mels[windows.rows(1)[0]]))
    mean, std = windows.statistics()
    np.testing.assert_allclose(mean, mels[:38].mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(std, mels[:38].std((0, 2)), rtol=1e-4)


def test_folder_is_packed_once(tmp_path: Path) -> None:
    import soundfile

    folder, work = tmp_path / "sounds", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    soundfile.write(folder / "a.wav", sounds(1, 10_000)[0], 8_000)
    soundfile.write(folder / "b.flac", sounds(1, 16_000)[0], 16_000)  # 1 s at another rate: 8,000 samples
    soundfile.write(folder / "short.wav", sounds(1, 1_000)[0], 8_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    (folder / "notes.txt").write_text("no sound")
    said: list[str] = []
    items = open_items(folder, SMALL, work, said.append)
    assert [len(items[row]) for row in range(len(items))] == [3_333, 3_333, 3_334, 4_000, 4_000]
    np.testing.assert_allclose(np.concatenate([items[row] for row in range(3)]), sounds(1, 10_000)[0], atol=1)
    left_out = json.loads((work / "pack.json").read_text())["left_out"]
    assert sorted(left_out) == ["broken.wav", "short.wav"]
    assert "2 files left out" in said[0]
    open_items(folder, SMALL, work, said.append)
    assert len(said) == 1  # taken as it is
    soundfile.write(folder / "c.wav", sounds(1, 5_000)[0], 8_000)
    assert len(open_items(folder, SMALL, work, said.append)) == 5 + 2


def test_half_a_pack_is_removed_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    folder, work = tmp_path / "sounds", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    for number, wave in enumerate(sounds(3, 10_000)):
        soundfile.write(folder / f"{number}.wav", wave, 8_000)
    with full_disk(30_000), pytest.raises(OSError, match="too large"):
        open_items(folder, SMALL, work, silent)
    assert list(work.iterdir()) == []  # a full disk is not left fuller
    (work / ".pack.raw.0123abcd.part").write_bytes(b"killed")
    with pytest.raises(UsageError, match="one shared folder"):
        open_items(folder, SMALL, work, silent, decode=False)
    items = open_items(folder, SMALL, work, silent)
    assert sorted(path.name for path in work.iterdir()) == ["pack.json", "pack.raw"]
    with monkeypatch.context() as patch:
        patch.setattr(data, "_sound", None)  # taken as it is
        again = open_items(folder, SMALL, work, silent, decode=False)
    assert digest(again) == digest(items)
    (work / "pack.json").write_text("[")
    assert len(open_items(folder, SMALL, work, silent)) == len(items)


@pytest.mark.parametrize(
    ("samples", "pieces"),
    [(2_048, [2_048]), (2_560, [2_560]), (4_096, [4_096]), (4_097, [2_048, 2_049]), (9_000, [3_000] * 3)],
)
def test_files_of_one_window_or_more_are_used_whole(tmp_path: Path, samples: int, pieces: list[int]) -> None:
    """1.25 windows are what a 10 s recording is to windows of 8 s."""
    import soundfile

    (tmp_path / "sounds").mkdir()
    waves = sounds(3, samples)
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", wave, 8_000)
    items = open_items(tmp_path / "sounds", SMALL, tmp_path, silent)
    assert [len(items[row]) for row in range(len(items))] == 3 * pieces
    np.testing.assert_allclose(np.concatenate([items[row] for row in range(len(items))]), waves.flatten(), atol=1)
    windows = Windows(items, replace(SMALL, holdout=1))
    assert windows.batch(1).shape == (4, 2_048)
    assert windows.held_out().shape == (1, 2_048)
    loop.train(replace(SMALL, holdout=1, steps=1), items, tmp_path / "out", report=silent)


def test_a_run_goes_on_with_the_pieces_it_was_begun_with(tmp_path: Path) -> None:
    """A pack of an earlier version, all pieces two windows long, is taken as it is."""
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "a.wav", sounds(1, 10_000)[0], 8_000)
    listing = {"sample_rate": 8_000, "samples": 4_096, "files": [["a.wav", (folder / "a.wav").stat().st_size]]}
    (tmp_path / "pack.json").write_text(json.dumps({**listing, "left_out": {}}))
    earlier = sounds(2, 4_096)
    np.save(tmp_path / "pack.npy", earlier)
    np.testing.assert_array_equal(np.asarray(open_items(folder, SMALL, tmp_path, silent)), earlier)


def test_refuses_unusable_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 items are too few"):
        Windows(sounds(1), SMALL)
    with pytest.raises(UsageError, match=r"item 0 has shape \(100,\), expected \(2048\+,\)"):
        Windows(sounds(5, 100), SMALL).window(0, 0.0)
    waves = sounds().astype(np.float32)
    waves[:] = np.inf
    with pytest.raises(UsageError, match="not finite"):
        Windows(waves, SMALL).batch(1)
    with pytest.raises(UsageError, match="is the data silent"):
        Windows(np.zeros((9, 4_096), dtype=np.int16), SMALL).statistics()
    (tmp_path / "x.npy").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="neither a folder"):
        open_items(tmp_path / "x.npy", SMALL, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="none of 0 audio files"):
        open_items(tmp_path / "empty", SMALL, tmp_path)


# --------------------------------------------------------------------------- losses


def test_hinge_losses() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.25]])
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.5 * (0.5 / 2 + 1.25 / 2))
    assert float(generator_loss(fake)) == pytest.approx(2.75 / 2)


def test_adaptive_weight_balances_gradients() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight = adaptive_weight((6 * layer).sum(), (layer[0] * 2).sum(), layer)
    assert float(weight) == pytest.approx(6 * 2**0.5 / 2, rel=1e-3)
    assert not weight.requires_grad


def test_discriminator_sees_patches() -> None:
    """One logit sees 70 bins and frames: a gradient reaches that far and no farther."""
    judge = PatchDiscriminator(4)
    judge.stages = nn.Sequential(*(stage for stage in judge.stages if not isinstance(stage, nn.GroupNorm)))
    mel = torch.randn(1, 160, 160, requires_grad=True)
    logits = judge(mel)
    assert logits.shape == (1, 18 * 18)
    logits[0, 9 * 18 + 9].backward()
    assert mel.grad is not None
    seen = mel.grad[0].abs().sum(0).nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == 70


def test_step_is_the_formula() -> None:
    """Losses and gradients of one step, put together by hand."""
    recipe = replace(SMALL, disc_start=1, kl_weight=0.1)
    trainer = VAETrainer(recipe, sounds())
    trainer.start()
    twin = VAE(recipe.vae)
    twin.load_state_dict(trainer.vae.state_dict())
    judge = PatchDiscriminator(4, 2)
    judge.load_state_dict(trainer.discriminator.state_dict())
    mel = log_mel(trainer.windows.batch(1), recipe.mel)
    posterior = twin.train().encode(mel)
    noise = torch.randn(4, 4, 16, generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + 1))
    output = twin.decode(posterior.mean + posterior.std * noise)
    error = (output - mel).abs().sum() / 4  # per window
    logits = judge((output - twin.data_mean) / twin.data_std)
    last = twin.decoder.conv_out.weight
    norms = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (error, -logits.mean())]
    loss = error + 0.1 * posterior.kl().mean() + 0.5 * norms[0] / (norms[1] + 1e-4) * -logits.mean()
    loss.backward()
    losses = trainer.step()
    assert float(losses["l1"]) == pytest.approx(float(error.detach()) / (16 * 32), rel=1e-5)
    assert float(losses["kl"]) == pytest.approx(float(posterior.kl().mean().detach()) / (4 * 16), rel=1e-5)
    for (name, ours), theirs in zip(trainer.vae.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5 * float(theirs.grad.abs().max()))


def test_micro_batches_sum_to_the_batch() -> None:
    recipe = replace(SMALL, adversarial=False)
    whole, parts = (VAETrainer(replace(recipe, micro_batch=size), sounds()) for size in (0, 3))
    for trainer in (whole, parts):
        trainer.start()
    assert floats(whole.step()) == pytest.approx(floats(parts.step()), rel=1e-4)
    for ours, theirs in zip(parts.vae.parameters(), whole.vae.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-3 * float(theirs.grad.abs().max()))


def test_it_learns(tmp_path: Path) -> None:
    """Sound it never saw comes out better than from an untrained VAE and than the mean mel does."""
    recipe = replace(SMALL, steps=60, warmup=5, decay_from=40, disc_start=41, kl_weight=1e-2, batch=8)
    recipe = replace(recipe, log_every=20, validate_every=20, save_every=60)
    untrained = VAETrainer(recipe, sounds(60))
    untrained.start()
    vae = loop.train(recipe, sounds(60), tmp_path, report=silent)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [20, 40, 60]
    assert log[-1]["validation_l1"] < 0.6 * untrained.validate()["validation_l1"]
    windows = Windows(sounds(60), recipe)
    mel = windows.mel(windows.held_out())
    assert log[-1]["validation_l1"] < 0.75 * float((mel - vae.data_mean).abs().mean())
    assert "discriminator" not in log[0]
    assert log[-1]["discriminator"] < 1.1  # 1 is a discriminator that says nothing
    stored = load_state_dict(tmp_path / "vae.safetensors")
    again = VAE(recipe.vae)
    again.load_state_dict(stored)
    torch.testing.assert_close(
        again.fuse().encode(mel).mean, vae.eval().encode(mel).mean.detach(), rtol=1e-3, atol=1e-3
    )


# --------------------------------------------------------------------------- resuming


def numbers(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "windows_per_second"} for line in lines]


def test_broken_run_equals_unbroken(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    loop.train(SMALL, sounds(), whole, report=silent)

    class KilledError(Exception):
        pass

    def kill(line: str) -> None:
        if line.startswith("step 5"):  # two steps beyond the checkpoint
            raise KilledError

    with pytest.raises(KilledError):
        loop.train(SMALL, sounds(), broken, report=kill)
    said: list[str] = []
    loop.train(SMALL, sounds(), broken, report=said.append)
    assert said[0] == "resumed at step 3"
    ours, theirs = (load_latest(folder / "checkpoints") for folder in (broken, whole))
    assert ours is not None
    assert theirs is not None
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[key], value) for key, value in theirs.tensors.items())
    assert (broken / "vae.safetensors").read_bytes() == (whole / "vae.safetensors").read_bytes()
    assert numbers(broken) == numbers(whole)


def test_another_recipe_is_not_continued(tmp_path: Path) -> None:
    loop.train(replace(SMALL, steps=3), sounds(), tmp_path, report=silent)
    with pytest.raises(UsageError, match=r"different recipe \(rate, kl_weight differ\)"):
        loop.train(replace(SMALL, rate=1e-3, kl_weight=0.5), sounds(), tmp_path, report=silent)


@pytest.mark.parametrize("change", ["content", "more", "length", "kind"])
def test_other_data_is_not_continued(tmp_path: Path, change: str) -> None:
    loop.train(replace(SMALL, steps=3), sounds(), tmp_path, report=silent)
    last = tmp_path / "checkpoints" / "step-000000003" / "tensors.safetensors"
    before = last.read_bytes()
    other = {
        "content": sounds()[::-1].copy(), "more": sounds(13), "length": sounds(12, 4_000),
        "kind": sounds().astype(np.float32),
    }[change]  # fmt: skip
    words = r"\(12 items then, 13 now\)" if change == "more" else "of the same number of items"
    with pytest.raises(UsageError, match=f"different data {words}"):
        loop.train(SMALL, other, tmp_path, report=silent)
    assert last.read_bytes() == before
    loop.train(SMALL, sounds(), tmp_path, report=silent)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """A byte that flipped on the disk: the run goes on from the checkpoint before, and ends the same."""
    loop.train(SMALL, sounds(), tmp_path, report=silent)
    whole = (tmp_path / "vae.safetensors").read_bytes()
    newest = tmp_path / "checkpoints" / "step-000000006" / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    said: list[str] = []
    loop.train(SMALL, sounds(), tmp_path, report=said.append)
    assert said[0] == "resumed at step 3"
    assert (tmp_path / "vae.safetensors").read_bytes() == whole


def test_fewer_steps_than_were_done_are_refused(tmp_path: Path) -> None:
    loop.train(SMALL, sounds(), tmp_path, report=silent)
    with pytest.raises(UsageError, match="already at step 6, the recipe ends at 3"):
        loop.train(replace(SMALL, steps=3), sounds(), tmp_path, report=silent)


def test_parts_of_a_batch_decide_only_with_an_adversary() -> None:
    assert SMALL.adversarial
    assert difference(plain(SMALL), replace(SMALL, micro_batch=2)) == ["micro_batch"]
    alone = replace(SMALL, adversarial=False)
    assert difference(plain(alone), replace(alone, micro_batch=2)) == []


def test_renamed_and_reordered_files_are_other_data(tmp_path: Path) -> None:
    import soundfile

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-work").mkdir()
        soundfile.write(tmp_path / name / f"{name}.wav", sounds(1, 10_000)[0], 8_000)
    one, two = (digest(open_items(tmp_path / n, SMALL, tmp_path / f"{n}-work", silent)) for n in ("one", "two"))
    assert one != two
    (tmp_path / "one").rename(tmp_path / "moved")  # the folder itself may move
    assert digest(open_items(tmp_path / "moved", SMALL, tmp_path / "one-work", silent)) == one


def test_the_next_batches_are_prepared_while_a_step_computes() -> None:
    class Counted:
        """Says which thread asks for which item."""

        def __init__(self) -> None:
            self.waves, self.asked = sounds(), dict[str, int]()

        def __len__(self) -> int:
            return len(self.waves)

        def __getitem__(self, row: int) -> NDArray[Any]:
            name = threading.current_thread().name
            self.asked[name] = self.asked.get(name, 0) + 1
            return self.waves[row]  # type: ignore[no-any-return]

    items = Counted()
    ahead, plain_one = VAETrainer(SMALL, items), VAETrainer(SMALL, sounds())
    plain_one._loader = Loader(plain_one._share, 0)
    for trainer in (ahead, plain_one):
        trainer.start()
    before = items.asked[threading.current_thread().name]
    for _ in range(3):
        assert floats(ahead.step()) == floats(plain_one.step())
    ahead.close()
    assert items.asked[threading.current_thread().name] == before
    assert items.asked["batches_0"] >= 3 * SMALL.batch
    for ours, theirs in zip(ahead.vae.parameters(), plain_one.vae.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    loop.train(replace(SMALL, steps=3), sounds(), tmp_path, report=silent)
    last = tmp_path / "checkpoints" / "step-000000003" / "tensors.safetensors"
    good = last.read_bytes()
    with full_disk(len(good) // 2), pytest.raises(MissingRequirement, match="last good one is step 3"):
        loop.train(SMALL, sounds(), tmp_path, report=silent)
    assert last.read_bytes() == good
    assert not list(tmp_path.rglob(".*part"))
    loop.train(SMALL, sounds(), tmp_path, report=silent)
    found = load_latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 6


def test_stops_before_it_stores_nonsense(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"losses are not finite at or before step \d"):
        loop.train(replace(SMALL, rate=1e30), sounds(), tmp_path, report=silent)


# --------------------------------------------------------------------------- the command


def command_line(folder: Path, *more: str) -> list[str]:
    """A small run on a folder of three sounds."""
    import soundfile

    (folder / "mine.yaml").write_text(SETTINGS + "holdout: 1\n")
    (folder / "sounds").mkdir(exist_ok=True)
    for number, wave in enumerate(sounds(3, 2_560)):
        soundfile.write(folder / "sounds" / f"{number}.wav", wave, 8_000)
    options = [str(folder / "mine.yaml"), "--quiet", "--data", str(folder / "sounds"), "--out", str(folder / "out")]
    return [*options, "--device", "cpu", *more]


def test_errors_are_one_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = command_line(tmp_path)
    with lock(tmp_path / "out" / ".lock"):
        assert av_bench("train", command) == 2
    assert "av-bench: " in (said := capsys.readouterr().err)
    assert "written by another training run" in said
    for wave in (tmp_path / "sounds").iterdir():
        wave.unlink()
    assert av_bench("train", command) == 2
    assert "none of 0 audio files holds 2048 samples" in capsys.readouterr().err
    assert av_bench("train", [*command, "--device", "gpu"]) == 2
    assert "'gpu' is not one of" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = command_line(tmp_path)
    with full_disk(10_000):  # three sounds take 15 kB
        assert av_bench("train", command) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File too large; make room there" in said
    assert av_bench("train", command) == 0


def test_a_log_that_cannot_be_written_is_what_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Closing the log fails a second time then; the first error is the one that is told, and threads end."""
    others = set(threading.enumerate())
    np.save(tmp_path / "waves.npy", sounds(5))
    (tmp_path / "mine.yaml").write_text(SETTINGS.replace("log_every: 2", "log_every: 1") + "holdout: 1\n")
    command = [str(tmp_path / "mine.yaml"), "--quiet", "--data", str(tmp_path / "waves.npy")]
    with full_disk(100):
        assert av_bench("train", [*command, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File too large; make room there" in said
    assert set(threading.enumerate()) <= others


def test_a_launched_process_joins_and_leaves_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the waits of the group that has a day of patience, not the default one's ten minutes on a GPU."""
    import torch.distributed as dist

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
        for key, value in {**place, "MASTER_PORT": free.getsockname()[1]}.items():
            monkeypatch.setenv(key, str(value))
    waited: list[Any] = []
    barrier = dist.barrier

    def counted(group: Any = None, **options: Any) -> Any:
        waited.append(group)
        return barrier(group=group, **options)

    monkeypatch.setattr(dist, "barrier", counted)
    assert av_bench("train", command_line(tmp_path)) == 0
    assert len(waited) == 1
    assert waited[0] is not None
    assert not dist.is_initialized()
    assert (tmp_path / "out" / "vae.safetensors").is_file()


def test_processes_that_see_other_checkpoints_are_refused(tmp_path: Path) -> None:
    class Elsewhere(Cluster):
        """The first process has done 6 steps."""

        def agree(self, number: int) -> int:
            return number + 6

    processes = Elsewhere(1, 2, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"from step 6, not every process can.*folder that all nodes share"):
        loop.train(SMALL, sounds(), tmp_path, report=silent, processes=processes)


def start(folder: Path, rank: int, port: int) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "av_bench", "train", str(folder / "mine.yaml"), "--device", "cpu"]
    command += ["--out", str(folder / "two"), "--data", str(folder / "waves.npy")]
    env = {**os.environ, **{key: str(value) for key, value in place.items()}, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Weights agree to 1 % of how far they moved: Adam turns rounding of tiny gradients into steps."""
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    np.save(tmp_path / "waves.npy", sounds(40))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [start(tmp_path, rank, port) for rank in (0, 1)]
    recipe = read_recipe(tmp_path / "mine.yaml")
    origin = VAETrainer(recipe, sounds(40)).vae.state_dict()
    command = ["--device", "cpu", str(tmp_path / "mine.yaml"), "--data", str(tmp_path / "waves.npy")]
    assert av_bench("train", [*command, "--out", tmp_path / "one"]) == 0
    assert [process.wait(200) for process in running] == [0, 0]
    one, two = (load_state_dict(tmp_path / f"{name}/vae.safetensors") for name in ("one", "two"))
    learnt = [key for key in one if not key.startswith("data_")]
    moved = sum(float((one[key] - origin[key]).square().sum()) for key in learnt) ** 0.5
    apart = sum(float((one[key] - two[key]).square().sum()) for key in learnt) ** 0.5
    assert moved > 0
    assert apart < 0.01 * moved
    assert torch.equal(one["data_mean"], two["data_mean"])
    ours, theirs = (numbers(tmp_path / name) for name in ("two", "one"))
    assert len(ours) == 2
    for line, other in zip(ours, theirs, strict=True):
        assert line.pop("kind") == other.pop("kind")
        assert line == pytest.approx(other, rel=2e-2)
