"""From noise to a latent: guidance, windows of a long clip, and the solver around the flow network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model_zoo.mmaudio.flow import solvers
from model_zoo.mmaudio.flow.network import Flow, Preprocessed
from model_zoo.mmaudio.flow.ready import Ready
from model_zoo.mmaudio.sampling.settings import Settings
from model_zoo.mmaudio.sampling.windows import Windows


def solve(
    flow: Flow,
    ready: Callable[[Preprocessed], Preprocessed | Ready],
    noise: Tensor,
    condition: Preprocessed,
    settings: Settings,
    cut: Windows,
) -> Tensor:
    """Noise ``(B, total, C)`` to a normalised latent. Conditional and unconditional pass are one batch."""
    fade = cut.weights().to(noise.device)
    parts = groups(len(noise) * len(cut), condition, settings)
    begins = settings.guide_from
    given_to = []
    for rows, part in parts:
        both = ready(part)
        alone: Preprocessed | Ready | None = both
        if settings.guided:
            alone = ready(part.rows(slice(0, rows.stop - rows.start))) if begins else None
        given_to.append((rows, both, alone))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        windows, times = cut.split(x), t.repeat_interleave(len(cut))
        found = []
        for rows, both, alone in given_to:
            some, when = windows[rows], times[rows]
            if alone is not None and (not settings.guided or bool((when < begins).all())):
                found.append(flow(some, when, alone).float())
                continue
            real, empty = flow(torch.cat([some, some]), torch.cat([when, when]), both).float().chunk(2)
            guided = empty + settings.cfg * (real - empty)
            found.append(guided if alone is None else torch.where((when < begins)[:, None, None], real, guided))
        return cut.merge(torch.cat(found), fade)

    if settings.solver == "adaptive":
        return solvers.adaptive(velocity, noise)
    return solvers.WITH_STEPS[settings.solver](velocity, noise, settings.steps)


def groups(windows: int, condition: Preprocessed, settings: Settings) -> list[tuple[slice, Preprocessed]]:
    """At most ``batch`` windows at once, with their conditions: memory does not grow with the length of a clip."""
    batch = settings.batch
    parts = [slice(i, min(i + batch, windows)) for i in range(0, windows, batch)]
    if len(parts) == 1:
        return [(parts[0], condition)]
    if not settings.guided:
        return [(part, condition.rows(part)) for part in parts]
    real, empty = condition.rows(slice(0, windows)), condition.rows(slice(windows, 2 * windows))
    return [(part, real.rows(part).join(empty.rows(part))) for part in parts]
