"""Conditions as an arranged network reads them: what is the same at every step, and equal rows once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Rows = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Ready:
    """Conditions of a batch.

    clip ``(B, Lv, h)``, text ``(B, Lt, h)``; fixed ``(B, h)``: the global condition without the time. sync ``(U, h)``:
    the rows of the per-token condition that differ, None without sync module; owner ``(U,)``: whose they are; place
    ``(B * N,)``: the row of each token.
    """

    clip: Tensor
    text: Tensor
    fixed: Tensor
    sync: Tensor | None
    owner: Tensor
    place: Tensor


def resample(x: Tensor, length: int) -> Tensor:
    """Nearest token in time, ``(B, L, C)`` -> ``(B, length, C)``."""
    return functional.interpolate(x.transpose(1, 2), size=length, mode="nearest-exact").transpose(1, 2)


def distinct(sync: Tensor) -> Rows:
    """Rows of ``(B, N, h)`` that differ within an item: ``sync``, ``owner`` and ``place`` of ``Ready``.

    How many there are depends on the values: 192 of 250 for a video, 18 for the empty tokens, which repeat themselves.
    """
    batch, tokens, _ = sync.shape
    owner = torch.arange(batch, device=sync.device).repeat_interleave(tokens)
    keyed = torch.cat([owner[:, None].to(sync.dtype), sync.flatten(0, 1)], dim=1)
    rows, place = torch.unique(keyed, dim=0, return_inverse=True)
    return rows[:, 1:].contiguous(), rows[:, 0].long(), place


def repeated(sync: Tensor, tokens: int) -> Rows:
    """As ``distinct``, but by place alone: one row for each of the ``tokens`` that ``resample`` made ``(B, N, h)`` of.

    Shapes do not depend on values, as a GPU wants it.
    """
    batch, length, _ = sync.shape
    count, device = min(tokens, length), sync.device
    source = torch.arange(length, device=device)
    if tokens < length:
        source = resample(torch.arange(tokens, dtype=torch.float32, device=device)[None, :, None], length)[
            0, :, 0
        ].long()
    first = torch.searchsorted(source, torch.arange(count, device=device))
    items = torch.arange(batch, device=device)
    return (
        sync[:, first].flatten(0, 1),
        items.repeat_interleave(count),
        (items[:, None] * count + source).flatten(),
    )
