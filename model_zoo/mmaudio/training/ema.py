"""Post-hoc EMA: running averages of weights whose width can be chosen after training (Karras et al. 2024, EDM2).

A power-function average of exponent gamma weighs the weights of step tau by ``(gamma + 1) tau^gamma / t^(gamma + 1)``
(arXiv 2312.02696, section 3.1); its standard deviation over t is the relative width ``sigma_rel``. Averages of two
widths are tracked and snapshots of them are kept; any other width, at any step, is the least-squares combination of
the snapshots (section 3.2 and appendix C there).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from av_bench.contracts import UsageError

Floats = NDArray[np.float64]
LEAST_SNAPSHOTS = 4  # per width: the first, the two newest, and one between that can be dropped
WORST = 0.1  # distance from the wanted average, relative to its norm, beyond which it would not be what its name says


def gamma_of(sigma_rel: float) -> float:
    """Exponent of the profile of a relative width: the root of ``(g + 1) / ((g + 2)^2 (g + 3)) = sigma_rel^2``.

    Widths lie in (0, 1/sqrt(12)): beyond the upper end the profile would fall with time.
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise UsageError(f"EMA: sigma_rel {sigma_rel} must lie between 0 and {12**-0.5:.4f}")
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


def decay(step: int, gamma: float, *, corrected: bool = True) -> float:
    """Factor of the old average at update ``step``, counted from 1 (the first update copies the weights instead).

    The plain factor is ``(1 - 1 / (step + 1))^(gamma + 1)``; the corrected one is the geometric mean of this step's
    and the next one's, which centres each update in its step.
    """
    if corrected:
        return float((step / (step + 2)) ** ((gamma + 1) / 2))
    return float((step / (step + 1)) ** (gamma + 1))


def profile_products(steps_a: Floats, gammas_a: Floats, steps_b: Floats, gammas_b: Floats) -> Floats:
    """Integrals over time of the products of profiles, ``(len(a), len(b))``."""
    ta, ga, tb, gb = steps_a[:, None], gammas_a[:, None], steps_b[None], gammas_b[None]
    shared = np.minimum(ta, tb)  # logarithms: the powers themselves overflow
    exponent = ga * np.log(shared / ta) + gb * np.log(shared / tb) + np.log(shared / ta / tb)
    products: Floats = (ga + 1) * (gb + 1) / (ga + gb + 1) * np.exp(exponent)
    return products


def synthesis_weights(steps: Sequence[int], gammas: Sequence[float], step: int, gamma: float) -> Floats:
    """Weights ``(snapshots,)`` of the combination nearest to the profile of ``gamma`` at ``step``."""
    t, g = np.array(steps, dtype=np.float64), np.array(gammas, dtype=np.float64)
    goal_t, goal_g = np.array([step], dtype=np.float64), np.array([gamma])
    scale = 1 / np.sqrt(profile_products(t, g, t, g).diagonal())  # unit profiles: a better-conditioned system
    gram = profile_products(t, g, t, g) * scale[:, None] * scale
    goal = profile_products(t, g, goal_t, goal_g)[:, 0] * scale
    weights: Floats = np.linalg.lstsq(gram, goal, rcond=1e-14)[0] * scale
    return weights


def synthesis_error(steps: Sequence[int], gammas: Sequence[float], step: int, gamma: float) -> float:
    """Distance of the best combination's profile from the wanted one, relative to the latter's norm."""
    w = synthesis_weights(steps, gammas, step, gamma)
    t, g = np.array([*steps, step], dtype=np.float64), np.array([*gammas, gamma])
    difference = np.append(w, -1.0)
    products = profile_products(t, g, t, g)
    return float(np.sqrt(max(difference @ products @ difference, 0.0) / products[-1, -1]))


def thin(steps: Sequence[int], limit: int) -> list[int]:
    """At most ``limit`` of the steps: again and again the one with the closest neighbours is dropped.

    What is left is spread evenly over the run; the first and the two newest steps stay. With 24 of 60
    snapshots of the widths 0.05 and 0.1 the profiles of 0.06 to 0.15 are met to 0.5 % of their norm
    (``synthesis_error``), that of 0.2 to 1.5 %.
    """
    if limit < LEAST_SNAPSHOTS:
        raise UsageError(f"EMA: at least {LEAST_SNAPSHOTS} snapshots per width must be kept, not {limit}")
    kept = sorted(steps)
    while len(kept) > limit:
        gaps = [kept[i + 1] - kept[i - 1] for i in range(1, len(kept) - 2)]
        del kept[1 + gaps.index(min(gaps))]
    return kept


def kept_at(step: int, every: int, limit: int) -> list[int]:
    """Steps of the snapshots that an unbroken run has at ``step``, one taken every ``every`` steps (0: none).

    The kept steps of a later one are among those of an earlier one and the new ones. So a run that is killed and does
    some steps again has the same snapshots as an unbroken one as soon as it is where it was.
    """
    kept: list[int] = []
    for taken in range(every, step + 1, every) if every else ():
        kept = thin([*kept, taken], limit)
    return kept


class SnapshotStore(Protocol):
    """Where averages are kept: one entry per relative width and step."""

    def add(self, sigma_rel: float, step: int, average: Mapping[str, Tensor]) -> None:
        """Keep one average."""


class PostHocEMA:
    """Averages of named tensors for several widths; the caller decides when to update and to take snapshots."""

    def __init__(self, tensors: Mapping[str, Tensor], sigma_rel: Sequence[float] = (0.05, 0.1)) -> None:
        self.gammas = {sigma: gamma_of(sigma) for sigma in sigma_rel}
        self.updates = 0
        self.averages = {s: {n: t.detach().float().clone() for n, t in tensors.items()} for s in sigma_rel}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Move every average towards ``tensors``; the first update copies them."""
        self.updates += 1
        for sigma, average in self.averages.items():
            share = 1.0 if self.updates == 1 else 1 - decay(self.updates, self.gammas[sigma])
            names = list(average)
            live = [tensors[name].detach().to(average[name]) for name in names]
            torch._foreach_lerp_([average[name] for name in names], live, share)

    def snapshot(self, store: SnapshotStore, step: int | None = None) -> None:
        """Keep the averages as they are now; ``step`` defaults to the number of updates."""
        for sigma, average in self.averages.items():
            store.add(sigma, self.updates if step is None else step, average)
