"""Post-hoc EMA against published numbers, the profile's own integrals, and with bounded storage."""

from __future__ import annotations

import os
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import MissingRequirement, UsageError
from model_zoo.mmaudio.training import ema
from model_zoo.mmaudio.training.ema import PostHocEMA, gamma_of
from model_zoo.mmaudio.training.loop import Trainer, train
from model_zoo.mmaudio.training.recipe import FlowRecipe
from model_zoo.mmaudio.training.snapshots import Snapshots
from tests.model_zoo.mmaudio.goldens import close, full_disk, golden, needs_golden, recipe
from tests.model_zoo.mmaudio.training_tools import tiny_recipe

WIDTHS = (0.05, 0.1)


@pytest.fixture
def published() -> Any:
    return golden("full_size/ema.pt")


@needs_golden
def test_exponents_and_factors(published: Any) -> None:
    for sigma, gamma in published["gamma"].items():
        assert gamma_of(float(sigma)) == pytest.approx(gamma, rel=1e-12)
    for name, rows in published["beta_at_step"].items():
        match = re.fullmatch(r"sigma([0-9.]+)_corr(True|False)", name)
        assert match
        ours = [ema.decay(step, gamma_of(float(match[1])), corrected=match[2] == "True") for step, _ in rows]
        assert ours == pytest.approx([beta for _, beta in rows], rel=1e-9)


@needs_golden
def test_synthesis_weights(published: Any) -> None:
    found = published["posthoc"]
    for sigma, wanted in found["weights_by_target_sigma"].items():
        ours = ema.synthesis_weights(found["timesteps"], found["gammas"], found["target_step"], gamma_of(float(sigma)))
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


@needs_golden
def test_hundred_updates_and_synthesis(published: Any, tmp_path: Path) -> None:
    rule, found = recipe(), published["sim"]

    def weights(step: int) -> dict[str, torch.Tensor]:
        return {name: rule.inp(f"ema{step}{name}", shape) for name, shape in (("weight", (2, 3)), ("bias", (2,)))}

    averages, store = PostHocEMA(weights(0), WIDTHS), Snapshots(tmp_path, 20)
    for step in range(100):
        averages.update(weights(step))
        if averages.updates % 20 == 0:
            averages.snapshot(store)
    for sigma, live in zip(WIDTHS, found["live_after_100"], strict=True):
        for name, value in live.items():
            close(averages.averages[sigma][name], value, 1e-6)
    assert len(store.entries()) == len(found["files"])
    for sigma, wanted in found["synth"].items():
        made = store.synthesise(float(sigma))
        for name, value in wanted.items():
            close(made[name], value, 1e-5)


def test_products_are_the_integrals() -> None:
    time = np.linspace(0, 1000, 200_001)
    (ta, ga), (tb, gb) = (1000.0, 6.9), (700.0, 16.9)
    profiles = [np.where(time <= t, (g + 1) * (time / t) ** g / t, 0.0) for t, g in ((ta, ga), (tb, gb))]
    wanted = (profiles[0] * profiles[1]).sum() * (time[1] - time[0])
    ours = ema.profile_products(*(np.array([x]) for x in (ta, ga, tb, gb)))
    assert float(ours[0, 0]) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(("limit", "worst"), [(24, 0.006), (12, 0.03)])
def test_thinned_snapshots_still_make_any_width(limit: int, worst: float) -> None:
    """60 snapshots arrive as in the published training; what is kept reproduces the profiles of 0.06 to 0.15."""
    kept: list[int] = []
    for step in range(5_000, 300_001, 5_000):
        kept = ema.thin([*kept, step], limit)
    assert len(kept) == limit
    assert kept[-1] == 300_000
    gammas = [gamma_of(s) for s in WIDTHS for _ in kept]
    errors = [ema.synthesis_error(kept * 2, gammas, 300_000, gamma_of(s)) for s in (0.06, 0.08, 0.1, 0.12, 0.15)]
    assert max(errors) < worst


def test_thinned_synthesis_meets_the_average_itself(tmp_path: Path) -> None:
    """A noisy walk of weights: widths that were never tracked, from at most 12 of 40 snapshots."""
    rng = torch.Generator().manual_seed(0)
    value = torch.zeros(200)
    goal = (0.07, 0.12)
    tracked, direct = (PostHocEMA({"w": value}, widths) for widths in (WIDTHS, goal))
    store = Snapshots(tmp_path, 50, limit=12)
    for step in range(1, 2_001):
        value = 0.999 * value + torch.randn(200, generator=rng)
        for averages in (tracked, direct):
            averages.update({"w": value})
        if step % 50 == 0:
            tracked.snapshot(store)
    assert len(store.entries()) == 24
    for sigma in goal:
        wanted = direct.averages[sigma]["w"]
        error = (store.synthesise(sigma)["w"] - wanted).norm() / wanted.norm()
        nearest = min((tracked.averages[s]["w"] - wanted).norm() / wanted.norm() for s in WIDTHS)
        assert float(error) < 0.01 < float(nearest)


def test_broken_run_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    def walk(averages: PostHocEMA, store: Snapshots, steps: range) -> None:
        for step in steps:
            averages.update({"w": torch.full((3,), float(step) ** 1.5)})
            if step % 2 == 0:
                averages.snapshot(store)

    start = {"w": torch.zeros(3)}
    whole, folder = PostHocEMA(start), Snapshots(tmp_path / "whole", 2, limit=4)
    walk(whole, folder, range(1, 31))
    broken, other = PostHocEMA(start), Snapshots(tmp_path / "broken", 2, limit=4)
    walk(broken, other, range(1, 16))
    resumed = deepcopy(broken)  # what a checkpoint keeps
    walk(broken, other, range(16, 20))  # lost: killed before the next checkpoint
    other.forget_after(15)
    walk(resumed, other, range(16, 31))
    assert all(torch.equal(resumed.averages[s]["w"], whole.averages[s]["w"]) for s in WIDTHS)
    assert other.entries() == folder.entries()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="between 0 and"):
        gamma_of(0.3)
    with pytest.raises(MissingRequirement, match="no snapshots"):
        Snapshots(tmp_path / "nothing", 1).synthesise(0.1)
    with pytest.raises(UsageError, match="at least 4"):
        ema.thin([1, 2, 3], 3)


def test_unwritable_snapshot_leaves_the_others(tmp_path: Path) -> None:
    store = Snapshots(tmp_path, 1, limit=4)
    store.add(0.1, 1, {"w": torch.ones(2)})
    with full_disk(10_000), pytest.raises(MissingRequirement, match="cannot be written"):
        store.add(0.1, 2, {"w": torch.ones(20_000)})
    assert store.entries() == [(0.1, 1)]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_snapshot_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        names.append([p.name for p in tmp_path.iterdir()])
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    Snapshots(tmp_path, 1).add(0.1, 1, {"w": torch.ones(2)})
    assert len(names) == len(names[0]) == 1
    assert names[0][0].startswith(".sigma-0.1-step-000000001.safetensors.")
    assert names[0][0].endswith(".part")


# ----------------------------------------------------------------------- which snapshots are kept


@pytest.mark.parametrize(("every", "limit"), [(1, 4), (1, 24), (3, 5), (10, 8)])
def test_what_is_kept_later_was_kept_before(every: int, limit: int) -> None:
    """So the steps that a resumed run does again find nothing missing that an unbroken run would have."""
    before: list[int] = []
    for step in range(every, 60 * every, every):
        kept = ema.kept_at(step, every, limit)
        assert len(kept) <= limit
        assert kept[-1] == step
        assert set(kept) <= {*before, step}
        before = kept
    assert ema.kept_at(59, 0, limit) == []


def test_another_interval_on_the_way_keeps_old_snapshots_spread(tmp_path: Path) -> None:
    for step in range(10, 160, 10):
        Snapshots(tmp_path, 10, limit=8).add(0.1, step, {"w": torch.ones(1)})
    for step in range(153, 180, 3):
        Snapshots(tmp_path, 3, limit=8).add(0.1, step, {"w": torch.ones(1)})
    left = [step for _, step in Snapshots(tmp_path, 3).entries()]
    assert len(left) == 8
    assert {174, 177} <= set(left)
    assert min(left) < 60


class Killed(BaseException):
    """Stands for a kill: nothing of the package catches it."""


def thinned(tmp_path: Path, width: float = 0.08) -> FlowRecipe:
    """Many snapshots, few kept, checkpoints more seldom, and a width that is made from the snapshots."""
    ema_ = {"snapshots": 8, "final": [width, 0.05]}
    every = {"log": 0, "validate": 0, "snapshot": 1, "checkpoint": 5}
    return tiny_recipe(tmp_path, steps=40, batch=4, ema=ema_, every=every, schedule={"milestones": []})


def killed_at(step: int, recipe_: FlowRecipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Trainer.train_step

    def until(self: Trainer) -> torch.Tensor:
        if self.step == step:
            raise Killed
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", until)
        with pytest.raises(Killed):
            train(recipe_, out, quiet=True)


def test_a_width_made_from_thinned_snapshots_survives_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when snapshots of before the checkpoint had been thinned for later ones: the same bits in the end."""
    run, whole, broken = thinned(tmp_path), tmp_path / "whole", tmp_path / "broken"
    train(run, whole, quiet=True)
    for step in (14, 19, 29, 34):
        killed_at(step, run, broken, monkeypatch)
        assert len(list((broken / "snapshots").iterdir())) <= 2 * 8
    train(run, broken, quiet=True)
    names = [sorted(p.name for p in (out / "snapshots").iterdir()) for out in (whole, broken)]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * 8
    for name in ("last", "ema-0.05", "ema-0.08"):
        found, expected = (load_file(out / "weights" / f"{name}.safetensors") for out in (broken, whole))
        assert all(torch.equal(found[k], v) for k, v in expected.items()), name


def test_a_width_that_cannot_be_made_is_refused_and_nothing_else_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots are missing at the end: the average would be another than its name says."""
    run, out = thinned(tmp_path, 0.15), tmp_path / "out"
    killed_at(39, run, out, monkeypatch)
    for path in (out / "snapshots").iterdir():
        path.unlink()
    with pytest.raises(MissingRequirement, match=r"ema-0\.15.* is not written: .*width 0\.15 at step 40 .*by \d\d%"):
        train(run, out, quiet=True)
    assert {p.name for p in (out / "weights").iterdir()} == {"last.safetensors", "ema-0.05.safetensors"}


@pytest.mark.parametrize("damage", ["cut off", "flipped"])
def test_a_damaged_snapshot_is_named_and_can_be_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    run, out = thinned(tmp_path), tmp_path / "out"
    killed_at(39, run, out, monkeypatch)
    damaged = Snapshots(out / "snapshots", 1).path(*Snapshots(out / "snapshots", 1).entries()[1])
    content = damaged.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    damaged.write_bytes(content[:-9] if damage == "cut off" else flipped)
    with pytest.raises(MissingRequirement, match=f"snapshot {damaged} cannot be read .*Remove this file"):
        train(run, out, quiet=True)
    assert {p.name for p in (out / "weights").iterdir()} == {"last.safetensors", "ema-0.05.safetensors"}
    damaged.unlink()
    train(run, out, quiet=True)
    assert (out / "weights" / "ema-0.08.safetensors").is_file()
