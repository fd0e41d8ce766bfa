"""The flow network against the published one: layouts, values, gradients, and what the ablations change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from av_bench.contracts import UsageError
from av_bench.weights import BadWeights
from model_zoo import mmaudio
from model_zoo.mmaudio.config import VARIANTS, NetworkConfig, audio_samples, sequence_lengths
from model_zoo.mmaudio.flow import matching
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.flow.rope import rotate, rotations
from tests.model_zoo.mmaudio.goldens import GOLDEN, close, needs_golden, recipe

TINY = NetworkConfig(5, 64, 5, 3, 2, 31, 8, 24, clip_dim=32, sync_dim=24, text_dim=40, text_len=7)
LAYOUTS = {
    "mmaudio-s-16k": ("small_16k", 157_283_644),
    "mmaudio-s-44k": ("small_44k", 157_409_144),
    "mmaudio-m-44k": ("medium_44k", 621_805_944),
    "mmaudio-l-44k": ("large_44k", 1_030_002_168),
    "mmaudio-l-44k-v2": ("large_44k_v2", 1_030_575_608),
}


def load(name: str) -> Any:
    return torch.load(GOLDEN / "mmaudio_tiny" / name, weights_only=True)


def tiny(version: str) -> FlowNetwork:
    network = FlowNetwork(replace(TINY, v2=version == "v2"))
    network.load_official(load(f"weights_{version}.pt")["state_dict"])
    return network.eval()


@needs_golden
@pytest.mark.parametrize("variant", LAYOUTS)
def test_every_key_shape_and_count_is_the_official_one(variant: str) -> None:
    name, count = LAYOUTS[variant]
    layout = json.loads((GOLDEN / f"layouts/statedict_mmaudio_{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        network = FlowNetwork(VARIANTS[variant].network)
    ours = network.state_dict()
    assert {k: list(v.shape) for k, v in ours.items()} == {k: list(v["shape"]) for k, v in layout.items()}
    assert sum(p.numel() for p in network.parameters()) == count
    trainable = {k for k, p in network.named_parameters() if p.requires_grad}
    assert trainable == {k for k, v in layout.items() if v["trainable"]}


@needs_golden
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_values_are_the_published_networks(version: str) -> None:
    golden, network = load(f"forward_{version}.pt"), tiny(version)
    given = golden["inputs"]
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, tuple):
                seen.update({f"{name}.{k}": v for k, v in zip(("latent", "clip", "text"), output, strict=True)})
            else:
                seen[name] = output

        return hook

    network.audio_input_proj.register_forward_hook(keep("audio_input_proj"))
    network.global_cond_mlp.register_forward_hook(keep("global_cond_mlp"))
    for i, block in enumerate(network.joint_blocks):
        block.register_forward_hook(keep(f"joint{i}"))
    for i, block in enumerate(network.fused_blocks):
        block.register_forward_hook(keep(f"fused{i}"))
    with torch.no_grad():
        pre = network.preprocess(given["clip"], given["sync"], given["text"])
        velocity = network.flow(given["latent"], given["t"], pre)
        close(velocity, golden["flow_t"])
        for name in ("audio_input_proj", "global_cond_mlp", "joint0.latent", "joint0.clip", "joint0.text", "fused2"):
            close(seen[name], golden["intermediates"][name])
        close(network.flow(given["latent"], given["t2"], pre), golden["flow_t2"])
        close(network.t_embed(golden["t_embed_in"]), golden["t_embed"])
        close(network.t_embed.sinusoids(golden["t_embed_in"]), golden["t_freq_embed"])
        for found, wanted in (
            (pre, "conditions"),
            (network.empty(2), "empty_conditions"),
            (network.empty(2, given["neg_text"]), "empty_conditions_neg"),
        ):
            assert found.sync is not None
            ours = (found.clip, found.sync, found.text, found.pooled_clip, found.pooled_text)
            for value, key in zip(ours, ("clip_f", "sync_f", "text_f", "clip_f_c", "text_f_c"), strict=True):
                close(value, golden[wanted][key])


@needs_golden
def test_rotations() -> None:
    golden = load("rope.pt")
    for name, case in golden.items():
        if name == "apply":
            continue
        ours = rotations(case["n"], case["dim"], case["scaling"])
        close(ours[0, [1, -1]], case["rot_first_last"], 1e-5)
        assert float(ours[..., 0, 0].sum()) == pytest.approx(case["cos_sum"], rel=1e-5)
    close(rotate(golden["apply"]["x"], golden["apply"]["rot"]), golden["apply"]["y"], 1e-6)


@needs_golden
def test_full_size_small_16k() -> None:
    golden, rule = torch.load(GOLDEN / "full_size/small_16k.pt", weights_only=True), recipe()
    with torch.device("meta"):
        layout = FlowNetwork(VARIANTS["mmaudio-s-16k"].network).state_dict()
    network = mmaudio.build("mmaudio-s-16k", {k: rule.fill(k, v.shape) for k, v in layout.items()})
    shapes = {
        "x": ((1, 250, 20), 1),
        "c": ((1, 64, 1024), 1 / 32),
        "s": ((1, 192, 768), 1),
        "t": ((1, 77, 1024), 1 / 32),
    }
    given = {k: rule.inp(f"small_16k{k}", shape, scale) for k, (shape, scale) in shapes.items()}
    with torch.no_grad():
        pre = network.preprocess(given["c"], given["s"], given["t"])
        close(pre.pooled_clip, golden["cond_clip_f_c"])
        close(pre.pooled_text, golden["cond_text_f_c"])
        close(network.flow(given["x"], torch.tensor([0.37]), pre), golden["flow_t0.37"])


@needs_golden
def test_a_training_steps_losses_and_gradients() -> None:
    golden, network = load("train_step_v1.pt"), tiny("v1").train()
    given = golden["inputs"]
    data = network.normalize(given["a_mean"] + given["a_std"] * given["eps"])
    close(data, golden["x1_normalized"])
    state = matching.interpolate(given["x0"], data, given["t"])
    close(state, golden["xt"])
    velocity = network(
        state,
        given["clip"],
        given["sync"],
        given["text"],
        given["t"],
        drop_video=~given["video_exist"] | given["null_video"],
        drop_text=~given["text_exist"] | given["null_text"],
    )
    close(velocity, golden["pred_v"])
    losses = matching.loss_per_sample(velocity, matching.target(given["x0"], data))
    close(losses, golden["loss_per_sample"])
    losses.mean().backward()
    for name, norm in golden["grad_norm_per_param_before_clip"].items():
        gradient = network.get_parameter(name).grad
        if norm is None:
            assert gradient is None, name
        else:
            assert gradient is not None, name
            assert float(gradient.norm()) == pytest.approx(norm, rel=1e-3, abs=1e-5), name


@needs_golden
def test_sequence_lengths_of_every_duration() -> None:
    golden = json.loads((GOLDEN / "mmaudio_tiny/sequence_config.json").read_text())
    assert len(golden) == 36  # 18 durations at both rates
    for row in golden:
        rate = "16k" if row["sr"] == 16_000 else "44k"
        assert sequence_lengths(rate, row["duration"]) == (row["latent"], row["clip"], row["sync"])  # type: ignore[arg-type]
        assert audio_samples(rate, row["duration"]) == row["audio_samples"]  # type: ignore[arg-type]


@needs_golden
def test_initial_values_follow_the_published_rules() -> None:
    rules = json.loads((GOLDEN / "mmaudio_tiny/init.json").read_text())
    torch.manual_seed(0)
    zero = {k for k, v in FlowNetwork(TINY).state_dict().items() if bool((v == 0).all())}
    assert zero == set(rules["zero_initialised"])


@pytest.mark.parametrize(
    "change",
    [
        {"sync": "sum"},
        {"sync": "none"},
        {"rope": "default"},
        {"rope": "none"},
        {"ffn": "mlp"},
        {"empty": "zero"},
        {"v2": True},
    ],
    ids=str,
)
def test_ablations_train(change: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = FlowNetwork(replace(TINY, **change), latent_mean=torch.zeros(5), latent_std=torch.ones(5))
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    inputs = [torch.randn(2, n, c) for n, c in ((31, 5), (8, 32), (24, 24), (7, 40))]
    dropped = torch.tensor([True, False])
    wanted, losses = torch.randn(2, 31, 5), []
    for _ in range(3):
        velocity = network(*inputs, torch.tensor([0.2, 0.7]), drop_video=dropped, drop_text=~dropped)
        loss = matching.loss_per_sample(velocity, wanted).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_every_block_can_use_the_fused_attention() -> None:
    """Its kernels refuse interleaved channels; on a GPU the way round them is many times slower."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    network = FlowNetwork(TINY).eval()
    raw = torch.randn(1, 8, 32), torch.randn(1, 24, 24), torch.randn(1, 7, 40)
    with torch.no_grad(), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        network(torch.randn(1, 31, 5), *raw, torch.ones(1))


def test_without_sync_module_the_sync_features_change_nothing() -> None:
    torch.manual_seed(0)
    for switch, differs in (("none", False), ("module", True), ("sum", True)):
        network = FlowNetwork(replace(TINY, sync=switch))  # type: ignore[arg-type]
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        clip, text = torch.randn(1, 8, 32), torch.randn(1, 7, 40)
        one, two = (network(torch.ones(1, 31, 5), clip, torch.randn(1, 24, 24), text, torch.ones(1)) for _ in range(2))
        assert torch.equal(one, two) != differs


def test_other_lengths_and_wrong_weights_are_named() -> None:
    network = FlowNetwork(TINY)
    network.set_lengths(40, 10, 32)
    assert network(
        torch.randn(1, 40, 5), torch.randn(1, 10, 32), torch.randn(1, 32, 24), torch.randn(1, 7, 40), torch.ones(1)
    ).shape == (1, 40, 5)
    with pytest.raises(UsageError, match="sync has 24 tokens, the network is set to 32"):
        network.preprocess(torch.randn(1, 10, 32), torch.randn(1, 24, 24), torch.randn(1, 7, 40))
    state = network.state_dict()
    state["stray"] = state.pop("t_embed.mlp.0.bias")
    with pytest.raises(BadWeights, match=r"missing keys \(t_embed.mlp.0.bias\).*unexpected keys \(stray\)"):
        network.load_official(state)
    with pytest.raises(UsageError, match="unknown MMAudio variant"):
        mmaudio.build("mmaudio-xl")
