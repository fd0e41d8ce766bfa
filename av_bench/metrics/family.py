"""Several metrics at once: the level at which each may be tested so that all of them together keep theirs.

An equal share each (Bonferroni) is always safe, and too strict for metrics that move together, as FD, KL and IS of one
network do. Here their joint distribution under "nothing changed" is drawn by turning the signs of the units'
differences at random, for all metrics alike (Westfall & Young 1993; wild bootstrap, Liu 1988): the level is the one at
which some metric comes out beyond it in a share ``alpha`` of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from av_bench.metrics.checks import FloatArray
from av_bench.metrics.paired import unit_differences

SEED = 20241219
DRAWS = 10_000
BLOCK_ENTRIES = 4_000_000


class Member(NamedTuple):
    """Values ``(seeds, clips)`` of one metric on both sides, units, direction of worse (+1, -1), and tested sides."""

    new: FloatArray
    base: FloatArray
    units: Sequence[str]
    worse: float
    sides: int


def level_of_each(members: Sequence[Member], alpha: float) -> float:
    """Level for every metric of the family: at least ``alpha`` / len(members), at most ``alpha``.

    Metrics without any spread can raise no alarm and take no share.
    """
    least = alpha / max(1, len(members))
    differences = [unit_differences(m.new, m.base, m.units) for m in members]
    varied = [(m, names, d - d.mean()) for m, (names, d) in zip(members, differences, strict=True) if np.ptp(d) > 0]
    if len(varied) < 2:
        return alpha if varied else least
    groups: dict[tuple[str, ...], list[tuple[Member, FloatArray]]] = {}
    for member, units, d in varied:
        groups.setdefault(tuple(units), []).append((member, d))
    column = {name: i for i, name in enumerate(dict.fromkeys(name for names in groups for name in names))}
    rng = np.random.default_rng(SEED)
    smallest = []
    block = max(1, BLOCK_ENTRIES // len(column))
    for start in range(0, DRAWS, block):
        coins = rng.integers(0, 2, size=(min(block, DRAWS - start), len(column)), dtype=np.int8)
        furthest: dict[tuple[int, int], FloatArray] = {}  # by units and sides: one distribution each
        for names, group in groups.items():
            own = coins if len(names) == len(column) else coins[:, [column[name] for name in names]]
            sums = (2.0 * own - 1.0) @ np.stack([d for _, d in group], axis=1)
            for (member, d), drawn in zip(group, sums.T, strict=True):
                ratio = _ratios(drawn, d, member)
                key = (len(d), member.sides)
                furthest[key] = np.maximum(furthest.get(key, ratio), ratio)
        smallest.append(np.min([sides * stats.t.sf(r, k - 1) for (k, sides), r in furthest.items()], axis=0))
    rank = int(alpha * (DRAWS + 1)) - 1
    found = float(np.partition(np.concatenate(smallest), rank)[rank])
    return min(max(found, least), alpha)


def _ratios(sums: FloatArray, parts: FloatArray, member: Member) -> FloatArray:
    """t ratios in the direction of worse (in either one) of sums under random signs, each with its own spread."""
    k = len(parts)
    spread = np.maximum(np.square(parts).sum() - sums**2 / k, np.finfo(np.float64).tiny)
    ratios: FloatArray = sums / np.sqrt(spread * k / (k - 1))
    return member.worse * ratios if member.sides == 1 else np.abs(ratios)
