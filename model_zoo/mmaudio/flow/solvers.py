"""Numerical integration of the flow from t = 0 (noise) to t = 1 (data).

A velocity takes a state ``(B, ...)`` and times ``(B,)``: every item of a batch has its own clock, so an adaptive step
size never depends on the company an item is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from av_bench.contracts import UsageError

Velocity = Callable[[Tensor, Tensor], Tensor]

# Dormand & Prince (1980), RK5(4)7M: stage times, stage weights, fifth order, and fifth minus fourth order.
_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_SHORTEST = 1e-9  # of the time from 0 to 1; no shorter step is tried
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def euler(velocity: Velocity, x: Tensor, steps: int = 25) -> Tensor:
    """``steps`` equal steps (MMAudio, section 3.6: 25)."""
    for t, h in _grid(x, steps):
        x = x + h * velocity(x, t.expand(len(x)))
    return x


def heun(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """``steps`` equal steps of the explicit trapezoidal rule: second order, two evaluations a step."""
    for t, h in _grid(x, steps):
        first = velocity(x, t.expand(len(x)))
        second = velocity(x + h * first, (t + h).expand(len(x)))
        x = x + h / 2 * (first + second)
    return x


def midpoint(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """``steps`` equal steps of the midpoint rule: second order, two evaluations a step."""
    for t, h in _grid(x, steps):
        half = x + h / 2 * velocity(x, t.expand(len(x)))
        x = x + h * velocity(half, (t + h / 2).expand(len(x)))
    return x


def multistep(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """``steps`` equal steps of Adams and Bashforth's two-step rule: second order, one evaluation a step.

    The first step, which has no predecessor, is Euler's.
    """
    before: Tensor | None = None
    for t, h in _grid(x, steps):
        now = velocity(x, t.expand(len(x)))
        x = x + h * (now if before is None else 1.5 * now - 0.5 * before)
        before = now
    return x


def _grid(x: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Start and length of equal steps from 0 to 1."""
    if steps < 1:
        raise UsageError(f"steps must be at least 1, got {steps}")
    times = torch.linspace(0.0, 1.0, steps + 1, device=x.device)
    for k in range(steps):
        yield times[k], times[k + 1] - times[k]


def adaptive(
    velocity: Velocity, x: Tensor, rtol: float = 1e-3, atol: float = 1e-3, first: float = 0.05, most: int = 1000
) -> Tensor:
    """Dormand-Prince 5(4) with a step size per item; returns the state at t = 1.

    A step is taken when the root mean square of its error, in units of ``atol + rtol |x|``, is at most 1; a step that
    overflows is tried again, shorter. Items that have arrived wait for the others. An item whose velocity is not
    finite however short the step ends as NaN, as with ``euler``, and costs the others nothing. UsageError when
    ``most`` trial steps are not enough.
    """
    wide = (len(x),) + (1,) * (x.ndim - 1)
    t = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    h = torch.full_like(t, first)
    k1 = velocity(x, t.to(x.dtype))
    for _ in range(most):
        running = t < 1
        if not bool(running.any()):
            return x
        h = torch.where(running, torch.minimum(h, 1 - t), torch.zeros_like(h))
        step = h.to(x.dtype).view(wide)
        slopes = [k1]
        for at, weights in zip(_TIMES[1:], _STAGES[1:], strict=True):
            state = x + step * _combine(weights, slopes)
            slopes.append(velocity(state, (t + at * h).to(x.dtype)))
        scale = atol + rtol * torch.maximum(x.abs(), state.abs())
        error = (step * _combine(_ERROR, slopes) / scale).square().flatten(1).mean(dim=1).sqrt().double()
        error = error.nan_to_num(nan=math.inf)
        taken = running & (error <= 1)
        keep = taken.view(wide)
        x, k1 = torch.where(keep, state, x), torch.where(keep, slopes[-1], k1)
        t = torch.where(taken, torch.where(t + h > 1 - 1e-9, torch.ones_like(t), t + h), t)
        h = h * (0.9 * error.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
        lost = running & ~taken & (h < _SHORTEST)
        x, t = torch.where(lost.view(wide), math.nan, x), torch.where(lost, torch.ones_like(t), t)
    raise UsageError(f"the adaptive solver did not reach t = 1 in {most} steps; loosen rtol and atol, or use euler")


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total


WITH_STEPS: Mapping[str, Callable[[Velocity, Tensor, int], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "multistep": multistep,
}
"""Solvers of a fixed number of equal steps, by name."""
