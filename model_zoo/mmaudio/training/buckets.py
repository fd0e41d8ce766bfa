"""Gradients averaged over processes in messages of some megabytes, sent while the backward pass continues.

For training steps that DDP does not fit: several networks, several backward passes (VAE and discriminator).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

BYTES = 25 * 2**20  # of a message, as with DDP; the gradients of the published VAE's size are 655 MiB


class Buckets:
    """The gradients of ``parameters`` as messages, the last parameters first, since backward passes end with the first.

    ``start`` before the backward pass that completes the gradients, ``finish`` after it: then ``grad`` is the mean.
    Messages leave in one order in every process, whichever gradient is ready first. ``early`` and ``sent`` count the
    bytes handed over before ``finish``, and all bytes, of the last step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], most: int = BYTES) -> None:
        self.groups = _grouped([p for p in reversed(parameters) if p.requires_grad], most)
        self.early = self.sent = 0
        self._active = False
        self._waiting: list[int] = []
        self._flying: list[tuple[dist.Work, Tensor]] = []
        for number, group in enumerate(self.groups):
            for parameter in group:
                hook = partial(self._completed, number)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """From here on a gradient that is added to is complete."""
        self._waiting = [len(group) for group in self.groups]
        self._flying, self._active = [], True
        self.early = self.sent = 0

    def finish(self) -> None:
        """Send what is left, wait for all messages, and put the means in place."""
        self._active = False
        self.early = self.sent
        while len(self._flying) < len(self.groups):
            self._send()
        world = dist.get_world_size()
        for group, (work, flat) in zip(self.groups, self._flying, strict=True):
            work.wait()
            flat /= world
            for parameter, mean in zip(group, torch.split(flat, [p.numel() for p in group]), strict=True):
                if parameter.grad is not None:
                    parameter.grad.copy_(mean.view_as(parameter))
        self._flying = []

    def _completed(self, number: int, _: Tensor) -> None:
        if not self._active:
            return
        self._waiting[number] -= 1
        while len(self._flying) < len(self.groups) and self._waiting[len(self._flying)] <= 0:
            self._send()

    def _send(self) -> None:
        group = self.groups[len(self._flying)]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in group])
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._flying.append((work, flat))
        self.sent += flat.numel() * flat.element_size()


def _grouped(parameters: Sequence[nn.Parameter], most: int) -> list[list[nn.Parameter]]:
    """In order, each group of at most ``most`` bytes, or of one parameter."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if not groups or size + own > most:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += own
    return groups
