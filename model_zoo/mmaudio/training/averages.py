"""The weight averages of a training run: kept through steps and checkpoints, snapshots on disk, widths at the end.

With FSDP every process averages its own slices; otherwise the first process holds the averages and the others none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from av_bench.contracts import AvBenchError
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.distributed import Cluster, as_sharded_like, from_local, gather_full, local_shard
from model_zoo.mmaudio.training.ema import PostHocEMA
from model_zoo.mmaudio.training.recipe import Ema
from model_zoo.mmaudio.training.snapshots import Snapshots


class Averages:
    """Averages of all trainable weights for each width of ``ema.sigma_rel``; what is frozen is its own average.

    ``every``: steps between snapshots.
    """

    def __init__(self, network: FlowNetwork, ema: Ema, every: int, folder: Path, processes: Cluster) -> None:
        self.wanted, self.first = ema, processes.first
        self.parameters = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
        self.live = {name: local_shard(p) for name, p in self.parameters.items()}
        sharded = any(part is not self.parameters[name] for name, part in self.live.items())
        self.ema = PostHocEMA(self.live, ema.sigma_rel) if sharded or processes.first else None
        self.snapshots = Snapshots(folder, every, ema.snapshots)

    def update(self) -> None:
        """Move every average towards the weights."""
        if self.ema is not None:
            self.ema.update(self.live)

    def whole(self) -> dict[float, dict[str, torch.Tensor]]:
        """Averages by width and name in the first process, put together on the CPU (every process must call it)."""
        if self.ema is None:
            return {}
        return {
            sigma: gather_full(((n, from_local(part, self.parameters[n])) for n, part in average.items()), self.first)
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
                part.copy_(local_shard(as_sharded_like(tensors[f"ema-{sigma:g}/{name}"], self.parameters[name])))

    def final(self, step: int) -> Iterator[tuple[float, dict[str, torch.Tensor] | AvBenchError]]:
        """Width and average for the widths asked for, in the first process: tracked ones first and as they are, then
        those synthesised from the snapshots and the averages of ``step``; where that cannot be done, the reason.

        Every process must run through it.
        """
        tracked = self.whole()
        if not self.first:
            return
        yield from ((sigma, tracked[sigma]) for sigma in self.wanted.final if sigma in tracked)
        for sigma in self.wanted.final:
            if sigma not in tracked:
                try:
                    yield sigma, self.snapshots.synthesise(sigma, step, tracked)
                except AvBenchError as error:
                    yield sigma, error
