"""Every config of the package: it reads, is what its name says, and trains two steps at a small size."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from av_bench.contracts import UsageError
from av_bench.schema import build, merge
from model_zoo.mmaudio.config import VARIANTS, NetworkConfig
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.journal import Journal, read_log
from model_zoo.mmaudio.training.loop import train
from model_zoo.mmaudio.training.recipe import CONFIGS, FlowRecipe, read_recipe
from model_zoo.mmaudio.training.setup import network_config
from tests.command import av_bench
from tests.model_zoo.mmaudio.goldens import full_disk
from tests.model_zoo.mmaudio.training_tools import NETWORK, config_file, folder, tiny_recipe

NAMES = [
    p.relative_to(CONFIGS).with_suffix("").as_posix() for p in sorted(CONFIGS.rglob("*.yaml")) if "nano" not in p.name
]
PAPER = ("small_16k", "small_44k", "medium_44k", "large_44k", "large_44k_v2")
# one of each kind trains in the core suite; the others have the same code and other numbers
QUICK = ("small_16k", "large_44k_v2", *(f"ablations/{n}" for n in ("table4_av_at", "table5_25", "table6_sync_sum")))
QUICK += tuple(f"ablations/{n}" for n in ("table6_rope_none", "table7_mlp", "tablea3_zero"))
SWITCHES = ("sync", "rope", "ffn", "empty", "v2")

# what each ablation changes in the network of S-16kHz (paper, tables 4 to 7 and A3)
CHANGES: dict[str, dict[str, Any]] = {
    "table6_sync_sum": {"sync": "sum"},
    "table6_sync_none": {"sync": "none"},
    "table6_rope_none": {"rope": "none"},
    "table6_rope_default": {"rope": "default"},
    "table7_mlp": {"ffn": "mlp", "hidden": 512, "heads": 8, "depth": 16, "fused_depth": 10},
    "table7_n1_2_n2_13": {"depth": 15, "fused_depth": 13},
    "table7_n1_6_n2_3": {"depth": 9, "fused_depth": 3},
    "tablea3_zero": {"empty": "zero"},
}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with video and one without."""
    root = tmp_path_factory.mktemp("features")
    return folder(root / "video", 8), folder(root / "audio", 8, video=False, seed=1)


def shrunken(name: str, features: tuple[Path, Path]) -> FlowRecipe:
    """The config with every size small, its switches and its mix kept."""
    recipe = read_recipe(name)
    config = network_config(recipe)
    content = json.loads(json.dumps(asdict(recipe)))
    for source in [*content["data"]["train"], *content["data"]["validation"]]:
        source["path"] = str(features["vggsound" not in source["path"]])
        source["share"] = max(source["share"], 0.5)
    kept = {key: getattr(config, key) for key in (*SWITCHES, "depth", "fused_depth")}
    content["network"] = NETWORK | kept
    small = {
        "batch": 4, "steps": 2, "schedule": {"warmup": 1, "milestones": [1]},
        "every": {"log": 1, "validate": 2, "metrics": 0, "snapshot": 1, "checkpoint": 0},
        "run": {"device": "cpu", "compile": False, "tensorboard": False}, "data": {"threads": 0},
    }  # fmt: skip
    return build(FlowRecipe, merge(content, small), name)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_config_trains_two_steps(name: str, features: tuple[Path, Path], tmp_path: Path) -> None:
    train(shrunken(name, features), tmp_path, quiet=True)
    # that its switches are on is seen below: two small steps from closed gates cannot tell them apart
    losses = [e["loss"] for e in read_log(tmp_path / "log.jsonl") if e["kind"] == "train"]
    assert len(losses) == 2
    weights = load_file(tmp_path / "weights" / "last.safetensors")
    assert all(bool(v.isfinite().all()) for v in weights.values())
    assert float(weights["final_layer.conv.weight"].abs().max()) > 0  # starts at zero


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("ablations/")])
def test_ablation_changes_what_its_row_says(name: str) -> None:
    found, default = network_config(read_recipe(name)), VARIANTS["mmaudio-s-16k"].network
    changed = {
        f.name: getattr(found, f.name)
        for f in fields(NetworkConfig)
        if getattr(found, f.name) != getattr(default, f.name)
    }
    assert changed == CHANGES.get(name.removeprefix("ablations/"), {})


# ----------------------------------------------------------------------- what the switches do


def random_network(config: NetworkConfig) -> FlowNetwork:
    """All that is trained is random, so no gate is closed; alike in networks that have a tensor in common."""
    constants = {"latent_mean": torch.zeros(config.latent_dim), "latent_std": torch.ones(config.latent_dim)}
    network = FlowNetwork(config, **constants)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@torch.no_grad()
def velocity(network: FlowNetwork, drop: bool = False, **changed: torch.Tensor) -> torch.Tensor:
    """Velocity (1, N, C) at inputs that are always the same, but for those ``changed``."""
    config, generator = network.config, torch.Generator().manual_seed(1)
    lengths = {"latent": config.latent_len, "clip": config.clip_len, "sync": config.sync_len, "text": config.text_len}
    widths = {"latent": config.latent_dim, "clip": config.clip_dim, "sync": config.sync_dim, "text": config.text_dim}
    given = {name: torch.randn(1, lengths[name], widths[name], generator=generator) for name in lengths} | changed
    found = network(**given, t=torch.tensor([0.4]), drop_video=torch.tensor([drop]))
    assert bool(found.isfinite().all())
    assert float(found.std()) > 0.01
    return found  # type: ignore[no-any-return]


def switched(name: str, features: tuple[Path, Path], **more: Any) -> FlowNetwork:
    return random_network(replace(network_config(shrunken(f"ablations/{name}", features)), **more))


@pytest.fixture(scope="module")
def default_velocity(features: tuple[Path, Path]) -> dict[bool, torch.Tensor]:
    """Velocity of S-16kHz with video and with video dropped."""
    network = random_network(network_config(shrunken("small_16k", features)))
    return {drop: velocity(network, drop) for drop in (False, True)}


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("ablations/")])
def test_the_velocity_differs_where_the_network_does(
    name: str, features: tuple[Path, Path], default_velocity: dict[bool, torch.Tensor]
) -> None:
    row = name.removeprefix("ablations/")
    network = switched(row, features)
    for drop in (False, True):
        changes = row in CHANGES and (drop or row != "tablea3_zero")  # empty tokens are seen when video is dropped
        assert torch.equal(velocity(network, drop), default_velocity[drop]) is not changes


def test_version_2_is_another_network(features: tuple[Path, Path]) -> None:
    one, two = (random_network(network_config(shrunken(n, features))) for n in ("large_44k", "large_44k_v2"))
    assert not torch.equal(velocity(one), velocity(two))


@pytest.mark.parametrize(
    ("name", "seen"), [("table6_sync_module", True), ("table6_sync_sum", True), ("table6_sync_none", False)]
)
def test_sync_features_are_seen_where_there_is_a_way_in(name: str, seen: bool, features: tuple[Path, Path]) -> None:
    network = switched(name, features)
    other = torch.ones(1, network.config.sync_len, network.config.sync_dim)
    assert torch.equal(velocity(network), velocity(network, sync=other)) is not seen


@pytest.mark.parametrize(
    ("name", "placed"), [("table6_sync_module", True), ("table6_rope_default", True), ("table6_rope_none", False)]
)
def test_without_rotations_frames_have_no_place(name: str, placed: bool, features: tuple[Path, Path]) -> None:
    """Frames in another order, in a network whose visual layers see one frame at a time."""
    network = switched(name, features, ffn="mlp")
    clip = torch.randn(1, network.config.clip_len, network.config.clip_dim, generator=torch.Generator().manual_seed(2))
    there, back = velocity(network, clip=clip), velocity(network, clip=clip.flip(1))
    assert torch.allclose(there, back, rtol=1e-3, atol=1e-4) is not placed


def test_aligned_rotations_are_the_default_at_equal_rates(features: tuple[Path, Path]) -> None:
    for clip_len, same in ((4, False), (NETWORK["latent_len"], True)):
        aligned, default = (
            switched(n, features, clip_len=clip_len) for n in ("table6_sync_module", "table6_rope_default")
        )
        assert torch.equal(velocity(aligned), velocity(default)) is same


@pytest.mark.parametrize(("name", "reach"), [("table7_convmlp", 3), ("table7_mlp", 1)])
def test_conv_mlps_mix_neighbours(name: str, reach: int, features: tuple[Path, Path]) -> None:
    """How many visual tokens a change of the first frame reaches before attention: two kernels of 3, or none."""
    network = switched(name, features)
    config = network.config
    clip, sync, text = (
        torch.zeros(1, getattr(config, f"{n}_len"), getattr(config, f"{n}_dim")) for n in ("clip", "sync", "text")
    )
    changed = clip.clone()
    changed[0, 0] = 1
    with torch.no_grad():
        moved = network.preprocess(changed, sync, text).clip - network.preprocess(clip, sync, text).clip
    assert moved[0].abs().amax(1).gt(1e-6).nonzero().flatten().tolist() == list(range(reach))


@pytest.mark.parametrize(("name", "learned"), [("tablea3_learned", True), ("tablea3_zero", False)])
def test_dropped_video_becomes_the_empty_tokens(name: str, learned: bool, features: tuple[Path, Path]) -> None:
    network = switched(name, features)
    config = network.config
    nothing = {"clip": torch.zeros(1, config.clip_len, 12), "sync": torch.zeros(1, config.sync_len, 10)}
    tokens = {
        "clip": network.empty_clip_feat.expand(1, config.clip_len, -1),
        "sync": network.empty_sync_feat.expand(1, config.sync_len, -1),
    }
    dropped = velocity(network, drop=True)
    assert torch.equal(dropped, velocity(network, **tokens))
    assert torch.equal(dropped, velocity(network, **nothing)) is not learned


@pytest.mark.parametrize("name", [n for n in CHANGES if n.startswith("table7_n1")])
def test_blocks_are_as_many_as_the_name_says(name: str, features: tuple[Path, Path]) -> None:
    network = switched(name, features)
    joint, fused = re.fullmatch(r"table7_n1_(\d+)_n2_(\d+)", name).groups()  # type: ignore[union-attr]
    assert (len(network.joint_blocks), len(network.fused_blocks)) == (int(joint), int(fused))


def test_every_row_of_the_tables_has_a_config() -> None:
    rows = {"table4": 5, "table5": 5, "table6": 5, "table7": 4, "tablea3": 3}
    # table 6 lists its default twice, table 7 too: one config each
    found = [Path(name).name.split("_")[0] for name in NAMES if name.startswith("ablations/")]
    assert {key: found.count(key) for key in rows} == rows
    assert len(found) == sum(rows.values())


@pytest.mark.parametrize(
    ("name", "hidden_text", "shares", "repeats"),
    [
        ("table4_avt_at", [False] * 6, [1.0] * 6, [5, 1, 1, 1, 1, 1]),
        ("table4_av_at", [True] + [False] * 5, [1.0] * 6, [5, 1, 1, 1, 1, 1]),
        ("table4_avt_a", [False] + [True] * 5, [1.0] * 6, [5, 1, 1, 1, 1, 1]),
        ("table4_avt", [False], [1.0], [1]),
        ("table4_av", [True], [1.0], [1]),
        ("table5_50", [False] * 6, [1.0] + [0.5] * 5, [5, 2, 2, 2, 2, 2]),
        ("table5_25", [False] * 6, [1.0] + [0.25] * 5, [5, 4, 4, 4, 4, 4]),
        ("table5_10", [False] * 6, [1.0] + [0.1] * 5, [5, 10, 10, 10, 10, 10]),
        ("table5_none", [False], [1.0], [1]),
    ],
)
def test_mix_of_tables_4_and_5(name: str, hidden_text: list[bool], shares: list[float], repeats: list[int]) -> None:
    train_sources = read_recipe(f"ablations/{name}").data.train
    assert [not s.text for s in train_sources] == hidden_text
    assert [s.share for s in train_sources] == shares
    assert [s.repeat for s in train_sources] == repeats


@pytest.mark.parametrize("name", PAPER)
def test_published_configs(name: str) -> None:
    """Appendix H and table A6."""
    recipe = read_recipe(name)
    assert (recipe.batch, recipe.steps, recipe.schedule.warmup) == (512, 300_000, 1000)
    assert recipe.schedule.milestones == (0.8 * recipe.steps, 0.9 * recipe.steps)
    assert (recipe.optimiser.rate, recipe.optimiser.weight_decay, recipe.optimiser.betas) == (1e-4, 1e-6, (0.9, 0.95))
    assert (recipe.dropout.video, recipe.dropout.text, recipe.run.precision) == (0.1, 0.1, "bf16")
    assert recipe.data.train[0].repeat == (5 if name.startswith("small") else 3)
    size, rate, *version = name.split("_")
    variant = "-".join(["mmaudio", size[0], rate, *version])
    assert network_config(recipe) == VARIANTS[variant].network
    assert all(f"features/{rate}/" in s.path for s in (*recipe.data.train, *recipe.data.validation))


def test_learnable_empty_text_is_trained_and_zeros_stay(features: tuple[Path, Path], tmp_path: Path) -> None:
    states = {}
    for row in ("learned", "all_learned", "zero"):
        recipe = replace(shrunken(f"ablations/tablea3_{row}", features), steps=4)  # gates open one after the other
        train(recipe, tmp_path / row, quiet=True)
        states[row] = load_file(tmp_path / row / "weights" / "last.safetensors")
    assert not torch.equal(states["learned"]["empty_string_feat"], states["all_learned"]["empty_string_feat"])
    for key in ("empty_string_feat", "empty_clip_feat", "empty_sync_feat"):
        assert not bool(states["zero"][key].any())
    assert bool(states["learned"]["empty_clip_feat"].any())


# ----------------------------------------------------------------------- reading configs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batchsize=3", "unknown key 'batchsize'. Did you mean 'batch'"),
        ("optimiser.rate=fast", "optimiser: rate: expected a number"),
        ("optimiser.betas=[0.9]", "betas: expected 2 values, got 1"),
        ("run.precision=fp16", "expected one of bf16, fp32, got 'fp16'"),
        ("data.train=[]", "data.train is empty"),
        ("batch=0", "must be positive"),
        ("batch=true", "expected a whole number, got True"),
        ("network.heads=0", "network: heads must be at least 1, got 0"),
        ("network.hidden=0", "network: hidden must be at least 1, got 0"),
        ("network.depth=-3", "network: depth must be at least 1, got -3"),
        ("network.sync_dim=0", "network: sync_dim must be at least 1, got 0"),
        ("network.mlp_ratio=0", "network: mlp_ratio must be a number above 2 / hidden, got 0"),
        ("network.mlp_ratio=.nan", "mlp_ratio must be a number above 2 / hidden, got nan"),
        ("network.mlp_ratio=0.004", "mlp_ratio must be a number above 2 / hidden, got 0.004"),
        ("network.mlp_ratio=0.01", ""),
        ("network.sinc=none", "unknown key 'sinc'. Did you mean 'sync'"),
        ("network.variant=mmaudio-xl", "mmaudio-xl"),
        ("batch", "write KEY=VALUE"),
        ("ema.sigma_rel=[0.05]", ""),
        ("ema.final=[0.5]", "ema.final: 0.5 must lie between 0 and 0.2887"),
        ("ema.final=[.nan]", "ema.final: nan must lie between"),
        ("ema.final=[0.02]", ""),
        ("ema.final=[0.28]", "width 0.28 would be off by 21%"),
        ("ema={final: [0.2], sigma_rel: [0.05]}", "needs two tracked widths"),
        ("ema.sigma_rel=[]", "one width or more"),
        ("ema.sigma_rel=[0.05, 0.05]", "each once"),
        ("ema.sigma_rel=[0.0, 0.05]", "ema.sigma_rel: 0.0 must lie between"),
        ("ema.snapshots=3", "ema.snapshots must be at least 4, got 3"),
        ("dropout.video=10", "dropout.video is a chance in [0, 1], got 10.0"),
        ("dropout.text=-0.1", "dropout.text is a chance"),
        ("data.threads=-1", "data.threads must not be negative, got -1"),
        ("optimiser.rate=.nan", "optimiser.rate must be a number that is not negative, got nan"),
        ("optimiser.weight_decay=-1", "optimiser.weight_decay must be"),
        ("optimiser.clip=0", "optimiser.clip must be a positive number"),
        ("optimiser.betas=[0.9, 1.0]", "optimiser.betas[1] must lie in"),
        ("schedule.gamma=.inf", "schedule.gamma must be a number"),
        ("schedule.warmup=-1", "schedule.warmup must not be negative"),
        ("schedule.milestones=[5, -5]", "schedule.milestones[1] must not be negative"),
        ("every.validate=-1", "every.validate must not be negative"),
        ("seed=-1", "seed must lie in"),
        ("seed=18446744073709551616", "seed must lie in"),
        ("run.device=gpu", "'gpu' is not one of auto, cpu, cuda, cuda:N"),
    ],
)
def test_wrong_keys_and_values_are_named(change: str, message: str) -> None:
    if not message:
        network_config(read_recipe("small_16k", [change]))
        return
    with pytest.raises(UsageError, match=re.escape(message)):
        network_config(read_recipe("small_16k", [change]))


def test_an_average_that_needs_snapshots_is_refused_without_them() -> None:
    """Two widths at the last step alone say little about a third one; the published number of snapshots does."""
    changes = ["ema.final=[0.2]", "every.snapshot=0"]
    with pytest.raises(UsageError, match=r"width 0\.2 would be off by 40% .* 1 snapshots .*every\.snapshot is 0"):
        read_recipe("small_16k", changes)
    assert read_recipe("small_16k", changes[:1]).ema.final == (0.2,)
    assert read_recipe("small_16k", [*changes, "ema.sigma_rel=[0.05, 0.1, 0.2]"]).every.snapshot == 0


def test_unknown_config_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'small_16k'"):
        read_recipe("smal_16k")


def test_changes_and_bases_are_laid_over(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: small_16k\nname: a\noptimiser: {rate: 2e-4}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nname: b\nnetwork: {rope: none}\n")
    recipe = read_recipe(tmp_path / "b.yaml", ["run.compile=false", "optimiser.clip=0.5"])
    assert (recipe.name, recipe.optimiser.rate, recipe.optimiser.clip, recipe.optimiser.eps) == ("b", 2e-4, 0.5, 1e-6)
    assert (network_config(recipe).rope, network_config(recipe).hidden, recipe.run.compile) == ("none", 448, False)
    (tmp_path / "c.yaml").write_text("base: c.yaml\nname: c\n")
    with pytest.raises(UsageError, match="lead back to itself"):
        read_recipe(tmp_path / "c.yaml")


def test_identity_covers_what_is_learned_and_not_how(tmp_path: Path) -> None:
    same = [{"steps": 9}, {"run": {"accumulate": 2}}, {"every": {"log": 5}}, {"name": "x"}]
    other = [
        {"seed": 1},
        {"network": {"rope": "none"}},
        {"dropout": {"video": 0.2}},
        {"optimiser": {"clip": 2.0}},
    ]
    base = tiny_recipe(tmp_path).identity()
    assert all(tiny_recipe(tmp_path, **change).identity() == base for change in same)
    assert all(tiny_recipe(tmp_path, **change).identity() != base for change in other)


# ----------------------------------------------------------------------- the command


def test_a_full_disk_is_one_line_and_the_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny_recipe(tmp_path, steps=2, every={"checkpoint": 0, "snapshot": 0}, ema={"final": []})
    command = [str(config_file(tmp_path / "a.yaml", recipe)), "--out", str(tmp_path / "out"), "--quiet"]
    with full_disk(500):  # the run's recipe.json does not fit
        assert av_bench("train", command) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File too large; make room there" in said
    assert av_bench("train", command) == 0


def test_closing_a_log_does_not_hide_why_the_run_ends(tmp_path: Path) -> None:
    """What a full disk has refused lies in the buffer, and closing tries it again."""
    with full_disk(100):
        journal = Journal(tmp_path, 0, tensorboard=False, quiet=True)
        journal.write(1, "train", {"loss": 1.0})
        with pytest.raises(OSError, match="too large"):
            journal.write(2, "train", {"text": "long " * 30})
        journal.close()
    Journal(tmp_path, 1, tensorboard=False, quiet=True).close()  # drops the line that was cut off
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "kind": "train", "loss": 1.0}]
