"""Training speed of a flow network: samples per second, share of the device's peak, and what each switch costs.

    python benchmarks/mmaudio_training.py --config small_16k --device cuda --batch 64 [--precision bf16] [--steps 20]
    python benchmarks/mmaudio_training.py --device cpu --batch 2 --precision fp32 --shrink 64 --steps 3
    python benchmarks/mmaudio_training.py --original MMAudio/ --skip "original, compiled" compiled    # a checkout

Every row is one process, random features, the step of the training loop (forward, backward, clipping, AdamW). The peak
is that of a large matrix product in the same precision on the same device, measured here: shares compare machines,
absolute rates don't. Ratios are against the first row, with which every other row takes its steps in turns: the
published network (same weights, batch and optimiser) where ``--original`` names a checkout of it, else ours uncompiled.
``--shrink H`` builds the network with hidden size H, for machines where the full one is no use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from published_flow import PublishedForTraining
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.features.read import Rows
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training.distributed import Cluster, wrap_parallel
from model_zoo.mmaudio.training.mix import Batch
from model_zoo.mmaudio.training.objective import Matching, Normaliser, adamw, gradients, update
from model_zoo.mmaudio.training.recipe import RunSettings, read_recipe
from model_zoo.mmaudio.training.regions import open_sizes
from model_zoo.mmaudio.training.setup import network_config, row_shapes


def random_batch(config: NetworkConfig, size: int, device: torch.device) -> Batch:
    """Features and noise of the right shapes."""
    generator = torch.Generator().manual_seed(0)
    arrays = {n: torch.randn(size, *s, generator=generator).bfloat16() for n, s in row_shapes(config).items()}
    arrays["std"] = arrays["std"].abs()
    there = torch.ones(size, dtype=torch.bool)
    noise = [torch.randn(arrays["mean"].shape, generator=generator) for _ in range(2)]
    drop = torch.rand(2, size, generator=generator) < 0.1
    return Batch(Rows(**arrays, video=there, has_text=there), *noise, torch.rand(size, generator=generator), *drop).to(
        device
    )


def build(config: NetworkConfig, device: torch.device) -> FlowNetwork:
    """A network with random weights."""
    torch.manual_seed(0)
    one = torch.ones(config.latent_dim)
    empty = torch.randn(config.text_len, config.text_dim)
    return FlowNetwork(config, latent_mean=0 * one, latent_std=one, empty_string=empty).to(device)


class Contender:
    """A network with its optimiser that takes steps on one random batch.

    With ``checkout`` it is the published network: same weights, same batch, same optimiser.
    """

    def __init__(
        self, config: NetworkConfig, run: RunSettings, size: int, device: torch.device, checkout: Path | None = None
    ) -> None:
        self.run, self.device = run, device
        resident = _allocated(device, peak=False)
        network = build(config, device)
        if checkout is None:
            self.module = wrap_parallel(network, run, Cluster(0, 1, device))
        else:
            self.module = PublishedForTraining(network, checkout)
            if run.compile:
                self.module.compile()
        self.objective = Matching(Normaliser(network.latent_mean.detach(), network.latent_std.detach()))
        self.batch = random_batch(config, size, device)
        self.optimiser = adamw(network if checkout is None else self.module, 1e-4, 1e-6, (0.9, 0.95), 1e-6)
        self.times: list[tuple[float, float]] = []
        for _ in range(3):  # to warm up
            self.step()
        self.times.clear()
        self.memory = _allocated(device, peak=True) - resident

    def step(self) -> None:
        """Forward, backward, clipping, AdamW."""
        started, used = time.perf_counter(), time.process_time()
        gradients(self.module, self.batch, self.objective, self.run.precision, self.run.accumulate)
        update(self.optimiser, 1e-4, 1.0)
        _wait(self.device)
        self.times.append((time.perf_counter() - started, time.process_time() - used))

    @property
    def median(self) -> tuple[float, float]:
        """Wall and processor seconds of a step."""
        wall, processor = (sorted(values)[len(values) // 2] for values in zip(*self.times, strict=True))
        return wall, processor


def in_turns(first: Contender, other: Contender, steps: int) -> None:
    """Steps of both, one after the other, each first every second time."""
    first.times.clear()
    for n in range(steps):
        for contender in (first, other) if n % 2 else (other, first):
            contender.step()


def _allocated(device: torch.device, peak: bool) -> int:
    """Bytes on a GPU now, or at most since the last call; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    found = torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return found


def flops_per_sample(config: NetworkConfig) -> float:
    """Forward and backward floating point operations of one sample, counted (two per multiply-add)."""
    device = torch.device("cpu")
    network, batch = build(config, device), random_batch(config, 1, device)
    objective = Matching(Normaliser(network.latent_mean.detach(), network.latent_std.detach()))
    with FlopCounterMode(display=False) as counter:
        gradients(network, batch, objective)
    return float(counter.get_total_flops())


def peak_flops(device: torch.device, precision: str) -> float:
    """Best rate of a large matrix product in this precision."""
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return 2 * size**3 / min(_timed(lambda: a @ b, device) for _ in range(10))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="small_16k")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shrink", type=int, help="hidden size of a smaller network (a multiple of 64)")
    parser.add_argument("--skip", nargs="*", default=[], help="rows to leave out, e.g. compiled")
    parser.add_argument("--original", type=Path, help="checkout of hkchengrex/MMAudio to compare with")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    config = network_config(read_recipe(given.config))
    if given.shrink:
        config = replace(config, hidden=given.shrink, heads=given.shrink // 64)
    plain = RunSettings(precision=given.precision, compile=False)
    rows = {
        "plain": plain,
        "compiled": replace(plain, compile=True),
        "recomputing": replace(plain, checkpointing=True),
        "in 2 pieces": replace(plain, accumulate=2),
        "in 4 pieces": replace(plain, accumulate=4),
    }
    flops, peak = flops_per_sample(config), peak_flops(device, given.precision)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{given.config}, hidden {config.hidden}, batch {given.batch}, {given.precision}, {name}")
    print(f"{flops / 1e9:.1f} GFLOP per sample forward and backward; measured peak {peak / 1e12:.2f} TFLOP/s")
    if given.original is not None:
        rows = {"original": plain, "original, compiled": replace(plain, compile=True)} | rows
    first: Contender | None = None
    with open_sizes():
        for label, run in rows.items():
            if label in given.skip:
                continue
            checkout = given.original if label.startswith("original") else None
            other = Contender(config, run, given.batch, device, checkout)
            first = first or other
            in_turns(first, other, given.steps)
            (base_wall, base_used), (wall, used) = first.median, other.median
            rate, memory = given.batch / wall, f", {other.memory / 2**30:.1f} GiB" if other.memory else ""
            ratios = f"{base_wall / wall:5.2f}x wall, {base_used / used:5.2f}x processor"
            print(
                f"{label:>18}: {rate:8.2f} samples/s, {rate * flops / peak:6.1%} of peak, {ratios}{memory}", flush=True
            )


if __name__ == "__main__":
    main()
