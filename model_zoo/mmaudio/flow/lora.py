"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): what fine-tuning adds to some weights of a network.

A weight W ``(out, in)`` becomes ``W + alpha / rank * up @ down`` with ``up (out, rank)`` and ``down (rank, in)``; a
convolution's kernel counts as part of ``in``. ``up`` starts at zero, so the network starts as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from av_bench.contracts import UsageError, shortened
from av_bench.weights import BadWeights

_ORIGINAL, _ADAPTER = "parametrizations.weight.original", "parametrizations.weight.0."


@dataclass(frozen=True)
class Lora:
    """Adapters of ``rank`` on the linear layers and convolutions whose name fits one of ``targets`` (``*``: any text).

    ``alpha`` None is the rank: the product counts once. ``merged``: the whole network is written besides.
    """

    rank: int
    targets: tuple[str, ...] = ("*.attn.qkv", "*.linear1")
    alpha: float | None = None
    merged: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"lora: rank must be at least 1, got {self.rank}")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise UsageError(f"lora: alpha must be a positive number, got {self.alpha}")

    @property
    def scale(self) -> float:
        """Factor on the product."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


class LowRank(nn.Module):
    """A weight plus a product of low rank, in the weight's shape."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        bound = inputs**-0.5
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """See the class."""
        return changed(weight, self.up, self.down, self.scale)


def changed(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> Tensor:
    """The weight with its adapter."""
    return weight + scale * (up @ down).view(weight.shape)


def add_adapters(network: nn.Module, lora: Lora, seed: int) -> list[str]:
    """Put adapters on the targets, drawn from ``seed``; returns the names of the layers.

    UsageError for a pattern that fits no layer.
    """
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)}
    chosen = matching(lora.targets, list(layers), "lora.targets", "layer")
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        adapter = LowRank(layers[name].weight.detach(), lora.rank, lora.scale, generator)
        parametrize.register_parametrization(layers[name], "weight", adapter)
    return chosen


def matching(patterns: Sequence[str], names: Sequence[str], where: str, kind: str) -> list[str]:
    """The names that fit one of the patterns, in their order. UsageError for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = shortened(", ".join(names), 120)
            raise UsageError(f"{where}: {pattern!r} fits no {kind} of the network ({shown})")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def adapters_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters in a network's state, as ``<layer>.down`` and ``<layer>.up``."""
    return {key.replace(_ADAPTER, ""): value for key, value in state.items() if _ADAPTER in key}


def plain(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state of a network with adapters in the layout without, adapters merged."""
    kept = {key: value for key, value in state.items() if _ORIGINAL not in key and _ADAPTER not in key}
    for key, value in state.items():
        if key.endswith(_ORIGINAL):
            layer = key.removesuffix(_ORIGINAL)
            up, down = state[f"{layer}{_ADAPTER}up"], state[f"{layer}{_ADAPTER}down"]
            kept[f"{layer}weight"] = changed(value, up, down, scale)
    return kept


def merge(base: Mapping[str, Tensor], adapters: Mapping[str, Tensor], scale: float, where: str) -> dict[str, Tensor]:
    """The base with adapters of a file. BadWeights when they are of another network."""
    found = dict(base)
    layers = sorted({key.rpartition(".")[0] for key in adapters})
    for layer in layers:
        weight, up, down = base.get(f"{layer}.weight"), adapters.get(f"{layer}.up"), adapters.get(f"{layer}.down")
        if weight is None or up is None or down is None:
            raise BadWeights(f"{where}: adapters of another network: its layer {layer} is not that of the base")
        if (up.shape[0], down.shape[1], up.shape[1]) != (weight.shape[0], weight[0].numel(), down.shape[0]):
            raise BadWeights(
                f"{where}: adapters of another network: {layer} wants {tuple(weight.shape)}, the adapter is for "
                f"({up.shape[0]}, {down.shape[1]})"
            )
        found[f"{layer}.weight"] = changed(weight.float(), up.float(), down.float(), scale)
    return found
