"""Clips per second of the paper's extractors, extraction over pure forward time, and one decode for all against each.

    python benchmarks/extractors.py [--clips 4] [--device cpu] [--extractors passt,panns,vggish]

The networks have the paper's sizes and random weights: speed does not depend on the values, and nothing has to be
downloaded. Clips come from the rendered set: 8 s, 256 px. Clips per second depend on the machine and are printed for
orientation; ratios are of wall time, and of processor time (which other load on the machine disturbs least), measured
in the same run. Needs ``av-bench[paper]``.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import protocols
from av_bench import registry
from av_bench.contracts import Extractor, Need
from av_bench.features.extraction import Extraction
from av_bench.features.extractor_set import ExtractorSet
from av_bench.features.sides import MediaFile
from av_bench.features.store import Store
from av_bench.media.decode import decode
from av_bench.runtime.cores import default_workers
from av_bench.runtime.progress import Reporter
from av_bench.weights.fill import StateDict
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

SECONDS = 8.0
NAMES = [
    "vggish",
    "panns",
    "clap-audio",
    "msclap-audio",
    "imagebind-audio",
    "passt",
    "synchformer-audio",
    "imagebind-video",
    "synchformer-video",
]
MODULES = ("passt", "panns", "vggish", "imagebind", "clap", "msclap", "synchformer")


def fill(module: nn.Module, state: StateDict, *, ignore: str | None = None) -> str:
    """Random values in every tensor, instead of a file's."""
    del state, ignore
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var",)):
            tensor.fill_(1.0)
        elif tensor.is_floating_point() and "relative_position" not in name and "attn_mask" not in name:
            tensor.normal_(0.0, 0.02, generator=generator)
    return "random"


@contextlib.contextmanager
def random_weights() -> Iterator[None]:
    """Inside, extractors are built without weight files."""
    empty = StateDict({}, "random values", lambda: "random")
    instead: dict[str, Callable[..., Any]] = {
        "read": lambda *_, **__: empty,
        "_part": lambda *_, **__: empty,
        "load_into": fill,
        "check_stored": lambda *_, **__: None,
    }
    kept = []
    for module in (import_module(f"av_bench.extractors.{name}") for name in MODULES):
        for name, function in instead.items():
            if hasattr(module, name):
                kept.append((module, name, getattr(module, name)))
                setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


class RandomExtractors(ExtractorSet):
    """Extractors of the paper's sizes without their weights."""

    def fingerprint(self, name: str) -> str:
        """No hash: nothing is read."""
        return f"{name}-random"

    def single(self, name: str) -> Extractor:
        """Built on first use."""
        with random_weights():
            return super().single(name)


class Cost(NamedTuple):
    """Wall and processor seconds."""

    wall: float
    processor: float


def timed(work: Callable[[], Any]) -> Cost:
    """Processor seconds of this process count every thread and hardly notice what else the machine does."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - processor)


def extract(networks: ExtractorSet, names: Sequence[str], paths: Sequence[Path]) -> None:
    """One pass over the files into a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        work = Extraction(networks, Store(Path(folder)), SECONDS, default_workers(), Reporter(quiet=True))
        work.media([MediaFile(p.stem, p) for p in paths], "reference", names, audio=True, video=True)


def total(costs: Sequence[Cost]) -> Cost:
    """Sum of both."""
    return Cost(sum(c.wall for c in costs), sum(c.processor for c in costs))


def row(name: str, clips: int, forward: Cost, chain: Cost) -> str:
    """One line of the table."""
    ratios = f"{chain.wall / forward.wall:.2f} | {chain.processor / forward.processor:.2f}"
    return f"| {name} | {clips / forward.wall:.3f} | {clips / chain.wall:.3f} | {ratios} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--extractors", default=",".join(NAMES))
    options = parser.parse_args()
    names = options.extractors.split(",")
    clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=options.clips)).clips
    paths = [clip.video for clip in clips if clip.video is not None]
    sides = {name: "video" if "video" in name else "reference" for name in names}
    needs = [Need(n, next(iter(registry.load("extractors", n).outputs)), side) for n, side in sides.items()]  # type: ignore[arg-type]
    networks = RandomExtractors(needs, options.device, "paper")

    print(f"{len(paths)} clips of {SECONDS:g} s, {options.device}, {torch.get_num_threads()} threads")
    print("| extractor | forward, clips/s | whole chain, clips/s | chain / forward, wall | processor |")
    print("|---|---:|---:|---:|---:|")
    forwards, singles = [], []
    for name in names:
        extractor = networks.single(name)
        requests = [extractor.video_request] if extractor.video_request is not None else []
        inputs = [extractor.prepare(decode(path, requests, SECONDS), SECONDS) for path in paths]
        extractor.run(inputs[:1])
        forwards.append(timed(lambda e=extractor, x=inputs: e.run(x)))  # type: ignore[misc]
        singles.append(timed(lambda n=name: extract(networks, [n], paths)))  # type: ignore[misc]
        print(row(name, len(paths), forwards[-1], singles[-1]), flush=True)
    together = timed(lambda: extract(networks, names, paths))
    print(row(f"all {len(names)} together", len(paths), total(forwards), together))
    apart = total(singles)
    print(f"\none by one / together: {apart.wall / together.wall:.2f} wall, ", end="")
    print(f"{apart.processor / together.processor:.2f} processor")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
