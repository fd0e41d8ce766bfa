"""Generation with mmaudio-nano beside two busy loops, against an idle machine.

    python benchmarks/busy.py --clips 4 --rounds 2

Each round measures, interleaved: as `av-bench run` does it (one thread for each clip, as many clips at once as there
are usable cores) and with torch's threads (one clip after the other), both alone and beside two busy loops. The machine
must be idle otherwise. Prints medians and their ratios; the promise is under 3 for the first of them.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import model_zoo
from av_bench.contracts import Clip, ClipSet, Generator
from av_bench.runtime.cores import torch_threads, usable_cores
from av_bench.runtime.prefetch import prefetch_map
from tests.media_files import write_video

SECONDS = 8.0
LOOPS = 2


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that do nothing but use a core each."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def generated(model: Generator, clips: list[Clip], threads: int, at_once: int) -> tuple[float, str]:
    """Seconds for all clips, and a hash of their samples."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with torch_threads(threads):
        for samples in prefetch_map(lambda clip: list(model.generate([clip], 1)), clips, at_once, 2 * at_once):
            for sample in samples:
                assert sample.audio is not None, sample.detail
                digest.update(sample.audio.numpy().tobytes())
    return time.perf_counter() - started, digest.hexdigest()[:12]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    cores = usable_cores()
    ways = {"one thread per clip": (1, cores), "torch's threads": (cores, 1)}
    times: dict[tuple[str, int], list[float]] = {}
    hashes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = []
        for number in range(asked.clips):
            path = Path(folder) / f"{number}.mp4"
            write_video(path, seconds=SECONDS, size=64)
            clips.append(Clip(f"clip{number}", video=path))
        model = model_zoo.load("mmaudio-nano")
        assert isinstance(model, Generator)
        model.place("cpu")
        model.setup(ClipSet("busy", "1", tuple(clips)), SECONDS, 1)
        generated(model, clips[:1], 1, 1)  # what is built at first use
        for _ in range(asked.rounds):
            for loops in (0, LOOPS):
                for name, (threads, at_once) in ways.items():
                    with busy(loops):
                        seconds, digest = generated(model, clips, threads, at_once)
                    times.setdefault((name, loops), []).append(seconds)
                    hashes.setdefault(name, set()).add(digest)
    print(f"{cores} cores, {asked.clips} clips, medians of {asked.rounds} rounds")
    for name in ways:
        alone, beside = median(times[name, 0]), median(times[name, LOOPS])
        print(f"{name:20s} alone {alone:6.2f} s, beside {LOOPS} busy loops {beside:6.2f} s, ratio {beside / alone:.2f}")
    print("same samples" if len(set.union(*hashes.values())) == 1 else f"samples differ: {hashes}")


if __name__ == "__main__":
    main()
