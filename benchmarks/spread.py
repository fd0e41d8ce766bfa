"""Are the standard deviations right? Estimated from one draw, against the spread of fresh draws.

    python benchmarks/spread.py [--draws 100]

FD by influence values and by random halves, alone and as the paired difference of two seeds, from n far below d to n
above d; IS by deletions within splits (between splits where they are small) and by halves; KAD. Ratios of 1 are right,
above 1 too wide. ``docs/statistics.md`` holds the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from av_bench.metrics.frechet_influence import frechet_effects
from av_bench.metrics.inception import inception_score
from av_bench.metrics.inception_influence import inception_effects
from av_bench.metrics.intervals import frechet_interval
from av_bench.metrics.kernel import kernel_effects

Generator = Callable[[np.random.Generator, np.ndarray], np.ndarray]
GENERATORS: dict[str, Generator] = {
    "same distribution": lambda rng, real: rng.normal(size=real.shape),
    "near": lambda rng, real: 0.7 * real + 0.5 * rng.normal(size=real.shape),
    "far": lambda rng, real: 0.5 * real + 0.5 + 0.5 * rng.normal(size=real.shape),
}
SHAPES = ((8, 64), (16, 64), (32, 64), (64, 16), (64, 64), (256, 64), (64, 512), (64, 2048))


def ratio(variances: list[float], values: list[float]) -> str:
    """Root mean square of the estimated sd over the sd of fresh draws."""
    return f"{np.sqrt(np.mean(variances)) / np.std(values):.2f}"


def frechet(n: int, d: int, name: str, draws: int) -> str:
    """Ratios for FD and KAD at one shape; features whose variance falls as 1 / i."""
    rng = np.random.default_rng(n + d)
    scale = np.arange(1, d + 1) ** -0.5
    found: dict[str, tuple[list[float], list[float]]] = {k: ([], []) for k in ("FD", "paired", "halves", "KAD")}
    for draw in range(draws):
        real = rng.normal(size=(n, d))
        sides = [GENERATORS[name](rng, real) * scale for _ in range(2)]
        a, b = (frechet_effects(real * scale, side) for side in sides)
        own, other = a.reference + a.generated, b.reference + b.generated
        kernel = kernel_effects(real * scale, sides[0])
        spread = n / (n - 1)
        for key, value, variance in (
            ("FD", a.value, spread * float(np.square(own).sum())),
            ("paired", a.value - b.value, spread * float(np.square(own - other).sum())),
            ("KAD", kernel.value, spread * float(np.square(kernel.reference + kernel.generated).sum())),
        ):
            found[key][0].append(variance)
            found[key][1].append(value)
        if draw < 8:
            halves = frechet_interval(real * scale, sides[0], np.arange(n), np.arange(n), seed=draw, replicates=10)
            found["halves"][0].append(halves.sd**2)
    found["halves"] = (found["halves"][0], found["FD"][1])
    return "  ".join(f"{key} {ratio(*pair)}" for key, pair in found.items())


def inception(n: int, classes: int, draws: int) -> str:
    """Ratios for IS in 10 splits, alone and paired; and for halves of the set in 10 splits."""
    rng = np.random.default_rng(n + classes)
    found: dict[str, tuple[list[float], list[float]]] = {k: ([], []) for k in ("IS", "paired", "halves")}
    for draw in range(draws):
        clips = 3 * rng.normal(size=(n, classes))
        sides = [clips + 2 * rng.normal(size=(n, classes)) for _ in range(2)]
        a, b = (inception_effects(side) for side in sides)
        unit = a.split if a.by_split else np.arange(n)
        for key, value, effects in (("IS", a.value, a.effects), ("paired", a.value - b.value, a.effects - b.effects)):
            sums = np.bincount(unit, weights=effects)
            found[key][0].append(float(np.square(sums).sum()) * len(sums) / (len(sums) - 1))
            found[key][1].append(value)
        if draw < 8 and n >= 40:
            pairs = []
            for _ in range(10):
                order = rng.permutation(n)
                pairs.append([inception_score(sides[0][part])[0] for part in (order[: n // 2], order[n // 2 :])])
            found["halves"][0].append(float(np.square(np.diff(pairs)).mean()) / 4)
    found["halves"] = (found["halves"][0], found["IS"][1])
    return "  ".join(f"{key} {ratio(*pair)}" for key, pair in found.items())


def main() -> None:
    """Print all ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args()
    for n, d in SHAPES:
        draws = options.draws if d <= 64 else max(options.draws // 4, 10)
        for name in GENERATORS:
            print(f"n {n:>4}, d {d:>4}, {name:<18} {frechet(n, d, name, draws)}", flush=True)
    for n, classes in ((41, 24), (64, 24), (80, 24), (256, 24), (64, 527), (256, 527)):
        print(f"IS: n {n:>4}, {classes} classes: {inception(n, classes, options.draws)}", flush=True)


if __name__ == "__main__":
    main()
