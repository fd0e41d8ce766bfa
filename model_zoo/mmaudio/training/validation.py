"""Validation: the training loss on held-out samples with fixed random numbers, also by t."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.mix import Mix
from model_zoo.mmaudio.training.objective import Objective, autocast

BINS = 25  # of t in [0, 1], as in the published code


@torch.no_grad()
def validate(
    module: nn.Module, mix: Mix, size: int, objective: Objective, cluster: Cluster, precision: str
) -> dict[str, float | list[float] | list[int]]:
    """Mean loss over every sample of ``mix``, each with the same noise and t at every call.

    A sample with several errors (``Terms``) counts with each of them in the bins, and once in ``samples``.
    ``loss_by_t`` and ``count_by_t`` have a place per bin of t; a bin without samples has count 0 and no loss, so
    ``loss_by_t`` lists the filled bins only, in order. Processes share the samples; all run the same number of passes,
    because a sharded network needs them all each time.
    """
    each = 1  # errors per sample
    sums = torch.zeros(2, BINS, dtype=torch.float64, device=cluster.device)
    stride = size * cluster.world
    for start in range(0, len(mix), stride):
        first = min(start + cluster.rank * size, len(mix) - 1)
        last = min(first + size, len(mix))
        batch = mix.fixed(first, last).to(cluster.device)
        with autocast(cluster.device, precision):
            terms = objective.terms(module, batch)
        if start + cluster.rank * size < len(mix):  # otherwise this process only kept the others company
            loss, each = terms.loss.double().flatten(), terms.loss.shape[1]
            place = (terms.t.flatten() * BINS).long().clamp(max=BINS - 1)
            sums[0].index_add_(0, place, loss)
            sums[1].index_add_(0, place, torch.ones_like(loss))
    total, count = cluster.total(sums).cpu().numpy()
    filled = count > 0
    return {
        "loss": float(total.sum() / count.sum()),
        "samples": int(count.sum()) // each,
        "loss_by_t": [float(v) for v in total[filled] / count[filled]],
        "count_by_t": [int(v) for v in np.asarray(count)],
    }
