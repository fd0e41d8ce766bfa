"""Flow matching with the published sizes: a guided sample, operation counts, precision, and what a batch may not do."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from av_bench.runtime.devices import cast_once
from model_zoo import mmaudio
from model_zoo.mmaudio.config import VARIANTS, NetworkConfig, sequence_lengths
from model_zoo.mmaudio.flow import matching
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.sampling.generator import MMAudio
from model_zoo.mmaudio.sampling.settings import Settings
from tests.model_zoo.mmaudio.goldens import GOLDEN, needs_golden

TINY = NetworkConfig(5, 64, 5, 3, 2, 31, 8, 24, clip_dim=32, sync_dim=24, text_dim=40, text_len=7)
EXACT = 1e-12  # relative, for float64
SHEET = {
    "mmaudio-s-16k": "small_16k",
    "mmaudio-s-44k": "small_44k",
    "mmaudio-m-44k": "medium_44k",
    "mmaudio-l-44k": "large_44k",
    "mmaudio-l-44k-v2": "large_44k_v2",
}


def random_network(config: NetworkConfig = TINY) -> FlowNetwork:
    """Every tensor random, so that no block is a silent identity."""
    torch.manual_seed(3)
    ones = torch.ones(config.latent_dim)
    network = FlowNetwork(config, latent_mean=0.3 * ones, latent_std=2 * ones)
    for parameter in [p for p in network.parameters() if p.requires_grad]:
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.empty_string_feat)
    return network.eval()


def inputs(config: NetworkConfig, batch: int, seed: int = 0) -> list[Tensor]:
    """Latent, CLIP, sync and text tokens."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (config.latent_len, config.latent_dim),
        (config.clip_len, config.clip_dim),
        (config.sync_len, config.sync_dim),
        (config.text_len, config.text_dim),
    )
    return [torch.randn(batch, *shape, generator=generator) for shape in shapes]


def worst(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((ours - reference).abs().max() / reference.abs().max())


# --------------------------------------------------------------------------- published values


class _NoCodec:
    sample_rate, latent_dim = 16_000, 20

    def latent_len(self, seconds: float) -> int:
        return sequence_lengths("16k", seconds)[0]


class _NoConditioner:
    requests: tuple[Any, ...] = ()
    fingerprint = "none"
    device = torch.device("cpu")

    def lengths(self, seconds: float) -> tuple[int, int]:
        return sequence_lengths("16k", seconds)[1:]


@pytest.mark.slow
@needs_golden
@pytest.mark.parity
def test_a_guided_full_size_sample_of_five_steps() -> None:
    """The generator's own solver and guidance, S-16k with the recipe's weights; about 30 s on one core."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weight_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    golden = torch.load(GOLDEN / "full_size/small_16k.pt", weights_only=True)
    with torch.device("meta"):
        layout = FlowNetwork(VARIANTS["mmaudio-s-16k"].network).state_dict()
    network = mmaudio.build("mmaudio-s-16k", {k: rule.fill(k, v.shape) for k, v in layout.items()})
    shapes = (
        ("x", (1, 250, 20), 1.0),
        ("c", (1, 64, 1024), 1 / 32),
        ("s", (1, 192, 768), 1.0),
        ("t", (1, 77, 1024), 1 / 32),
    )
    noise, clip, sync, text = (rule.inp(f"small_16k{name}", shape, scale) for name, shape, scale in shapes)
    model: Any = MMAudio("s", network, _NoCodec(), _NoConditioner(), Settings(steps=5, cfg=4.5))  # type: ignore[arg-type]
    with torch.no_grad():
        sample = model._solve(noise, network.preprocess(clip, sync, text).join(network.empty(1)))
    assert worst(sample, golden["euler5_cfg4.5"]) < 1e-3


@needs_golden
@pytest.mark.parametrize("variant", SHEET)
def test_operation_counts_are_the_measured_ones(variant: str) -> None:
    sheet = json.loads((GOLDEN / "flops_memory.json").read_text())[f"{SHEET[variant]}@8s"]
    config = VARIANTS[variant].network
    with torch.device("meta"), torch.no_grad():
        network = FlowNetwork(config)
        latent, *conditions = (torch.empty(x.shape) for x in inputs(replace(config), 1))
        with FlopCounterMode(display=False) as counter:
            pre = network.preprocess(*conditions)
        assert counter.get_total_flops() / 1e9 == pytest.approx(sheet["gflops_preprocess"], rel=1e-9)
        with FlopCounterMode(display=False) as counter:
            network.flow(latent, torch.empty(1), pre)
        assert counter.get_total_flops() / 1e9 == pytest.approx(sheet["gflops_predict_flow"], rel=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 15, "fused_depth": 13},
        {"depth": 9, "fused_depth": 3},
        {"ffn": "mlp", "hidden": 512, "heads": 8, "depth": 16, "fused_depth": 10},
    ],
    ids=["N1=2,N2=13", "N1=6,N2=3", "MLP,h=512,N1=6,N2=10"],
)
def test_table_7_keeps_roughly_the_same_number_of_parameters(change: dict[str, Any]) -> None:
    base = VARIANTS["mmaudio-s-16k"].network
    with torch.device("meta"):
        counts = [sum(p.numel() for p in FlowNetwork(c).parameters()) for c in (base, replace(base, **change))]
    assert counts[1] == pytest.approx(counts[0], rel=0.05)
    if change.get("ffn") == "mlp":  # at the old size it would be half: the sizes above are what makes up for it
        with torch.device("meta"):
            plain = sum(p.numel() for p in FlowNetwork(replace(base, ffn="mlp")).parameters())
        assert plain < 0.6 * counts[0]


# --------------------------------------------------------------------------- batches and precision


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """In float64: an influence would stay, while rounding, which a batch does change (3e-6 in float32), goes away."""
    network, (latent, *conditions) = random_network().double(), [x.double() for x in inputs(TINY, 4)]
    t = torch.tensor([0.0, 0.3, 0.6, 1.0]).double()
    with torch.no_grad():
        together = network.flow(latent, t, network.preprocess(*conditions))
        for i in range(4):
            row = slice(i, i + 1)
            alone = network.flow(latent[row], t[row], network.preprocess(*(c[row] for c in conditions)))
            assert worst(together[row], alone) < EXACT
        others = [torch.cat([x[:1], x[1:].flip(0)]) for x in (latent, *conditions)]
        moved = network.flow(others[0], torch.cat([t[:1], t[1:].flip(0)]), network.preprocess(*others[1:]))
    assert worst(moved[0], together[0]) < EXACT


def test_conditional_and_unconditional_pass_in_one_batch_equal_two() -> None:
    network, (latent, *conditions) = random_network().double(), [x.double() for x in inputs(TINY, 3)]
    t, negative = torch.full((3,), 0.4).double(), torch.randn(1, 7, 40)
    with torch.no_grad():
        real, empty = network.preprocess(*conditions), network.empty(3, negative)
        both = network.flow(torch.cat([latent, latent]), torch.cat([t, t]), real.join(empty))
        for ours, pre in zip(both.chunk(2), (real, empty), strict=True):
            assert worst(ours, network.flow(latent, t, pre)) < EXACT
    assert worst(both[:3], both[3:]) > 1e-2


def test_dropped_conditions_are_the_unconditional_pass() -> None:
    network, (latent, *conditions) = random_network(), inputs(TINY, 2)
    t, gone, kept = torch.tensor([0.2, 0.9]), torch.tensor([True, False]), torch.tensor([False, False])
    with torch.no_grad():
        velocity = network(latent, *conditions, t, drop_video=gone, drop_text=gone)
        assert worst(velocity[0], network.flow(latent, t, network.empty(2))[0]) < 1e-6
        assert worst(velocity[1], network(latent, *conditions, t)[1]) < 1e-6
        only_text = network(latent, *conditions, t, drop_video=gone, drop_text=kept)
    assert worst(only_text[0], velocity[0]) > 1e-3


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_bf16_autocast_keeps_the_times_exact(v2: bool) -> None:
    """Frequencies rounded to bf16 would move version 2's angles, up to 10,000, by many turns."""
    network, (latent, *conditions) = random_network(replace(TINY, v2=v2)), inputs(TINY, 2)
    t = torch.tensor([0.371, 0.92])
    with torch.no_grad():
        wanted = network.flow(latent, t, network.preprocess(*conditions))
        exact = network.t_embed.sinusoids(t)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network.t_embed.sinusoids(t), exact)
            ours = network.flow(latent, t, network.preprocess(*conditions)).float()
        rounded = network.t_embed.freqs.bfloat16().float()
        angles = t[:, None] * rounded
        coarse = torch.cat([angles.cos(), angles.sin()], dim=-1)
    assert worst(ours, wanted) < 0.1
    assert float((coarse - exact).abs().max()) > (0.5 if v2 else 1e-4)


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_weights_cast_once_give_what_autocast_gives(v2: bool) -> None:
    network, (latent, *conditions) = random_network(replace(TINY, v2=v2)), inputs(TINY, 2)
    t = torch.tensor([0.371, 0.92])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = network.flow(latent, t, network.preprocess(*conditions))
        cast_once(network)
        assert network.final_layer.conv.weight.dtype == torch.bfloat16
        assert torch.equal(network.flow(latent, t, network.preprocess(*conditions)), wanted)


# --------------------------------------------------------------------------- small promises


def test_noise_is_a_function_of_seed_clip_and_k() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = matching.noise((250, 20), 42, "clip", 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, matching.noise((250, 20), 42, "clip", 0))
    others = [matching.noise((250, 20), *key) for key in ((43, "clip", 0), (42, "clip2", 0), (42, "clip", 1))]
    for other in others:
        assert abs(float((first * other).mean())) < 0.05  # 5000 independent products: deviation 0.014
    assert abs(float(first.mean())) < 0.05
    assert float(first.std()) == pytest.approx(1, abs=0.05)


def test_normalising_changes_nothing_in_place_and_is_undone() -> None:
    network, latent = random_network(), torch.randn(2, 31, 5)
    kept = latent.clone()
    scaled = network.normalize(latent)
    assert torch.equal(latent, kept)
    torch.testing.assert_close(scaled, (kept - 0.3) / 2)
    torch.testing.assert_close(network.unnormalize(scaled), kept)


def test_lengths_belong_to_one_network() -> None:
    one, two = random_network(), random_network()
    before = (two.latent_rot.clone(), two.clip_rot.clone())
    one.set_lengths(62, 16, 48)
    assert torch.equal(two.latent_rot, before[0])
    assert torch.equal(two.clip_rot, before[1])
    assert (one.config.latent_len, two.config.latent_len, TINY.latent_len) == (62, 31, 31)
    assert VARIANTS["mmaudio-s-16k"].network.latent_len == 250
