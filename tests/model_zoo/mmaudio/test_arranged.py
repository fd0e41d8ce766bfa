"""The network arranged for sampling: the values of the plain one, from fewer operations."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from av_bench.contracts import ClipSet, UsageError
from av_bench.runtime.devices import cast_once
from model_zoo.mmaudio.config import VARIANTS
from model_zoo.mmaudio.flow.blocks import ChannelLastConv
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.flow.products import How, Product, Tile, TiledConv, best_for
from model_zoo.mmaudio.flow.ready import Ready, distinct, repeated, resample
from model_zoo.mmaudio.nano.model import MMAudioNano
from tests.model_zoo.mmaudio.goldens import close, golden, needs_golden
from tests.model_zoo.mmaudio.test_flow import TINY, inputs, random_network, worst
from tests.model_zoo.mmaudio.test_sample import clips, generator, run

__all__ = ["clips"]  # a fixture
CPU = torch.device("cpu")
HOWS = [How(), best_for(CPU, half=False, compiled=False)]


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 9, 12])
def test_a_convolution_from_tiles_is_the_convolution(tile: Tile, taps: int, length: int) -> None:
    torch.manual_seed(0)
    plain = ChannelLastConv(6, 5, taps).double()
    x = torch.randn(2, length, 6, dtype=torch.float64)
    tiled = TiledConv(plain.weight, plain.bias, tile, How(torch.float64, tile))
    with torch.no_grad():
        assert worst(tiled(x), plain(x)) < 1e-12


def test_a_tile_of_two_bears_bf16() -> None:
    """The error that the class promises, against that of products in bf16 as they are."""
    torch.manual_seed(0)
    plain, x = ChannelLastConv(256, 256, 3, bias=False), torch.randn(1, 200, 256)
    with torch.no_grad():
        wanted = plain(x)

        def error(made: Tensor) -> float:
            return float((made.float() - wanted).square().mean().sqrt())

        tiled = TiledConv(plain.weight, None, 2, How(torch.bfloat16, 2))
        usual = error(copy.deepcopy(plain).bfloat16()(x.bfloat16()))
        assert usual < error(tiled(x.bfloat16())) < 2 * usual


def test_a_packed_weight_is_the_weight_and_comes_back() -> None:
    torch.manual_seed(0)
    plain, x = nn.Linear(40, 30), torch.randn(3, 7, 40)
    product = Product(plain.weight, plain.bias, best_for(CPU, half=False, compiled=False))
    with torch.no_grad():
        assert worst(product(x), plain(x)) < 1e-5
        assert torch.equal(product.double().weight, plain.weight.double())
        product.float()
        assert worst(product(x), plain(x)) < 1e-5


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "change",
    [{}, {"v2": True}, {"sync": "sum"}, {"sync": "none"}, {"rope": "none"}, {"rope": "default"}, {"ffn": "mlp"}],
    ids=str,
)
def test_an_arranged_network_gives_the_velocity_of_the_plain_one(how: How, change: dict[str, Any]) -> None:
    network = random_network(replace(TINY, **change))
    latent, *raw = inputs(network.config, 2)
    arranged, t = copy.deepcopy(network), torch.tensor([0.3, 0.9])
    arranged.arrange(how)
    with torch.no_grad():
        for length in (network.config.latent_len, 40):  # a network may be set to other lengths afterwards
            latent = torch.randn(2, length, 5)
            for one in (network, arranged):
                one.set_lengths(length, 8, 24)
            pre = network.preprocess(*raw).join(network.empty(2))
            given = torch.cat([latent, latent]), torch.cat([t, t])
            wanted, ready = network.flow(*given, pre), arranged.ready(pre)
            assert isinstance(ready, Ready)
            assert worst(arranged.flow(*given, ready), wanted) < 1e-4
            assert torch.equal(arranged.flow(*given, pre), arranged.flow(*given, ready))
    with pytest.raises(UsageError, match="this one is not"):
        network.flow(*given, ready)


@needs_golden
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("how", HOWS)
def test_an_arranged_network_gives_the_published_velocity(version: str, how: How) -> None:
    wanted = golden(f"mmaudio_tiny/forward_{version}.pt")
    network = FlowNetwork(replace(TINY, v2=version == "v2"))
    network.load_official(golden(f"mmaudio_tiny/weights_{version}.pt")["state_dict"])
    network.eval().arrange(how)
    given = wanted["inputs"]
    with torch.no_grad():
        pre = network.preprocess(given["clip"], given["sync"], given["text"])
        close(network.flow(given["latent"], given["t"], pre), wanted["flow_t"])


def test_bf16_costs_no_more_precision_than_autocast() -> None:
    network, (latent, *raw) = random_network(), inputs(TINY, 2)
    t, plain, arranged = torch.tensor([0.371, 0.92]), copy.deepcopy(network), copy.deepcopy(network)
    arranged.arrange(best_for(CPU, half=True, compiled=False))
    for one in (plain, arranged):
        cast_once(one)
    with torch.no_grad():
        wanted = network.flow(latent, t, network.preprocess(*raw))
        with torch.autocast("cpu", torch.bfloat16):
            errors = [
                float((one.flow(latent, t, one.preprocess(*raw)).float() - wanted).square().mean().sqrt())
                for one in (plain, arranged)
            ]
    assert errors[1] < 2 * errors[0]


def test_equal_rows_are_kept_once_and_find_their_places() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 24, 3)
    tokens[1] = tokens[1, :8].repeat(3, 1)  # as the empty tokens: a period of eight
    sync = resample(tokens, 31)
    for (rows, owner, place), count in ((distinct(sync), 24 + 8), (repeated(sync, 24), 2 * 24)):
        assert len(rows) == len(owner) == count
        assert torch.equal(rows[place].view(sync.shape), sync)
        assert torch.equal(owner[place].view(2, 31), torch.tensor([[0], [1]]).expand(2, 31))
    finer = resample(tokens, 20)  # fewer places than tokens: every one is its own
    rows, _, place = repeated(finer, 24)
    assert torch.equal(rows[place].view(finer.shape), finer)


def test_arranging_saves_the_operations_it_promises() -> None:
    """Of the lengths of S-16k: convolutions from tiles, and rows of the sync features once."""
    config = replace(VARIANTS["mmaudio-s-16k"].network, hidden=128, heads=2, depth=4, fused_depth=3)
    counts = {}
    with torch.no_grad():
        for name, how in (("plain", None), ("joined", How()), ("tiles", How(tile=4))):
            network = FlowNetwork(config)
            if how is not None:
                network.arrange(how)
            raw = [torch.randn(2, *shape) for shape in ((64, 1024), (192, 768), (77, 1024))]
            ready = network.ready(network.preprocess(*raw))
            with FlopCounterMode(display=False) as counter:
                network.flow(torch.randn(2, 250, 20), torch.rand(2), ready)
            counts[name] = counter.get_total_flops()
    assert counts["joined"] < counts["plain"]
    assert counts["tiles"] < 0.75 * counts["plain"]


@pytest.mark.parametrize("options", [{}, {"cfg": 1.0}, {"window": 5.0, "batch": 1}], ids=str)
def test_samples_of_an_arranged_network_are_those_of_the_plain_one(clips: ClipSet, options: dict[str, Any]) -> None:
    wanted, model = run(generator(**options), clips, [0, 3]), generator(**options)
    model.arrange_on = frozenset({"cpu"})
    model.place("cpu")
    assert model.network.arranged is not None
    found = run(model, clips, [0, 3])
    again = run(model, clips, [3])
    for key, sample in wanted.items():
        assert worst(torch.as_tensor(found[key].audio), torch.as_tensor(sample.audio)) < 1e-3
    assert torch.equal(torch.as_tensor(again["c3~0"].audio), torch.as_tensor(found["c3~0"].audio))


def test_on_a_cpu_mmaudio_nano_keeps_its_bytes() -> None:
    assert MMAudioNano().network.arranged is None
