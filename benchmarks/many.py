"""A library of many files made of few: real fingerprints, and perturbed ones that have nothing in common with them.

A perturbed fingerprint keeps what real ones are like (how peaks crowd, how a picture moves) and loses what it was: its
coefficients are mixed by a random rotation, its peaks are moved by a random number of bins and played backwards at
a random speed, both begin somewhere else.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np


def turns(rng: np.random.Generator, count: int = 512) -> Any:
    """Random rotations ``(count, 16, 16)`` of a picture's coefficients."""
    return np.linalg.qr(rng.normal(size=(count, 16, 16)))[0].astype(np.float32)


def perturbed(print_: Any, rotations: Any, rng: np.random.Generator) -> Any:
    """Another recording of the same kind."""
    from av_bench.audit.picture import Picture
    from av_bench.audit.sound import BINS, Peaks

    times = print_.sound.times.astype(np.float64) * rng.uniform(0.6, 1.7)
    bins = (print_.sound.bins.astype(int) * rng.choice([-1, 1]) + rng.integers(1, BINS)) % BINS
    if len(times):
        times = (rng.uniform(0, times[-1] + 1) - times) % (times[-1] + 1)
        order = np.argsort(times, kind="stable")  # each peak keeps its bin: what was first is last
        times, bins = times[order], bins[order]
    rotation = rotations[int(rng.integers(len(rotations)))]
    flat = print_.picture.flat[:2].astype(np.float32) @ rotation  # files with windows are rare
    flat = np.roll(flat, int(rng.integers(0, max(1, flat.shape[1]))), axis=1) * rng.choice([-1, 1])
    picture = Picture(np.clip(np.round(flat), -32767, 32767).astype(np.int16), print_.picture.where[:, :2])
    return replace(print_, sound=Peaks(times.astype(np.uint32), bins.astype(np.uint8)), picture=picture)


@dataclass
class Asked:
    """What queries found: of their originals, and of others; processor seconds of all and of the slowest."""

    queries: int = 0
    sound: int = 0  # originals matched by their sound, which is verified on the fingerprints
    picture: int = 0  # originals among the candidates by picture
    either: int = 0
    wrong: int = 0  # other files matched by their sound
    others: int = 0  # other candidates by picture
    seconds: float = 0.0
    slowest: float = 0.0
    missed: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        n = self.queries
        missed = ", ".join(f"{kind} {count}" for kind, count in sorted(self.missed.items()) if count)
        return (
            f"  {n} copies asked: {self.seconds / n:.2f} s of one core each, {self.slowest:.2f} s at most\n"
            f"  original matched by sound {self.sound}, a candidate by picture {self.picture}, either {self.either}; "
            f"wrong matches by sound {self.wrong}; other picture candidates {self.others / n:.1f} each\n"
            f"  originals missed: {missed or 'none'}"
        )


def _ask(library: Any, copies: Sequence[tuple[Path, Any]], numbers: Mapping[str, int]) -> Asked:
    done = Asked()
    for path, codes in copies:
        source, _, kind = path.stem.partition("@")
        original, started = numbers[source], time.process_time()
        heard, seen = library.heard(codes), library.seen(codes)
        clear = {number for number, candidate in heard.items() if library.is_heard(codes, number, candidate)}
        took = time.process_time() - started
        done.queries, done.seconds, done.slowest = done.queries + 1, done.seconds + took, max(done.slowest, took)
        done.sound += original in clear
        done.picture += original in seen
        done.either += original in clear or original in seen
        done.missed[kind] += original not in clear and original not in seen
        done.wrong += len(clear - {original})
        done.others += len(seen.keys() - {original})
    return done


def ask(library: Any, copies: Sequence[tuple[Path, Any]], numbers: Mapping[str, int], jobs: int) -> Asked:
    """Ask for every copy in ``jobs`` processes that share one library, which is built; ``numbers`` are those of the
    originals in it, by the name before the @."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _share, (library, copies, numbers)) as pool:
        parts = list(pool.map(_part, range(0, len(copies), _PART)))
    whole = Asked()
    for done in parts:
        for name, value in vars(done).items():
            setattr(whole, name, max(whole.slowest, value) if name == "slowest" else getattr(whole, name) + value)
    return whole


_PART = 20  # copies that a process asks for before it takes the next
_shared: list[tuple[Any, Sequence[tuple[Path, Any]], Mapping[str, int]]] = []


def _share(*everything: Any) -> None:
    _shared[:] = [everything]


def _part(start: int) -> Asked:
    library, copies, numbers = _shared[0]
    done = _ask(library, copies[start : start + _PART], numbers)
    print(f"    {start + done.queries} of {len(copies)}", file=sys.stderr, flush=True)
    return done


def measure(work: Path, sources: Sequence[Path], files: int, queries: int, seed: int, jobs: int) -> None:
    """Print time, memory and recall of candidates, among the originals alone and among ``files``."""
    from av_bench.audit.content import stream
    from av_bench.audit.library import Library
    from av_bench.features.store import Store

    rng = np.random.default_rng(seed)
    store = Store(work / "store")
    originals = list(stream(sources, store, 1, []))
    numbers = {path.stem: number for number, (path, _) in enumerate(originals)}
    made = sorted(p for p in (work / "copies").glob("*.mp4") if p.stem.partition("@")[0] in numbers)
    copies = list(stream([made[i] for i in sorted(rng.permutation(len(made))[:queries])], store, 1, []))
    library = Library()
    for path, codes in originals:
        library.add(path, codes)
    library.build()
    print(f"{len(originals)} real fingerprints\n{ask(library, copies, numbers, jobs).text()}", flush=True)
    rotations, started = turns(rng), time.process_time()
    kinds = [codes for _, codes in originals if len(codes.sound) and len(codes.picture)]
    for number in range(files - len(originals)):
        library.add(Path(f"perturbed{number}"), perturbed(kinds[number % len(kinds)], rotations, rng))
    added = time.process_time() - started
    library.build()
    built = time.process_time() - started - added
    made_of = f"{len(originals)} real and {files - len(originals):,} perturbed fingerprints"
    print(f"{made_of}: {added:.0f} s of one core to perturb and add, {built:.0f} s to sort", flush=True)
    for name, index in (("sound", library.sound), ("picture", library.picture)):
        print(f"  {name}: {index.nbytes / 2**20:.0f} MB, {index.nbytes / files:.0f} bytes a file", flush=True)
    print(ask(library, copies, numbers, jobs).text())
