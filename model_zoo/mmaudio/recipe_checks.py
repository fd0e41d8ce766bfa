"""Values of a training config that cannot work, refused before the first step rather than after the last."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from av_bench.contracts import UsageError
from model_zoo.mmaudio.training.ema import LEAST_SNAPSHOTS, WORST, gamma_of, kept_at, synthesis_error

if TYPE_CHECKING:
    from model_zoo.mmaudio.training.recipe import Ema, Recipe


def check(recipe: Recipe) -> None:
    """UsageError naming every value that is out of range, or an average that cannot be made from the snapshots."""
    where, data, every, run = f"config {recipe.name}", recipe.data, recipe.every, recipe.run
    if min(recipe.batch, recipe.steps, run.accumulate, run.keep) < 1:
        raise UsageError(f"{where}: batch, steps, accumulate and keep must be positive")
    if not 0 <= recipe.seed < 2**63:
        raise UsageError(f"{where}: seed must lie in [0, 2^63), got {recipe.seed}")
    if not data.train:
        raise UsageError(f"{where}: data.train is empty; name at least one feature folder")
    wrong = [*_numbers(recipe)]
    counts = {"data.threads": data.threads, "schedule.warmup": recipe.schedule.warmup}
    counts |= {f"every.{field.name}": getattr(every, field.name) for field in fields(every)}
    counts |= {f"schedule.milestones[{n}]": value for n, value in enumerate(recipe.schedule.milestones)}
    wrong += [f"{name} must not be negative, got {value}" for name, value in counts.items() if value < 0]
    if wrong:
        raise UsageError(f"{where}: {'; '.join(wrong)}")
    _check_averages(recipe.ema, every.snapshot, recipe.steps, where)


def _numbers(recipe: Recipe) -> Iterator[str]:
    """Numbers that are not finite or not in their range."""
    optimiser, dropout = recipe.optimiser, recipe.dropout
    for name, value in (("video", dropout.video), ("text", dropout.text)):
        if not 0 <= value <= 1:
            yield f"dropout.{name} is a chance in [0, 1], got {value}"
    for number, value in enumerate(optimiser.betas):
        if not 0 <= value < 1:
            yield f"optimiser.betas[{number}] must lie in [0, 1), got {value}"
    free = {"optimiser.rate": optimiser.rate, "optimiser.weight_decay": optimiser.weight_decay}
    for name, value in (free | {"optimiser.eps": optimiser.eps, "schedule.gamma": recipe.schedule.gamma}).items():
        if not 0 <= value < math.inf:
            yield f"{name} must be a number that is not negative, got {value}"
    if not 0 < optimiser.clip < math.inf:
        yield f"optimiser.clip must be a positive number, got {optimiser.clip}"


def _check_averages(ema: Ema, every: int, steps: int, where: str) -> None:
    """All widths exist, and those that are not tracked can be made from the snapshots there will be at the end."""
    if not ema.sigma_rel or len(set(ema.sigma_rel)) < len(ema.sigma_rel):
        raise UsageError(f"{where}: ema.sigma_rel must name one width or more, each once, got {list(ema.sigma_rel)}")
    for name, widths in (("sigma_rel", ema.sigma_rel), ("final", ema.final)):
        for width in widths:
            if not 0 < width < 12**-0.5:
                raise UsageError(f"{where}: ema.{name}: {width} must lie between 0 and {12**-0.5:.4f}")
    if ema.snapshots < LEAST_SNAPSHOTS:
        raise UsageError(f"{where}: ema.snapshots must be at least {LEAST_SNAPSHOTS}, got {ema.snapshots}")
    untracked = sorted(set(ema.final) - set(ema.sigma_rel))
    if not untracked:
        return
    if len(ema.sigma_rel) < 2:
        raise UsageError(f"{where}: ema.final {untracked} needs two tracked widths in ema.sigma_rel")
    kept = snapshots_at_end(steps, every, ema.snapshots)
    gammas = [gamma_of(width) for width in ema.sigma_rel for _ in kept]
    for width in untracked:
        error = synthesis_error(kept * len(ema.sigma_rel), gammas, steps, gamma_of(width))
        if error > WORST:
            raise UsageError(
                f"{where}: ema.final: the average of width {width} would be off by {error:.0%} when made from the "
                f"{len(kept)} snapshots per width there will be; add it to ema.sigma_rel, or take more snapshots "
                f"(every.snapshot is {every}, ema.snapshots {ema.snapshots})"
            )


def snapshots_at_end(steps: int, every: int, limit: int) -> list[int]:
    """Steps of the averages of one width that the synthesis has: the snapshots, and the average of the last step."""
    return sorted({*kept_at(steps, every, limit), steps})
