"""What makes a training step fast, shown by counts: graphs that are compiled, messages that are sent early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounter

from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.buckets import Buckets
from model_zoo.mmaudio.training.regions import KINDS, compile_regions, open_sizes
from tests.model_zoo.mmaudio.training_tools import NETWORK, SHAPES

CONFIG = NetworkConfig(**NETWORK)  # type: ignore[arg-type]


def pass_through(network: FlowNetwork, size: int, lengths: tuple[int, int, int], *, trained: bool, t: str) -> None:
    """One forward pass, with its backward pass when ``trained``."""
    network.set_lengths(*lengths)
    channels = [SHAPES[name][1] for name in ("mean", "clip", "sync", "text")]
    tokens = [*lengths, SHAPES["text"][0]]
    latent, clip, sync, text = (torch.randn(size, n, c) for n, c in zip(tokens, channels, strict=True))
    when = torch.rand(1).expand(size) if t == "expanded" else torch.rand(size)
    drop = torch.zeros(size, dtype=torch.bool)
    with torch.set_grad_enabled(trained):
        found = network(latent, clip, sync, text, when, drop_video=drop, drop_text=drop)
        if trained:
            found.sum().backward()


def graphs(config: NetworkConfig, passes: list[dict[str, object]]) -> list[int]:
    """Graphs that have been compiled after each pass."""
    counter, after = CompileCounter(), []
    torch.compiler.reset()
    network = FlowNetwork(config, latent_mean=torch.zeros(4), latent_std=torch.ones(4))
    compile_regions(network, counter)
    with open_sizes():
        for given in passes:
            pass_through(network, **{"trained": True, "t": "own", "lengths": (16, 4, 8), **given})  # type: ignore[arg-type]
            after.append(int(counter.frame_count))
    return after


def test_other_sizes_and_lengths_compile_nothing_anew() -> None:
    """One joint, one audio-only block, the final layer: three graphs, whatever the batch, the length and t are.

    A batch of 4 is as long as the clip sequence, one of 16 channels as the latent: equal by chance.
    """
    sizes: list[dict[str, object]] = [{"size": 4}, {"size": 7}, {"size": 6, "lengths": (32, 8, 16)}]
    assert graphs(CONFIG, [*sizes, {"size": 3, "t": "expanded"}]) == [3, 3, 3, 3]


@pytest.mark.slow
def test_a_training_with_validation_compiles_each_kind_of_block_twice() -> None:
    passes: list[dict[str, object]] = [{"size": 12}, {"size": 12, "trained": False}, {"size": 5, "trained": False}]
    passes += [{"size": 6, "lengths": (24, 6, 16)}, {"size": 3, "trained": False, "t": "expanded"}]
    assert graphs(replace(CONFIG, depth=4, ffn="conv"), passes) == [KINDS, 2 * KINDS, 2 * KINDS, 2 * KINDS, 2 * KINDS]


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_messages_leave_during_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers in three messages, the last layer's first; without ``start`` nothing is sent."""
    layers = nn.Sequential(*(nn.Linear(n, n, bias=False) for n in (8, 8, 8)))
    buckets = Buckets(list(layers.parameters()), most=300)
    sent: list[int] = []
    real = dist.all_reduce

    def counted(tensor: torch.Tensor, async_op: bool) -> dist.Work | None:
        sent.append(sum(layer.weight.grad is not None for layer in layers))  # type: ignore[union-attr]
        return real(tensor, async_op=async_op)

    monkeypatch.setattr(dist, "all_reduce", counted)
    x = torch.randn(2, 8)
    (layers(x).square().mean() / 2).backward()
    assert sent == []
    layers.zero_grad()
    buckets.start()
    layers(x).square().mean().backward()
    assert sent == [1, 2, 3]  # so many layers had their gradient when each message left
    expected = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
    buckets.finish()
    assert all(torch.equal(p.grad, e) for p, e in zip(layers.parameters(), expected, strict=True) if p.grad is not None)
    assert buckets.early == buckets.sent == 3 * 64 * 4


@pytest.mark.usefixtures("alone")
def test_an_unused_parameter_holds_back_what_comes_after_it() -> None:
    """All processes must send in one order, so nothing overtakes a gradient that never comes; it stays None."""
    first, unused, last = (nn.Parameter(torch.ones(4)) for _ in range(3))
    buckets = Buckets([first, unused, last], most=16)
    buckets.start()
    (3 * first + last).sum().backward()
    buckets.finish()
    assert (buckets.early, buckets.sent) == (16, 48)
    assert unused.grad is None
    assert first.grad is not None
    assert first.grad.tolist() == [3.0] * 4
