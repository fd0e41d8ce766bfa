"""Compiled parts of the flow network: its blocks, one graph per kind of block, of whatever size the input is.

The whole network as one graph is compiled again for each new batch size, length and layout of ``t``, until torch gives
up and runs it uncompiled. A block's graph leaves batch and length open. So there is one graph per kind of block (first,
middle and last joint block, audio-only, final layer), with gradients and without: ten for a training with validation. A
batch of one sample has graphs of its own, as have convolutions of 16 samples and more on a CPU: at most
``MOST_GRAPHS``, whatever is trained. Within a block, norm, modulation and gating are fused; between blocks gradients
are ready to be sent while the backward pass continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

KINDS = 5
MOST_GRAPHS = KINDS * 2 * 3
"""Kinds of block, with gradients or without, batches of one, of fewer than 16, and of more."""


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Joint and audio-only blocks, in order."""
    return [block for name in ("joint_blocks", "fused_blocks") for block in network.get_submodule(name).children()]


def compile_regions(network: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks and the final layer in place; parameters keep their names."""
    for block in [*blocks_of(network), network.get_submodule("final_layer")]:
        block.compile(dynamic=True, backend=backend)


@contextmanager
def open_sizes() -> Iterator[None]:
    """Within it sizes that are equal by chance (batch and length) count as different ones, and a block's graph is not
    cut at the borders of messages: blocks are smaller than those."""
    from torch._dynamo import config as dynamo
    from torch.fx.experimental import _config as shapes

    with shapes.patch(use_duck_shape=False), dynamo.patch(optimize_ddp=False, recompile_limit=MOST_GRAPHS):  # type: ignore[attr-defined]
        yield
