"""Extraction wall time over pure forward time of the same networks, and the warm re-run, measured in one process.

    python benchmarks/extraction.py [--clips 32] [--rounds 3] [--extractors nano-tagger,nano-sync-video]

Prints ratios only: absolute times depend on the machine. "together" decodes each file once for all extractors;
"one by one" decodes it again for each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import protocols
from av_bench import registry
from av_bench.contracts import Need
from av_bench.features.extraction import Extraction
from av_bench.features.extractor_set import ExtractorSet
from av_bench.features.sides import MediaFile
from av_bench.features.store import Store
from av_bench.media.decode import decode
from av_bench.runtime.cores import default_workers
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

SECONDS = 8.0


def need_of(name: str) -> Need:
    """A need that asks for an extractor's first output."""
    cls = registry.load("extractors", name)
    return Need(name, next(iter(cls.outputs)), "video" if cls.modality == "video" else "reference")


def extraction(networks: ExtractorSet, folder: str) -> Extraction:
    """A fresh store, so that nothing is warm but the networks."""
    return Extraction(networks, Store(Path(folder)), SECONDS, default_workers(), Reporter(quiet=True))


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def extract(networks: ExtractorSet, names: Sequence[str], paths: Sequence[Path], store: str) -> Extraction:
    """One pass over the files into a store."""
    work = extraction(networks, store)
    work.media([MediaFile(p.stem, p) for p in paths], "reference", names, audio=True, video=True)
    return work


def forward_only(networks: ExtractorSet, names: Sequence[str], paths: Sequence[Path]) -> float:
    """Seconds of the networks alone, on inputs prepared before the clock starts."""
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    built = {name: networks.single(name) for name in names}
    requests = [e.video_request for e in built.values() if e.video_request is not None]
    for path in paths:
        media = decode(path, requests, SECONDS)
        for name, extractor in built.items():
            inputs[name].append(extractor.prepare(media, SECONDS))
    return timed(lambda: [built[name].run(rows) for name, rows in inputs.items()])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--extractors", default="nano-tagger,nano-bind-audio,nano-bind-video,nano-sync-audio,nano-sync-video"
    )
    options = parser.parse_args()
    names = options.extractors.split(",")
    clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=options.clips)).clips
    paths = [clip.video for clip in clips if clip.video is not None]
    networks = ExtractorSet([need_of(n) for n in names], "cpu", "strict")
    ratios: dict[str, list[float]] = {"extraction / forward": [], "one by one / together": [], "cold / warm": []}
    forwards = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as together, tempfile.TemporaryDirectory() as apart:
            forward = forward_only(networks, names, paths)
            whole = timed(lambda folder=together: extract(networks, names, paths, folder))  # type: ignore[misc]
            warm = timed(lambda folder=together: forwards.append(extract(networks, names, paths, folder).forwards))  # type: ignore[misc]
            single = sum(timed(lambda n=name, folder=apart: extract(networks, [n], paths, folder)) for name in names)  # type: ignore[misc]
        ratios["extraction / forward"].append(whole / forward)
        ratios["one by one / together"].append(single / whole)
        ratios["cold / warm"].append(whole / warm)
    print(f"{len(paths)} clips, {len(names)} extractors, {options.rounds} rounds; median (minimum to maximum)")
    for name, values in ratios.items():
        print(f"{name:<24} {statistics.median(values):7.2f}  ({min(values):.2f} to {max(values):.2f})")
    print(f"network runs when warm   {sum(forwards):7d}")


if __name__ == "__main__":
    main()
