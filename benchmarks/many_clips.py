"""200,000 clips through everything around the networks: time and peak memory of each command, in a process of its own.

    python benchmarks/many_clips.py [--clips 200000] [--work FOLDER] [--profile STAGE]

Nothing is decoded and no network runs: every clip has a tiny file of its own for the video and for the sample, and the
store holds generated features of protocol ``nano`` for them, in shards of 16 clips as a real run writes them. Two runs
are prepared as if they had been killed after the last sample was generated. Measured are: the first start (plan,
samples found, features found, scores), a second start that finds everything done, table, compare and gate, and the
samples of the second run as a folder of one's own: two shards of it, and their merge. About 0.6 GB and 700,000 inodes
for each 100,000 clips are written below ``--work`` and removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import hashlib
import io
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import av_bench
from av_bench import registry
from av_bench.contracts import Generated, Generator
from av_bench.features.extraction import BATCH, PROBE, Extraction
from av_bench.features.store import Features, Store, media_key, pair_key
from av_bench.pipeline import shard
from av_bench.pipeline.merge import merge
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.prepare import make_plan
from av_bench.pipeline.run import run
from av_bench.results.record import RunFolder
from av_bench.runtime.progress import Reporter

SECONDS = 8.0
METRICS = ("FD-nano", "KL-nano", "IS-nano", "Bind-nano", "DeSync-nano")
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "nano-tagger": {"embedding": (64,), "logits": (24,)},
    "nano-bind-audio": {"embedding": (64,)},
    "nano-bind-video": {"embedding": (64,)},
    "nano-sync-audio": {"tokens": (1,)},  # read by the head only, and its logits are there
    "nano-sync-video": {"tokens": (1,)},
}
PROBE_VALUES = {"samples": 128_000, "rate": 16_000, "peak": 0.5, "heard": 0.5, "video_seconds": 8.0}
RUNS = ("ours", "theirs")
STAGES = ("start", "again", "other", "table", "compare", "gate", "shard 0/2", "shard 1/2", "merge")


class Nothing(Generator):
    """Stands for a model whose samples are all there."""

    sample_rate = 16_000

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(self, clips: Any, seed: int, samples: int = 1) -> Iterator[Generated]:
        """Never called: the samples are there."""
        del seed, samples
        raise AssertionError(f"{len(clips)} clips are missing")


def options(work: Path, name: str) -> RunOptions:
    """The request of one of the runs."""
    return RunOptions(
        set="clips", model=name, label=name, data=work / "videos", protocol="nano", store=work / "store",
        out=work / "runs" / name, metrics=METRICS, quiet=True, videos=False,
    )  # fmt: skip


def prepare(work: Path, count: int) -> None:
    """Files, features and the ledgers of runs that were killed after generation."""
    (work / "videos").mkdir(parents=True)
    names = [f"clip{i:06d}" for i in range(count)]
    for name in names:
        (work / "videos" / f"{name}.mp4").write_text(name)
    store, rng = Store(work / "store"), np.random.default_rng(0)
    videos = [media_key(hashlib.sha256(name.encode()).hexdigest(), SECONDS) for name in names]
    put(store, videos, list(SHAPES), rng)
    for number, run_name in enumerate(RUNS):
        keys = [media_key(digest, SECONDS) for digest in write_samples(work / "runs" / run_name, names, number)]
        put(store, keys, [name for name in SHAPES if "video" not in name], rng)
        head = pair_fingerprint(work, run_name)
        for start in range(0, count, BATCH):
            pairs = zip(videos[start : start + BATCH], keys[start : start + BATCH], strict=True)
            logits = rng.standard_normal((BATCH, 2, 21), dtype=np.float32)
            store.put(head, {pair_key(v, a): {"logits": logits[i]} for i, (v, a) in enumerate(pairs)})


def write_samples(folder: Path, names: list[str], number: int) -> list[str]:
    """A short FLAC file per clip and the ledger lines of their generation; returns their sha256."""
    (folder / "audio").mkdir(parents=True)
    record, digests = RunFolder(folder), []
    for i, name in enumerate(names):
        sink = io.BytesIO()
        wave = np.array([i, number, *range(30)], dtype=np.int32) << 8
        soundfile.write(sink, wave, 16_000, format="FLAC", subtype="PCM_24")
        (folder / "audio" / f"{name}.flac").write_bytes(sink.getvalue())
        digests.append(hashlib.sha256(sink.getvalue()).hexdigest())
        record.log(name, "generate", k=0, seconds=0.1, file=f"{name}.flac", sha256=digests[-1])
    record.close()
    return digests


def put(store: Store, keys: list[str], names: list[str], rng: np.random.Generator) -> None:
    """Features and probes of one side, in shards as extraction writes them. Files are not flushed one by one."""
    probe = {key: np.asarray(value) for key, value in PROBE_VALUES.items()}
    fingerprints = {n: registry.load("extractors", n) for n in names}
    prints = {n: c.fingerprint_for(c.weights_hash_of(None), "cpu", "strict") for n, c in fingerprints.items()}
    with without_fsync():
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            store.put(PROBE, dict.fromkeys(part, probe))
            for name in names:
                rows: dict[str, Features] = {
                    key: {o: rng.standard_normal(s, dtype=np.float32) for o, s in SHAPES[name].items()} for key in part
                }
                store.put(prints[name], rows)


@contextlib.contextmanager
def without_fsync() -> Iterator[None]:
    """Inside, nothing waits for the disk: what is prepared here need not survive a crash."""
    import os

    kept = os.fsync
    os.fsync = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = kept


def pair_fingerprint(work: Path, name: str) -> str:
    """Where the pipeline will look for the sync head's logits."""
    plan = make_plan(options(work, name), Reporter(quiet=True), Nothing(name))
    extraction = Extraction(plan.extractors, Store(work / "store"), SECONDS, 1, Reporter(quiet=True))
    return extraction.networks.pair_fingerprint("nano-sync")


def work_of(stage: str, work: Path) -> None:
    """One stage."""
    first, second = (work / "runs" / name for name in RUNS)
    if stage in ("start", "again"):
        result = run(options(work, RUNS[0]), Nothing(RUNS[0]))
        assert result.exit_code == 0, result.scores
    elif stage == "table":
        assert av_bench.table([first, second])
    elif stage == "compare":
        assert av_bench.compare(first, second)
    elif stage == "other":
        run(options(work, RUNS[1]), Nothing(RUNS[1]))
    elif stage == "gate":
        av_bench.gate(first, second)
    elif stage == "merge":
        assert merge(work / "runs" / "cut", quiet=True).exit_code == 0
    else:
        cut = replace(options(work, "cut"), model=None, samples=second / "audio", shard=stage.partition(" ")[2])
        shard.run(cut)


def measured(stage: str, work: Path, profile: bool) -> dict[str, Any]:
    """Wall and processor seconds of one stage, and the peak memory of the whole process."""
    started, used = time.perf_counter(), time.process_time()
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    work_of(stage, work)
    profiler.disable()
    wall, processor = time.perf_counter() - started, time.process_time() - used
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found: dict[str, Any] = {"wall": wall, "processor": processor, "peak": peak}
    if stage in ("start", "again"):
        found["parts"] = json.loads((work / "runs" / RUNS[0] / "run.json").read_text())["seconds"]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--work", type=Path, help="where to write; removed at the end")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--profile", default="", help="print the profile of this stage")
    given = parser.parse_args()
    if given.stage:
        print(json.dumps(measured(given.stage, given.work, given.profile == given.stage)))
        return
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        work = Path(folder)
        started = time.perf_counter()
        prepare(work, given.clips)
        print(f"{given.clips:,} clips, prepared in {time.perf_counter() - started:.0f} s", flush=True)
        for stage in STAGES:
            words = [sys.executable, __file__, "--stage", stage, "--work", str(work), "--profile", given.profile]
            found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
            row = f"{found['wall']:7.1f} s wall {found['processor']:7.1f} s processor {found['peak']:6.2f} GB"
            parts = ", ".join(f"{name} {value:.1f}" for name, value in found.get("parts", {}).items())
            print(f"{stage:<9} {row}  {parts}", flush=True)


if __name__ == "__main__":
    main()
