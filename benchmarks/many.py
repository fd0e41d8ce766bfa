"""Copies asked for in a library of many files made of few: real fingerprints, and perturbed ones that have nothing in
common with them.

A perturbed fingerprint keeps what real ones are like (how peaks crowd, how a picture moves) and loses what it was: its
coefficients are mixed by a random rotation, its peaks are moved by a random number of bins and played backwards at
a random speed, both begin somewhere else. It has the media of the recording it was made of, which do not fit it.

How a pair of files is verified does not depend on the others. So a copy's original is verified again only where its
candidates are others than among the originals alone; of the other files the sound is verified always, the picture for
the first ``whole`` queries.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from audit_runs import asked, code_digest, described, peak_mb

from av_bench.audit.content import stream
from av_bench.audit.fingerprints import Fingerprint
from av_bench.audit.library import Library
from av_bench.audit.picture import Picture
from av_bench.audit.sound import BINS, Peaks
from av_bench.features.store import Store


def turns(rng: np.random.Generator, count: int = 512) -> Any:
    """Random rotations ``(count, 16, 16)`` of a picture's coefficients."""
    return np.linalg.qr(rng.normal(size=(count, 16, 16)))[0].astype(np.float32)


def perturbed(print_: Fingerprint, rotations: Any, rng: np.random.Generator) -> Fingerprint:
    """Another recording of the same kind."""
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
class Answer:
    """What one query found: candidates of its original as among the originals alone (``same``; what is found then is
    what is found there), else whether it was found, other files matched, how many other files were candidates by
    picture; processor seconds of the index and, where all candidates were verified, of that (-1: they were not)."""

    test: str
    same: bool
    found: bool
    others: int
    wrong: list[str]
    seconds: float
    verified: float


@dataclass(frozen=True)
class Task:
    """What the processes share: the library of many, the copies with their fingerprints, numbers of the originals by
    the name before the @, and the library of the originals alone."""

    library: Library
    copies: Sequence[tuple[Path, Fingerprint]]
    numbers: Mapping[str, int]
    alone: Library
    whole: int


def candidates(library: Library, codes: Fingerprint, number: int) -> tuple[Any, Any]:
    """What decides how a file is verified: its candidate by sound, the first by picture."""
    return library.heard(codes).get(number), library.seen(codes).get(number, [])[:_FIRST]


def ask(task: Task, position: int) -> Answer:
    """One copy among all files."""
    library, (path, codes) = task.library, task.copies[position]
    source = path.stem.partition("@")[0]
    original, started = task.numbers[source], time.process_time()
    heard, seen = library.heard(codes), library.seen(codes)
    took = time.process_time() - started
    pair = heard.get(original), seen.get(original, [])
    same = (pair[0], pair[1][:_FIRST]) == candidates(task.alone, codes, original)
    found = not same and library.verified(path, codes, original, *pair) is not None
    complete = position < task.whole
    started = time.process_time()
    wrong = []
    for number in sorted((heard.keys() | (seen.keys() if complete else set())) - {original}):
        match = library.verified(path, codes, number, heard.get(number), seen.get(number, []) if complete else [])
        if match and library.files[number].path.stem != source:
            wrong.append(described(match).text())
    verified = time.process_time() - started if complete else -1.0
    return Answer(path.name, same, found, len(seen.keys() - {original}), wrong, took, verified)


_FIRST = 3  # candidates by picture that are verified
_shared: list[Task] = []


def _ask(position: int) -> Answer:
    return ask(_shared[0], position)


def measure(work: Path, sources: Sequence[Path], files: int, queries: int, seed: int, jobs: int, whole: int) -> None:
    """Print time, memory and recall among the originals alone and among ``files``."""
    rng = np.random.default_rng(seed)
    store = Store(work / "store")
    originals = list(stream(sources, store, 1, []))
    numbers = {path.stem: number for number, (path, _) in enumerate(originals)}
    made = sorted(p for p in (work / "copies").glob("*.mp4") if p.stem.partition("@")[0] in numbers)
    asked_for = [made[i] for i in rng.permutation(len(made))[:queries]]
    copies = list(stream(asked_for, store, 1, []))
    alone, library = Library(), Library()
    for path, codes in originals:
        alone.add(path, codes)
        library.add(path, codes)
    alone.build()
    grow(library, originals, files, rng)
    _shared[:] = [Task(library, copies, numbers, alone, whole)]
    log = work / "answers" / f"many-{code_digest(sources)}-{files}-{seed}.jsonl"
    known = {
        line["test"]: Answer(**line) for line in map(json.loads, log.read_text().splitlines() if log.exists() else [])
    }
    left = [i for i, (path, _) in enumerate(copies) if path.name not in known]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool, log.open("a") as out:
        for number, answer in enumerate(pool.map(_ask, left)):
            known[answer.test] = answer
            print(json.dumps(asdict(answer)), file=out, flush=True)
            if number % 20 == 19:
                print(f"    {number + 1} of {len(left)}", file=sys.stderr, flush=True)
    _shared.clear()
    before = asked(asked_for, sources, work, jobs)
    found = frozenset(m.test for m in before.matches if Path(m.train).stem == m.test.partition("@")[0])
    print(summary([known[path.name] for path, _ in copies], found))


def grow(library: Library, originals: Sequence[tuple[Path, Fingerprint]], files: int, rng: np.random.Generator) -> None:
    """Add perturbed fingerprints until the library has so many files."""
    rotations, started = turns(rng), time.process_time()
    kinds = [(path, codes) for path, codes in originals if len(codes.sound) and len(codes.picture)]
    for number in range(files - len(originals)):
        path, codes = kinds[number % len(kinds)]
        library.add(path, perturbed(codes, rotations, rng))
    added = time.process_time() - started
    library.build()
    built = time.process_time() - started - added
    print(f"{len(originals)} real and {files - len(originals):,} perturbed fingerprints: {added:.0f} s of one core to "
          f"perturb and add, {built:.0f} s to sort")  # fmt: skip
    held = sum(file.picture.flat.nbytes for file in library.files) / 2**20
    print(f"  sound: {library.sound.nbytes / 2**20:.0f} MB, picture: {library.picture.nbytes / 2**20:.0f} MB, "
          f"coefficients: {held:.0f} MB; peak so far {peak_mb():.0f} MB", flush=True)  # fmt: skip


def summary(answers: Sequence[Answer], alone: frozenset[str]) -> str:
    """Figures of all queries, and recall of each kind: among all files, of those found among the originals alone."""
    n = len(answers)
    seconds, complete = sorted(a.seconds for a in answers), sorted(a.verified for a in answers if a.verified >= 0)
    lines = [
        f"{n} copies of {len({a.test.partition('@')[0] for a in answers})} recordings: {_recall(answers, alone)}; "
        f"candidates as there: {sum(a.same for a in answers)}",
        f"  index: {_spread(seconds)}",
        f"  other files that are candidates by picture: {sum(a.others for a in answers) / n:.1f} each",
        f"  queries with wrong matches: {sum(bool(a.wrong) for a in answers)}",
        *(f"    {line}" for a in answers for line in a.wrong),
    ]
    if complete:
        lines.append(f"  all candidates of {len(complete)} queries verified: {_spread(complete)}")
    kinds: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda a: a.test.partition("@")[2]):
        kinds.setdefault(answer.test.partition("@")[2].removesuffix(".mp4"), []).append(answer)
    lines += [f"  {kind}: {len(of)} copies, {_recall(of, alone)}" for kind, of in kinds.items()]
    return "\n".join(lines)


def _recall(answers: Sequence[Answer], alone: frozenset[str]) -> str:
    found = sum(a.test in alone if a.same else a.found for a in answers)
    return f"found {found}, among the originals alone {sum(a.test in alone for a in answers)}"


def _spread(seconds: Sequence[float]) -> str:
    """Mean, median and maximum of sorted processor seconds."""
    mean = sum(seconds) / len(seconds)
    return f"{mean:.2f} s of one core each, median {seconds[len(seconds) // 2]:.2f} s, {seconds[-1]:.2f} s at most"
