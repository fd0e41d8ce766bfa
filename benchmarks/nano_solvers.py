"""What few steps cost: solvers of mmaudio-nano at equal numbers of network evaluations, scored on ``impacts``.

    python benchmarks/nano_solvers.py --clips 32 --out runs/solvers
    python benchmarks/nano_solvers.py --clips 64 --out runs/steps --solvers euler --evaluations 25 8 4 2 1 \
        --students runs/four/weights/ema-0.1.safetensors runs/one/weights/ema-0.1.safetensors

Heun and midpoint evaluate the network twice a step, so they get half as many steps. Every row has the same noise. The
columns are the metrics of protocol nano, and the distance of the latents' sounds from those of Euler with ``--fine``
steps: the root mean square of the difference over that of the fine sounds. ``--students`` are weights made for few
steps (docs/mmaudio.md), scored in the steps they are made for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import av_bench
from model_zoo.mmaudio.flow.load import read_flow

EVALUATIONS = (2, 4, 6, 10, 25)
PER_STEP = {"euler": 1, "multistep": 1, "heun": 2, "midpoint": 2}
METRICS = ("FD-nano", "KL-nano", "Bind-nano", "DeSync-nano", "F1")


def sounds(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Samples of a run by clip."""
    return {path.stem: soundfile.read(path)[0] for path in sorted((folder / "audio").iterdir())}


def distance(folder: Path, fine: Path) -> float:
    """Relative root mean square difference of two runs' sounds."""
    ours, theirs = sounds(folder), sounds(fine)
    pairs = [(ours[key], theirs[key]) for key in theirs if key in ours]
    difference = sum(float(np.square(a - b).sum()) for a, b in pairs)
    return float(np.sqrt(difference / sum(float(np.square(b).sum()) for _, b in pairs)))


def one(spec: str, folder: Path, clips: int) -> dict[str, float]:
    """Metrics of one spec."""
    found = av_bench.run(
        set="impacts", model=spec, out=folder, limit=clips, quiet=True, videos=False,
        metrics=",".join(METRICS),
    )  # fmt: skip
    return {name: float(found.scores["metrics"][name]["value"]) for name in METRICS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all rows and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--fine", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, nargs="+", default=list(EVALUATIONS))
    parser.add_argument("--solvers", nargs="+", default=list(PER_STEP), choices=list(PER_STEP))
    parser.add_argument("--students", type=Path, nargs="*", default=[])
    given = parser.parse_args(arguments)
    fine = given.out / "fine"
    rows = {f"euler, {given.fine}": one(f"mmaudio-nano:steps={given.fine}", fine, given.clips) | {"distance": 0.0}}
    print(f"| solver, evaluations | {' | '.join(METRICS)} | distance |", flush=True)
    print(f"|---|{'---:|' * (len(METRICS) + 1)}", flush=True)
    for count in given.evaluations:
        for solver in given.solvers:
            each = PER_STEP[solver]
            if count % each:
                continue
            folder = given.out / f"{solver}-{count}"
            values = one(f"mmaudio-nano:solver={solver},steps={count // each}", folder, given.clips)
            rows[f"{solver}, {count}"] = values | {"distance": distance(folder, fine)}
    for file in given.students:
        few = read_flow(str(file)).few_step
        if few is None:
            raise SystemExit(f"--students {file}: not made for few steps")
        folder = given.out / f"student-{few.steps}"
        values = one(f"mmaudio-nano:weights={file}", folder, given.clips)
        rows[f"student, {few.steps}"] = values | {"distance": distance(folder, fine)}
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values.values())} |", flush=True)


if __name__ == "__main__":
    main()
