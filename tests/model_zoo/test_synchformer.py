"""Synchformer against golden vectors of the reference network, and against plain masked attention without them.

Two weight rules: A has ordinary magnitudes; B shrinks every residual stream so that each LayerNorm sees a variance
near 1e-6 and a wrong epsilon moves the output by more than its own spread.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from av_bench.networks import synchformer as sync

GOLDEN = Path(__file__).parents[2] / "../shared/golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files: folder 'shared' is not beside the repo")
VIDEO_TOKENS = [0, 1, 2, 15, 197, 1568]
PATCH_TOKENS = [0, 1, 14, 196, 1567]
HEAD_TOKENS = [0, 1, 112, 113, 114, 197]


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return rng.standard_normal(shape, dtype=np.float32)


def rule_a(key: str, shape: tuple[int, ...]) -> Tensor:
    a = draw(key, shape)
    if len(shape) >= 2 and key.endswith("weight"):
        a = a * np.float32(0.7 / math.sqrt(math.prod(shape[1:])))
    elif len(shape) == 1 and key.endswith(".weight"):
        a = 1 + np.float32(0.1) * a
    else:
        a = a * np.float32(0.1)
    return torch.from_numpy(a)


def layout() -> dict[str, tuple[int, ...]]:
    table = json.loads((GOLDEN / "layouts/statedict_synchformer_full.json").read_text())["keys"]
    return {key: tuple(shape) for key, shape in table.items()}


@pytest.fixture(scope="module")
def ordinary() -> dict[str, Tensor]:
    return {key: rule_a(key, shape) for key, shape in layout().items()}


@pytest.fixture(scope="module", params=["A", "B"])
def golden(request: pytest.FixtureRequest, ordinary: dict[str, Tensor]) -> tuple[str, sync.Synchformer]:
    """The whole network under one weight rule; the state dict enters strictly."""
    index = json.loads((GOLDEN / "synchformer/index.json").read_text())
    state = dict(ordinary)
    if request.param == "B":
        pattern = re.compile(index["weight_rule_B_eps_probe"]["regex"])
        matching = [key for key in state if pattern.search(key)]
        assert len(matching) == index["weight_rule_B_eps_probe"]["matching_keys"]
        state.update({key: state[key] * np.float32(1e-3) for key in matching})
    for key, sums in index["weight_checksums"].items():
        assert state[key].double().sum().item() == pytest.approx(sums[request.param]["sum_f64"], rel=1e-6)
    with torch.device("meta"):
        network = sync.Synchformer()
    network.load_state_dict(state, assign=True)
    return request.param, network.eval().requires_grad_(False)


def arrays(part: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"synchformer/{part}.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def error(ours: Tensor, reference: Tensor, rule: str) -> float:
    """Max absolute error under rule A, in units of the reference's spread under rule B."""
    assert ours.shape == reference.shape
    worst = (ours - reference).abs().max()
    return float(worst if rule == "A" else worst / reference.std())


LIMIT = 2e-5


def record(module: nn.Module, name: str, into: dict[str, Tensor], before: bool = False) -> None:
    if before:
        module.register_forward_pre_hook(lambda _, args: into.__setitem__(name, args[0]))
    else:
        module.register_forward_hook(lambda _, __, output: into.__setitem__(name, output))


@pytest.mark.slow
@needs_golden
def test_video_encoder_gives_reference_tokens_and_intermediates(golden: tuple[str, sync.Synchformer]) -> None:
    rule, network = golden
    encoder, seen = network.vfeat_extractor, dict[str, Tensor]()
    first, last = encoder.blocks[0], encoder.blocks[11]
    record(first, "embed", seen, before=True)
    record(first.timeattn, "block0_timeattn_out", seen)  # type: ignore[arg-type]
    record(first.attn, "block0_spaceattn_out", seen)  # type: ignore[arg-type]
    record(first, "block0", seen)
    record(last, "block11", seen)
    record(encoder.norm, "norm", seen)
    # Segment 0 of two: segments are independent (tested below), and each costs 370 GFLOP.
    out = encoder(torch.from_numpy(draw("input:sync.visual", (1, 2, 16, 3, 224, 224)))[:, :1])
    reference = arrays("visual")
    assert error(out, reference[f"output_{rule}"][:, :1], rule) < LIMIT
    for name, value in seen.items():
        tokens = PATCH_TOKENS if name == "norm" else VIDEO_TOKENS
        assert error(value[:, tokens], reference[f"mid_{name}_{rule}"], rule) < LIMIT, name


@needs_golden
def test_audio_encoder_gives_reference_tokens_and_intermediates(golden: tuple[str, sync.Synchformer]) -> None:
    rule, network = golden
    encoder, seen = network.afeat_extractor, dict[str, Tensor]()
    layers = encoder.ast.encoder["layer"]
    record(encoder.ast.embeddings, "embed", seen)
    record(layers[0], "layer0", seen)  # type: ignore[index]
    record(layers[11], "layer11", seen)  # type: ignore[index]
    record(encoder.ast.layernorm, "layernorm", seen)
    reference = arrays("audio")
    out = encoder(reference["input"])
    assert error(out, reference[f"output_{rule}"], rule) < LIMIT
    for name, value in seen.items():
        assert error(value[:1], reference[f"mid_{name}_{rule}"], rule) < LIMIT, name


@needs_golden
def test_head_gives_reference_logits_and_intermediates(golden: tuple[str, sync.Synchformer]) -> None:
    rule, network = golden
    head, seen = network.transformer, dict[str, Tensor]()
    record(head.blocks[0], "embed", seen, before=True)
    record(head.blocks[0], "block0", seen)
    record(head.blocks[2], "block2", seen)
    record(head.ln_f, "ln_f", seen)
    reference = arrays("head")
    out = network(reference["input_v"], reference["input_a"])
    assert error(out, reference[f"output_{rule}"], rule) < LIMIT
    for name, value in seen.items():
        assert error(value[:1, HEAD_TOKENS], reference[f"mid_{name}_{rule}"], rule) < LIMIT, name


@needs_golden
@pytest.mark.parametrize("golden", ["B"], indirect=True)
@pytest.mark.parametrize(("kind", "wrong"), [("AudioEncoder", 1e-6), ("Aggregation", 1e-5), ("SyncHead", 1e-6)])
def test_rule_b_sees_a_wrong_epsilon(golden: tuple[str, sync.Synchformer], kind: str, wrong: float) -> None:
    _, network = golden
    part: nn.Module = {
        "AudioEncoder": network.afeat_extractor.ast,
        "Aggregation": network.afeat_extractor.freq_attn_agg,
        "SyncHead": network.transformer,
    }[kind]
    norms = [module for module in part.modules() if isinstance(module, nn.LayerNorm)]
    right = norms[0].eps
    for norm in norms:
        norm.eps = wrong
    try:
        if kind == "SyncHead":
            reference = arrays("head")
            out, expected = network(reference["input_v"], reference["input_a"]), reference["output_B"]
        else:
            reference = arrays("audio")
            out, expected = network.afeat_extractor(reference["input"][:, :1]), reference["output_B"][:, :1]
    finally:
        for norm in norms:
            norm.eps = right
    assert error(out, expected, "B") > 1.0


@needs_golden
def test_layout_is_the_published_one() -> None:
    with torch.device("meta"):
        state = sync.Synchformer().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == layout()


# --------------------------------------------------------------------------- without golden files


@pytest.fixture
def tiny() -> sync.VideoEncoder:
    torch.manual_seed(0)
    encoder = sync.VideoEncoder(width=16, depth=2, heads=2).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.mark.parametrize("over", ["time", "space"])
def test_divided_attention_is_masked_full_attention(over: Any) -> None:
    torch.manual_seed(1)
    steps, places, width = 3, 5, 8
    layer = sync.DividedAttention(width, 2, over)
    x = torch.randn(2, 1 + steps * places, width)
    step, place = torch.arange(steps).repeat_interleave(places), torch.arange(places).repeat(steps)
    group = place if over == "time" else step
    allowed = torch.ones(len(x[0]), len(x[0]), dtype=torch.bool)
    allowed[1:, 1:] = group[:, None] == group[None]
    q, k, v = layer.qkv(x).view(2, -1, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(width // 2)).masked_fill(~allowed, -math.inf)
    plain = layer.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, steps), plain)


def test_video_segments_are_independent(tiny: sync.VideoEncoder) -> None:
    x = torch.randn(1, 3, 16, 3, 224, 224)
    together = tiny(x)
    alone = torch.cat([tiny(x[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(together, alone)
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.01


def test_leftover_patch_embedding_has_no_effect_and_all_else_has(tiny: sync.VideoEncoder) -> None:
    tiny(torch.randn(1, 1, 16, 3, 224, 224)).square().sum().backward()
    without = {name for name, parameter in tiny.named_parameters() if parameter.grad is None}
    assert without == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_top_two_mel_bins_are_never_read() -> None:
    torch.manual_seed(2)
    encoder = sync.AudioEncoder(width=16, depth=1, heads=2)
    x = torch.randn(1, 2, 1, 128, 66)
    changed = x.clone()
    changed[..., 126:, :] += 5
    assert torch.equal(encoder(x), encoder(changed))
    changed[..., 125, :] += 5
    assert not torch.equal(encoder(x), encoder(changed))


@pytest.mark.parametrize("frames", [65, 67, 75, 76])
def test_audio_encoder_refuses_other_lengths(frames: int) -> None:
    encoder = sync.AudioEncoder(width=16, depth=1, heads=2)
    with pytest.raises(ValueError, match="66"):
        encoder(torch.zeros(1, 1, 1, 128, frames))


@pytest.mark.parametrize(("video", "audio"), [(13, 13), (15, 15), (14, 13), (24, 24)])
def test_head_refuses_other_segment_counts(video: int, audio: int) -> None:
    head = sync.SyncHead(width=16, depth=1, heads=2)
    with pytest.raises(ValueError, match="14"):
        head(torch.zeros(1, video, 8, 16), torch.zeros(1, audio, 6, 16))


def test_video_encoder_refuses_channel_before_time() -> None:
    with pytest.raises(ValueError, match="16, 3, 224, 224"):
        sync.VideoEncoder(width=16, depth=1, heads=2)(torch.zeros(1, 1, 3, 16, 224, 224))


def test_class_grid_is_symmetric_with_zero_in_the_middle() -> None:
    grid = sync.class_grid()
    assert grid[10] == 0
    torch.testing.assert_close(grid, -grid.flip(0))
    torch.testing.assert_close(grid.diff(), torch.full((20,), 0.2))
