"""The weight averages of a training run: kept through steps and checkpoints, snapshots on disk, widths at the end.

With FSDP every process averages its own slices; otherwise the first process holds the averages and the others none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from model_zoo.mmaudio.distributed import Cluster, from_local, gathered, like, local
from model_zoo.mmaudio.ema import PostHocEMA, Snapshots
from model_zoo.mmaudio.network import FlowNetwork
from model_zoo.mmaudio.recipe import Ema


class Averages:
    """Averages of all trainable weights for each width of ``ema.sigma_rel``; what is frozen is its own average."""

    def __init__(self, network: FlowNetwork, ema: Ema, folder: Path, processes: Cluster) -> None:
        self.wanted, self.first = ema, processes.first
        self.parameters = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
        self.live = {name: local(p) for name, p in self.parameters.items()}
        sharded = any(part is not self.parameters[name] for name, part in self.live.items())
        self.ema = PostHocEMA(self.live, ema.sigma_rel) if sharded or processes.first else None
        self.snapshots = Snapshots(folder, ema.snapshots)

    def update(self) -> None:
        """Move every average towards the weights."""
        if self.ema is not None:
            self.ema.update(self.live)

    def whole(self) -> dict[float, dict[str, torch.Tensor]]:
        """Averages by width and name in the first process, put together on the CPU (every process must call it)."""
        if self.ema is None:
            return {}
        return {
            sigma: gathered(((n, from_local(part, self.parameters[n])) for n, part in average.items()), self.first)
            for sigma, average in self.ema.averages.items()
        }

    def snapshot(self, step: int) -> None:
        """Write the averages of ``step``; their number per width stays bounded."""
        averages = self.whole()
        if self.first:
            for sigma, average in averages.items():
                self.snapshots.add(sigma, step, average)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages for a checkpoint, as ``ema-<width>/<name>``."""
        return {f"ema-{s:g}/{n}": value for s, average in self.whole().items() for n, value in average.items()}

    def load(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Go on from a checkpoint of ``step``; later snapshots are forgotten, they will be made again."""
        if self.first:
            self.snapshots.forget_after(step)
        if self.ema is None:
            return
        self.ema.updates = step
        for sigma, average in self.ema.averages.items():
            for name, part in average.items():
                part.copy_(local(like(tensors[f"ema-{sigma:g}/{name}"], self.parameters[name])))

    def final(self, step: int) -> dict[float, dict[str, torch.Tensor]]:
        """Averages of the widths asked for: tracked ones as they are, others synthesised from the snapshots.

        Complete in the first process; every process must call it.
        """
        tracked = self.whole()
        if any(sigma not in self.wanted.sigma_rel for sigma in self.wanted.final):
            self.snapshot(step)
        if not self.first:
            return {}
        return {s: tracked[s] if s in tracked else self.snapshots.synthesise(s, step) for s in self.wanted.final}
