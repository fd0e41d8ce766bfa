"""Score a set of the real size on generated features: peak memory and where the time goes.

    python benchmarks/scale.py [--clips 15446]

Writes random features of the paper's shapes for every clip into a store and runs the real pipeline on them: plan,
store, statistics, metrics, intervals, per-clip values. No network runs and nothing is decoded; the clips' files hold
their names only. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from av_bench.features import extractor_set
from av_bench.features.extraction import PROBE
from av_bench.features.store import Features, Store, media_key, pair_key
from av_bench.pipeline import prepare
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.prepare import make_plan
from av_bench.pipeline.run import run
from av_bench.runtime.files import file_digest
from av_bench.runtime.progress import Reporter

SECONDS = 8.0
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "passt": {"embedding": (768,), "logits": (527,)},
    "panns": {"embedding": (2048,), "logits": (527,)},
    "vggish": {"embedding": (8, 128)},
    "imagebind-audio": {"embedding": (1024,)},
    "imagebind-video": {"embedding": (1024,)},
    "synchformer-audio": {"tokens": (1,)},  # the real ones are read 32 pairs at a time and only by the head
    "synchformer-video": {"tokens": (1,)},
}
PROBE_VALUES: dict[str, Any] = {"samples": 352_800, "rate": 44_100, "peak": 0.5, "heard": 0.5, "video_seconds": 8.0}
CHUNK = 256


def fingerprint(self: extractor_set.ExtractorSet, name: str) -> str:
    """Stands for the networks' real fingerprints, which need their weight files."""
    del self
    return f"{name}-generated"


def nothing_is_missing(options: RunOptions) -> None:
    """Replaces the preflight: no network runs, so their packages and weights are not needed."""


def write_files(folder: Path, count: int, suffix: str) -> list[Path]:
    """Files whose bytes differ from each other; they are hashed but never decoded."""
    folder.mkdir()
    paths = [folder / f"clip{i:06d}{suffix}" for i in range(count)]
    for path in paths:
        path.write_text(f"{folder.name}/{path.name}")
    return paths


def fill(store: Store, paths: list[Path], names: list[str], rng: np.random.Generator) -> list[str]:
    """Features and probes of one side; returns the keys."""
    keys = [media_key(file_digest(p), SECONDS) for p in paths]
    probe = {key: np.asarray(value) for key, value in PROBE_VALUES.items()}
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        store.put(PROBE, dict.fromkeys(part, probe))
        for name in names:
            rows: dict[str, Features] = {
                key: {o: rng.standard_normal(s, dtype=np.float32) for o, s in SHAPES[name].items()} for key in part
            }
            store.put(f"{name}-generated", rows)
    return keys


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=15_446)
    options = parser.parse_args()
    extractor_set.ExtractorSet.fingerprint = fingerprint  # type: ignore[method-assign]
    prepare.refuse_missing = nothing_is_missing
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        store = Store(root / "store")
        videos, samples = (
            write_files(root / "videos", options.clips, ".mp4"),
            write_files(root / "samples", options.clips, ".wav"),
        )
        video_keys = fill(store, videos, list(SHAPES), rng)
        audio_keys = fill(store, samples, [n for n in SHAPES if "video" not in n], rng)
        wanted = RunOptions(
            set="clips", data=root / "videos", samples=root / "samples", protocol="vggsound-8s",
            store=root / "store", out=root / "run", quiet=True,
        )  # fmt: skip
        head = make_plan_pair_fingerprint(wanted)
        for start in range(0, options.clips, CHUNK):
            pairs = zip(video_keys[start : start + CHUNK], audio_keys[start : start + CHUNK], strict=True)
            logits = rng.standard_normal((CHUNK, 2, 21), dtype=np.float32)
            store.put(head, {pair_key(v, a): {"logits": logits[i]} for i, (v, a) in enumerate(pairs)})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        walls = []
        for _ in range(2):
            started = time.perf_counter()
            result = run(wanted)
            walls.append(time.perf_counter() - started)
        size = sum(store.size().values()) / 1e9
    print(f"clips: {result.scores['counts']}; store {size:.2f} GB; peak before the run {before:.2f} GB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"files not hashed yet {walls[0]:.1f} s; everything known {walls[1]:.1f} s; peak memory {peak:.2f} GB")
    for name, entry in result.scores["metrics"].items():
        print(f"  {name:<10} n = {entry['n']}, value {entry['value']:.4g}, interval {entry.get('interval')}")


def make_plan_pair_fingerprint(options: RunOptions) -> str:
    """Where the pipeline will look for the sync head's logits."""
    from av_bench.features.extraction import Extraction

    plan = make_plan(options, Reporter(quiet=True))
    assert options.store is not None
    extraction = Extraction(plan.extractors, Store(options.store), SECONDS, 1, Reporter(quiet=True))
    return extraction.networks.pair_fingerprint("synchformer")


if __name__ == "__main__":
    main()
