"""BigVGAN against the published one: keys, both spellings of weight normalisation, values."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from av_bench.contracts import UsageError
from av_bench.weights import BadWeights
from model_zoo.mmaudio.codec.vocoder import (
    VOCODERS,
    AntiAliased,
    BigVGAN,
    VocoderConfig,
    fold_weight_norm,
    load_vocoder,
    low_pass,
)
from tests.model_zoo.mmaudio.goldens import close, golden, layout, needs_golden, recipe, shapes

SMALL = VocoderConfig(6, rates=(4, 2), channels=16)


@lru_cache
def on_meta(rate: str) -> BigVGAN:
    with torch.device("meta"):
        return BigVGAN(VOCODERS[rate])


def split(state: dict[str, Tensor], names: tuple[str, str]) -> dict[str, Tensor]:
    """A fused state dict with its weights taken apart into magnitude and direction, under the given names."""
    parts: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".weight"):
            norm = torch.linalg.vector_norm(value, dim=(1, 2), keepdim=True)
            parts |= {key.removesuffix("weight") + names[0]: norm, key.removesuffix("weight") + names[1]: 3 * value}
        else:
            parts[key] = value
    return parts


@needs_golden
@pytest.mark.parametrize(("name", "rate"), [("bigvgan_16k", "16k"), ("bigvgan_v2_44k", "44k")])
def test_every_key_and_shape_is_the_official_one(name: str, rate: str) -> None:
    """The layouts with weight normalisation, folded on the meta device, are the ones of the networks."""
    meta, wanted = layout(name)
    folded = fold_weight_norm({key: torch.empty(shape, device="meta") for key, shape in wanted.items()}, name)
    assert shapes(folded) == shapes(on_meta(rate).state_dict())
    assert len(wanted) == meta["n_keys"]
    if rate == "16k":
        fused = layout("bigvgan_16k_fused")
        assert shapes(on_meta(rate).state_dict()) == fused[1]
        assert sum(p.numel() for p in on_meta(rate).parameters()) == fused[0]["n_params"]


@needs_golden
def test_full_size_values() -> None:
    """112,199,473 parameters; about 6 s on one core."""
    rule = recipe()
    state = {
        key: low_pass() if key.endswith("filter") else rule.fill(key, value.shape)
        for key, value in on_meta("16k").state_dict().items()
    }
    wave = load_vocoder("16k", state)(rule.inp("bvmel", (1, 80, 16), 1) - 2)
    close(wave, golden("full_size/bigvgan_16k.pt")["wav"][:, 0])


@pytest.mark.parametrize(
    "names", [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]
)
def test_both_spellings_fold_to_the_same(names: tuple[str, str]) -> None:
    torch.manual_seed(0)
    state = BigVGAN(SMALL).state_dict()
    folded = fold_weight_norm(split(state, names), "a test")
    assert folded.keys() == state.keys()
    for key, value in state.items():
        close(folded[key], value, 1e-6)


def test_folding_is_what_torch_does() -> None:
    torch.manual_seed(0)
    for layer in (nn.Conv1d(4, 3, 5), nn.ConvTranspose1d(4, 3, 5)):
        normed = parametrizations.weight_norm(layer)
        with torch.no_grad():
            normed.parametrizations.weight.original0.mul_(2)
        state = {f"x.{key}": value for key, value in normed.state_dict().items()}
        close(fold_weight_norm(state, "a test")["x.weight"], normed.weight.detach(), 1e-6)


def test_shape_range_and_constants() -> None:
    torch.manual_seed(0)
    for config in (SMALL, VocoderConfig(6, rates=(4, 2), channels=16, tanh=False, last_bias=False)):
        wave = BigVGAN(config)(20 * torch.randn(2, 6, 10))
        assert wave.shape == (2, 80)
        assert float(wave.abs().max()) <= 1
    assert float(low_pass().sum()) == pytest.approx(1)
    snake = AntiAliased(1)
    steady = torch.full((1, 1, 40), 0.7)
    close(snake(steady), snake.act(steady), 1e-5)  # a constant stays one, up to the edges


def test_activations_do_not_alias() -> None:
    """Of a tone at 0.35 of the rate, the second harmonic (0.7) folds back to 0.3: here at most a third of it."""
    tone = torch.sin(2 * torch.pi * 0.35 * torch.arange(400.0))[None, None]
    snake = AntiAliased(1).requires_grad_(False)
    folded = [torch.fft.rfft(x[0, 0, 100:300]).abs()[60] for x in (snake(tone), snake.act(tone))]
    assert float(folded[0]) < float(folded[1]) / 3


def test_names_what_is_wrong_with_a_file() -> None:
    meta = on_meta("16k").state_dict()
    state = {key: torch.zeros(1) for key in meta if key != "conv_pre.bias"} | {"surplus": torch.zeros(1)}
    with pytest.raises(BadWeights, match=r"missing keys \(conv_pre.bias\).*unexpected keys \(surplus\)"):
        load_vocoder("16k", state)
    with pytest.raises(BadWeights, match=r"conv_pre\.weight_v is missing"):
        fold_weight_norm({"conv_pre.weight_g": torch.zeros(1)}, "x.pt")
    with pytest.raises(UsageError, match="known are 16k, 44k"):
        load_vocoder("8k")
    with pytest.raises(UsageError, match=r"\(B, 6, L\)"):
        BigVGAN(SMALL)(torch.zeros(1, 5, 10))
