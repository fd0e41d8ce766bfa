"""Throughput on whatever devices are here: extractors, the whole chain, waiting, scaling, share of the device's peak.

    python benchmarks/throughput.py [--networks nano|paper] [--clips 16] [--devices cuda:0,cuda:1] [--processes 1,2]
    python benchmarks/throughput.py --networks paper --only vggish,panns --clips 1 --rounds 1      # on a slow machine

Prints three tables. For each extractor: clips per second of the network alone; milliseconds per clip of decoding with
preparation (one thread), of the transfer to the device and of the forward pass; and the share of the device's peak:
counted floating-point operations per second over those of a large float32 matrix product measured in the same run.
For the whole chain (decode once, all extractors, store): clips per second, and the share of the time that is spent
outside the networks. For scaling: clips per second of 1, 2, ... processes at once, one for each device (on a CPU, of
one thread each), each with all the clips. ``paper`` needs ``av-bench[paper]`` and uses random weights of the real
sizes. Numbers depend on the machine; ratios of one run compare, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from extractors import NAMES, RandomExtractors
from torch.utils.flop_counter import FlopCounterMode

import protocols
from av_bench import registry
from av_bench.contracts import Need
from av_bench.features.extraction import Extraction
from av_bench.features.extractor_set import ExtractorSet
from av_bench.features.sides import MediaFile
from av_bench.features.store import Store
from av_bench.media.decode import decode
from av_bench.runtime.cores import default_workers
from av_bench.runtime.devices import finish, single_precision
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

SECONDS = 8.0
NANO = ["nano-tagger", "nano-bind-audio", "nano-bind-video", "nano-sync-audio", "nano-sync-video"]
SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrix product that stands for the peak
ROUNDS = 5


def networks_of(kind: str, only: str, device: str) -> tuple[list[str], ExtractorSet]:
    """Names and extractors of one kind on one device; ``only`` some of them, separated by commas ("": all)."""
    known = NANO if kind == "nano" else NAMES
    names = only.split(",") if only else known
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"--only {unknown[0]}: none of {', '.join(known)}")
    classes = {name: registry.load("extractors", name) for name in names}
    needs = [
        Need(name, next(iter(cls.outputs)), "video" if cls.modality == "video" else "reference")
        for name, cls in classes.items()
    ]
    return names, (ExtractorSet if kind == "nano" else RandomExtractors)(needs, device, "paper")


def seconds_of(work: Callable[[], Any], device: torch.device, rounds: int = ROUNDS) -> float:
    """Wall seconds of the best of some rounds after one to warm up; the device is waited for."""
    spent = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        finish(device)
        spent.append(time.perf_counter() - started)
    return min(spent[1:])


def peak_of(device: torch.device) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    side = SIDE.get(device.type, 4096)
    with single_precision():
        matrix = torch.randn(side, side, device=device)
        return 2 * side**3 / seconds_of(lambda: matrix @ matrix, device)


def extractor_row(name: str, networks: ExtractorSet, paths: Sequence[Path], peak: float, rounds: int) -> str:
    """One extractor: each part on its own, with one batch as the chain forms them."""
    extractor = networks.single(name)
    requests = [extractor.video_request] if extractor.video_request is not None else []
    started = time.perf_counter()
    inputs = [extractor.prepare(decode(path, requests, SECONDS, window=SECONDS), SECONDS) for path in paths]
    reading = (time.perf_counter() - started) / len(paths)
    batch = torch.stack(inputs[: extractor.batch_size])
    transfer = seconds_of(lambda: batch.to(extractor.device), extractor.device, rounds) / len(batch)
    forward = seconds_of(lambda: extractor.run(inputs[: len(batch)]), extractor.device, rounds) / len(batch)
    with FlopCounterMode(display=False) as counter:
        extractor.run(inputs[:1])
    share = counter.get_total_flops() / forward / peak
    parts = f"{1e3 * reading:.1f} | {1e3 * transfer:.2f} | {1e3 * forward:.1f}"
    return f"| `{name}` | {1 / forward:.2f} | {parts} | {100 * share:.0f} % |"


def chain(networks: ExtractorSet, names: Sequence[str], paths: Sequence[Path]) -> tuple[float, float]:
    """Clips per second of a cold extraction, and the share of the time spent outside the networks."""
    busy = 0.0
    for name in names:
        extractor = networks.single(name)
        run = extractor.run

        def timed(items: Sequence[torch.Tensor], run: Any = run) -> Any:
            nonlocal busy
            started = time.perf_counter()
            rows = run(items)  # returns arrays, so the device is done
            busy += time.perf_counter() - started
            return rows

        extractor.run = timed
    with tempfile.TemporaryDirectory() as folder:
        work = Extraction(networks, Store(Path(folder)), SECONDS, default_workers(), Reporter(quiet=True))
        started = time.perf_counter()
        work.media([MediaFile(p.stem, p) for p in paths], "reference", names, audio=True, video=True)
        wall = time.perf_counter() - started
    return len(paths) / wall, 1 - min(1.0, busy / wall)


def worker(kind: str, only: str, device: str, paths: Sequence[Path], ready: Any, done: Any) -> None:
    """One process of the scaling table: warms up, waits for the others, and says how long its clips took."""
    torch.set_num_threads(1)
    names, networks = networks_of(kind, only, device)
    chain(networks, names, paths[:1])
    ready.wait()
    started = time.time()
    chain(networks, names, paths)
    done.put((started, time.time()))


def scaling(kind: str, only: str, devices: Sequence[str], paths: Sequence[Path]) -> float:
    """Clips per second of one process for each device, all at once, each with all the clips."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(len(devices)), context.Queue()
    children = [context.Process(target=worker, args=(kind, only, d, paths, ready, done)) for d in devices]
    for child in children:
        child.start()
    times = [done.get() for _ in children]
    for child in children:
        child.join()
    return len(devices) * len(paths) / (max(end for _, end in times) - min(start for start, _ in times))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=("nano", "paper"), default="nano")
    parser.add_argument("--only", default="", help="some extractors, separated by commas [default: all]")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each part, of which the best counts")
    parser.add_argument("--devices", help="separated by commas [default: all CUDA devices, else cpu]")
    parser.add_argument("--processes", default="", help="numbers of processes [default: 1 to the number of devices]")
    given = parser.parse_args()
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    devices = given.devices.split(",") if given.devices else found
    clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=given.clips)).clips
    paths = [clip.video for clip in clips if clip.video is not None]

    first = torch.device(devices[0])
    peak = peak_of(first)
    names, networks = networks_of(given.networks, given.only, devices[0])
    what = torch.cuda.get_device_name(first) if first.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{devices[0]}: {what}, peak {peak / 1e12:.3g} TFLOP/s in float32; {len(paths)} clips of {SECONDS:g} s")
    print("\n| extractor | clips/s | decode and prepare, ms | transfer, ms | forward, ms | share of peak |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in names:
        print(extractor_row(name, networks, paths, peak, given.rounds), flush=True)
    rate, waiting = chain(networks, names, paths)
    print(f"\nwhole chain: {rate:.2f} clips/s, {100 * waiting:.0f} % of the time outside the networks", flush=True)
    print("\n| processes | clips/s | against one |\n|---:|---:|---:|")
    alone = 0.0
    for count in [int(n) for n in given.processes.split(",") if n] or range(1, len(devices) + 1):
        rate = scaling(given.networks, given.only, [devices[i % len(devices)] for i in range(count)], paths)
        alone = alone or rate
        print(f"| {count} | {rate:.2f} | {rate / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
