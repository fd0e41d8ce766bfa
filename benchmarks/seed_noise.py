"""False alarms when all clips of one seed share some noise: runs of several seeds, nothing changed.

    python benchmarks/seed_noise.py [--pairs 4000]

``shared`` is the standard deviation of what a seed shares, in units of what independent clips give a run's mean. At one
seed a side it cannot be seen, which the first lines show; with several seeds ``paired_effect`` adds it.
"""

from __future__ import annotations

import argparse

import numpy as np

from av_bench.metrics.paired import paired_effect

CLIPS = 64
LEVELS = (0.05, 0.05 / 8)


def alarms(new: int, base: int, shared: float, pairs: int) -> list[float]:
    """Share of pairs that a one-sided test calls worse, at each level."""
    rng = np.random.default_rng(100 * new + base)
    units = np.arange(CLIPS)
    hits = np.zeros(len(LEVELS))
    for _ in range(pairs):
        sides = [
            rng.normal(size=(seeds, CLIPS)) + shared / np.sqrt(CLIPS) * rng.normal(size=(seeds, 1))
            for seeds in (new, base)
        ]
        p = paired_effect(*sides, units).p_value(1.0, 1)
        hits += [p < level for level in LEVELS]
    return [float(h) for h in hits / pairs]


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000)
    options = parser.parse_args()
    for new, base in ((1, 1), (1, 3), (1, 5), (2, 3), (3, 3), (5, 5)):
        for shared in (0.0, 0.5, 1.0, 2.0):
            found = alarms(new, base, shared, options.pairs)
            rates = ", ".join(f"{rate:.2%} at {level:.2%}" for rate, level in zip(found, LEVELS, strict=True))
            print(f"{new} against {base} seeds, shared noise {shared:g}: {rates}", flush=True)


if __name__ == "__main__":
    main()
