"""A library of many files made of few: real fingerprints, and perturbed ones that have nothing in common with them.

A perturbed fingerprint keeps what real ones are like (how peaks crowd, how a picture moves) and loses what it was: its
coefficients are mixed by a random rotation, its peaks are moved by a random number of bins and played backwards at
a random speed, both begin somewhere else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np


def perturbed(print_: Any, rng: np.random.Generator) -> Any:
    """Another recording of the same kind."""
    from av_bench.audit.picture import Picture
    from av_bench.audit.sound import BINS, Peaks

    times = print_.sound.times.astype(np.float64) * rng.uniform(0.6, 1.7)
    bins = (print_.sound.bins.astype(int) * rng.choice([-1, 1]) + rng.integers(1, BINS)) % BINS
    if len(times):
        times = (rng.uniform(0, times[-1] + 1) - times) % (times[-1] + 1)
        order = np.argsort(times, kind="stable")  # each peak keeps its bin: what was first is last
        times, bins = times[order], bins[order]
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    flat = print_.picture.flat[:2].astype(np.float64) @ rotation  # files with windows are rare
    flat = np.roll(flat, int(rng.integers(0, max(1, flat.shape[1]))), axis=1) * rng.choice([-1, 1])
    picture = Picture(np.clip(np.round(flat), -32767, 32767).astype(np.int16), print_.picture.where[:, :2])
    return replace(print_, sound=Peaks(times.astype(np.uint32), bins.astype(np.uint8)), picture=picture)


def measure(work: Path, sources: Sequence[Path], files: int, queries: int, seed: int) -> None:
    """Print time, memory and recall of candidates."""
    from av_bench.audit.content import stream
    from av_bench.audit.library import Library
    from av_bench.features.store import Store

    rng = np.random.default_rng(seed)
    store = Store(work / "store")
    originals = list(stream(sources, store, 1, []))
    copies = list(stream(sorted((work / "copies").glob("*.mp4")), store, 1, []))
    library, started = Library(), time.perf_counter()
    for path, codes in originals:
        library.add(path, codes)
    kinds = [codes for _, codes in originals if len(codes.sound) and len(codes.picture)]
    for number in range(files - len(originals)):
        library.add(Path(f"perturbed{number}"), perturbed(kinds[number % len(kinds)], rng))
    added = time.perf_counter() - started
    library.build()
    built = time.perf_counter() - started - added
    made = f"{len(originals)} real and {files - len(originals):,} perturbed fingerprints"
    print(f"{made}: {added:.0f} s to add, {built:.0f} s to sort", flush=True)
    for name, index in (("sound", library.sound), ("picture", library.picture)):
        print(f"  {name}: {index.nbytes / 2**20:.0f} MB, {index.nbytes / files:.0f} bytes a file", flush=True)
    chosen = [copies[i] for i in rng.permutation(len(copies))[:queries]]
    numbers = {path.stem: number for number, (path, _) in enumerate(originals)}
    seconds, found = 0.0, Counter[str]()
    for path, codes in chosen:
        original = numbers[path.stem.partition("@")[0]]
        started = time.perf_counter()
        heard, seen = library.heard(codes), library.seen(codes)
        clear = {number for number, candidate in heard.items() if library.is_heard(codes, number, candidate)}
        seconds += time.perf_counter() - started
        found["sound"] += original in clear
        found["picture"] += original in seen
        found["either"] += original in clear or original in seen
        found["wrong"] += len(clear - {original})
        found["others"] += len(seen.keys() - {original})
    n = len(chosen)
    print(f"{n} copies of real clips asked, one thread: {1000 * seconds / n:.0f} ms each")
    print(
        f"  original matched by sound {found['sound']}, a candidate by picture {found['picture']}, either "
        f"{found['either']}; wrong matches by sound {found['wrong']}; other picture candidates "
        f"{found['others'] / n:.1f} each"
    )
