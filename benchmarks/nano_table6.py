"""What mmaudio-nano learned, and Table 6 of the paper in miniature: four arms trained on the same features.

    PYTHONPATH=. python benchmarks/nano_table6.py --out runs/table6

The features are those of the embedded codec and feature networks. Arms of a training share seed, batches, noise and
guidance, and differ by one switch of the flow network each; with ``--seeds`` all of them are trained again from other
seeds. The file that comes out, ``evaluation.json``, holds every value with its interval, and the paired differences
between the arms of a training and to the floors; it is kept as
``model_zoo/mmaudio/weights/mmaudio-nano-evaluation.json``. What is trained or scored already is not done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import av_bench
from av_bench.results import compare
from av_bench.results.record import Run, read_run
from av_bench.runtime.files import home
from model_zoo.mmaudio.nano.model import CODEC, FLOW, SIGHT, WEIGHTS, load
from model_zoo.mmaudio.nano.recipe import CLIPS, feature_stage, flow_stage
from model_zoo.mmaudio.nano.stage_files import save_json
from model_zoo.scorers.corpus import corpus

ARMS = {
    "full": "nano",
    "no sync module": "nano_sync_none",
    "sync summed with visual": "nano_sync_sum",
    "no RoPE": "nano_rope_none",
}
FIRST_SEED = 14159265  # of a training; the others follow it
FLOORS = ("oracle", "shuffled", "noise")


def trained(job: tuple[str, int, Path, int, str]) -> Path:
    """Train one arm from one seed; returns a folder that ``mmaudio-nano:weights=`` takes."""
    arm, seed, out, steps, device = job
    config, folder = ARMS[arm], out / f"{ARMS[arm]}-{seed}"
    package = folder / "package"
    if not (package / FLOW).is_file():
        torch.set_num_threads(1)
        flow = flow_stage(folder, out / "features", config, (f"steps={steps}", f"seed={seed}"), device)
        package.mkdir(exist_ok=True)
        for name in (CODEC, SIGHT):
            shutil.copyfile(WEIGHTS / name, package / name)
        shutil.copyfile(flow / "ema-0.1.safetensors", package / FLOW)
    print(f"{arm}, seed {seed}: trained", flush=True)
    return package


def scored(model: str, out: Path, clips: int, device: str) -> Run:
    """A run of ``model`` on the first clips of impacts test."""
    av_bench.run(set="impacts", model=model, limit=clips, out=out, device=device, flavour="strict")
    return read_run(out)


def values(run: Run) -> dict[str, Any]:
    """Every metric with its interval and n."""
    return {name: {k: entry[k] for k in ("value", "interval", "n")} for name, entry in run.scores["metrics"].items()}


def differences(new: Run, base: Run) -> dict[str, Any]:
    """Differences, new - base, with their 95 % intervals; ``method`` says whether they are paired by clip."""
    found = compare.differences(new, base)
    return {d.metric: {"difference": d.value, "interval": [d.low, d.high], "method": d.method} for d in found}


def training(seed: int, packages: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Values of all arms of one training, and their differences to the full network."""
    specs = {arm: "mmaudio-nano:weights=" + str(package).replace(",", "\\,") for arm, package in packages.items()}
    arms = {
        arm: scored(spec, given.out / f"run-{ARMS[arm]}-{seed}", given.clips, given.device)
        for arm, spec in specs.items()
    }
    against = {arm: differences(run, arms["full"]) for arm, run in arms.items() if arm != "full"}
    return {"seed": seed, "runs": {arm: values(run) for arm, run in arms.items()}, "against full": against}


def main() -> None:
    """Features, arms, runs, the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=home() / "corpus" / f"impacts-train-{CLIPS}")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every arm")
    parser.add_argument("--clips", type=int, default=64, help="of impacts test, to score")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="arms that train at the same time")
    given = parser.parse_args()

    _, codec, sight = load(WEIGHTS)
    device = torch.device(given.device)
    data = corpus(given.corpus, "train", CLIPS, given.workers)
    feature_stage(given.out, data, sight.to(device), codec.to(device), given.device, print)
    seeds = [FIRST_SEED + number for number in range(given.seeds)]
    jobs = [(arm, seed, given.out, given.steps, given.device) for seed in seeds for arm in ARMS]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        packages = dict(zip([job[:2] for job in jobs], pool.map(trained, jobs), strict=True))

    runs = {name: scored(name, given.out / name, given.clips, given.device) for name in (*FLOORS, "mmaudio-nano")}
    trainings = [training(seed, {arm: packages[arm, seed] for arm in ARMS}, given) for seed in seeds]
    nano = runs["mmaudio-nano"]
    content = {
        "set": nano.scores["set"] | {"clips": given.clips},
        "protocol": nano.scores["protocol"]["name"],
        "flavour": nano.scores["flavour"],
        "seed": nano.info["spec"]["seed"],
        "runs": {name: values(run) for name, run in runs.items()},
        "mmaudio-nano against": {name: differences(nano, runs[name]) for name in FLOORS},
        "ablations": {"steps": given.steps, "trainings": trainings},
    }
    save_json(given.out / "evaluation.json", content)
    print(json.dumps([each["against full"] for each in trainings], indent=1))


if __name__ == "__main__":
    main()
