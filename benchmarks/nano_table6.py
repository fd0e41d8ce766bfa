"""What mmaudio-nano learned, and Table 6 of the paper in miniature: three arms trained on the same features.

    PYTHONPATH=. python benchmarks/nano_table6.py --out runs/table6

The features are those of the embedded codec and feature networks. Arms share seed, batches, noise and guidance, and
differ by one switch of the flow network each. The file that comes out, ``evaluation.json``, holds every value with its
interval, and the paired differences between the arms and to the floors; it is kept as
``model_zoo/mmaudio/weights/mmaudio-nano-evaluation.json``.
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

ARMS = {"full": "nano", "no sync module": "nano_sync_none", "no RoPE": "nano_rope_none"}
FLOORS = ("oracle", "shuffled", "noise")


def trained(job: tuple[str, str, Path, int, str]) -> Path:
    """Train one arm; returns a folder that ``mmaudio-nano:weights=`` takes."""
    arm, config, out, steps, device = job
    torch.set_num_threads(1)
    flow = flow_stage(out / config, out / "features", config, (f"steps={steps}",), device)
    package = out / config / "package"
    package.mkdir(exist_ok=True)
    shutil.copyfile(flow / "ema-0.1.safetensors", package / FLOW)
    for name in (CODEC, SIGHT):
        shutil.copyfile(WEIGHTS / name, package / name)
    print(f"{arm}: trained")
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


def main() -> None:
    """Features, arms, runs, the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=home() / "corpus" / f"impacts-train-{CLIPS}")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--clips", type=int, default=64, help="of impacts test, to score")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="arms that train at the same time")
    given = parser.parse_args()

    _, codec, sight = load(WEIGHTS)
    device = torch.device(given.device)
    data = corpus(given.corpus, "train", CLIPS, given.workers)
    feature_stage(given.out, data, sight.to(device), codec.to(device), given.device, print)
    jobs = [(arm, config, given.out, given.steps, given.device) for arm, config in ARMS.items()]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        packages = dict(zip(ARMS, pool.map(trained, jobs), strict=True))

    runs = {name: scored(name, given.out / name, given.clips, given.device) for name in (*FLOORS, "mmaudio-nano")}
    specs = {arm: "mmaudio-nano:weights=" + str(package).replace(",", "\\,") for arm, package in packages.items()}
    arms = {arm: scored(spec, given.out / f"run-{ARMS[arm]}", given.clips, given.device) for arm, spec in specs.items()}
    nano, full = runs["mmaudio-nano"], arms["full"]
    content = {
        "set": nano.scores["set"] | {"clips": given.clips},
        "protocol": nano.scores["protocol"]["name"],
        "flavour": nano.scores["flavour"],
        "seed": nano.info["spec"]["seed"],
        "runs": {name: values(run) for name, run in runs.items()},
        "mmaudio-nano against": {name: differences(nano, runs[name]) for name in FLOORS},
        "ablations": {
            "steps": given.steps,
            "runs": {arm: values(run) for arm, run in arms.items()},
            "against full": {arm: differences(run, full) for arm, run in arms.items() if arm != "full"},
        },
    }
    save_json(given.out / "evaluation.json", content)
    print(json.dumps(content["ablations"]["against full"], indent=1))


if __name__ == "__main__":
    main()
