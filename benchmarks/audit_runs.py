"""Files asked one by one against a library, in several processes; what is done is kept, so a run can be stopped.

Answers lie in one file for this library, this code and these settings: another version of the audit starts anew.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Found:
    """A match: names of both files, kind and change in words, (offset, start, length, confidence) of either stream."""

    test: str
    train: str
    kind: str
    change: str
    sound: tuple[float, ...] | None
    picture: tuple[float, ...] | None

    def text(self) -> str:
        """One line for a person."""
        parts = [f"{self.test} = {self.train}: {self.kind}", self.change]
        for name, a in (("sound", self.sound), ("picture", self.picture)):
            if a:
                parts.append(f"{name}: offset {a[0]:.2f} s, {a[1]:.1f} s + {a[2]:.1f} s, confidence {a[3]:.2f}")
        return "; ".join(part for part in parts if part)


@dataclass
class Answers:
    """Matches of all files asked; processor seconds of each; the peak memory (MB) of a process."""

    matches: list[Found] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0


def asked(files: Sequence[Path], originals: Sequence[Path], work: Path, jobs: int) -> Answers:
    """The verified matches of ``files`` among ``originals``; a file is not found in itself."""
    log = work / "answers" / f"{code_digest(originals)}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    known = _read(log)
    left = [path for path in files if path.name not in known]
    if left:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            shares = [left[i::jobs] for i in range(jobs)]
            list(pool.map(_share, shares, [originals] * jobs, [work / "store"] * jobs, [log] * jobs))
        known = _read(log)
    whole = Answers()
    for path in files:
        line = known[path.name]
        whole.matches += [_found(match) for match in line["matches"]]
        whole.seconds[path.name] = line["seconds"]
        whole.peak = max(whole.peak, line["peak"])
    return whole


def _share(files: Sequence[Path], originals: Sequence[Path], store: Path, log: Path) -> None:
    """Ask for these files, one line of ``log`` each."""
    from av_bench.audit.content import stream
    from av_bench.audit.library import Library
    from av_bench.features.store import Store

    library, prints, lost = Library(), Store(store), []  # type: ignore[var-annotated]
    for path, codes in stream(originals, prints, 1, lost):
        library.add(path, codes)
    library.build()
    started = time.process_time()
    for number, (path, codes) in enumerate(stream(files, prints, 1, lost)):
        matches = [asdict(described(match)) for match in library.matches(path, codes)]
        line = {"test": path.name, "matches": matches, "seconds": time.process_time() - started, "peak": peak_mb()}
        with log.open("a") as out:
            out.write(json.dumps(line) + "\n")
        if number % 20 == 19:
            print(f"    {number + 1} of {len(files)}", file=sys.stderr, flush=True)
        started = time.process_time()
    if lost:
        raise RuntimeError(f"not compared: {', '.join(f'{item.path}: {item.reason}' for item in lost)}")


def described(match: Any) -> Found:
    """A match of the library, without its paths."""
    sound, picture = ((a.offset, a.start, a.length, a.confidence) if a else None for a in (match.sound, match.picture))
    return Found(match.test.name, match.train.name, match.kind, match.change, sound, picture)


def _found(line: dict[str, Any]) -> Found:
    sound, picture = (tuple(line[name]) if line[name] else None for name in ("sound", "picture"))
    return Found(line["test"], line["train"], line["kind"], line["change"], sound, picture)


def _read(log: Path) -> dict[str, dict[str, Any]]:
    """The answers that are there, by the name of the file."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {line["test"]: line for line in map(json.loads, lines)}


def code_digest(originals: Sequence[Path]) -> str:
    """Names the library and the code of the audit."""
    import av_bench.audit as package

    found = hashlib.sha256()
    for path in sorted(Path(package.__path__[0]).glob("*.py")):
        found.update(path.read_bytes())
    for path in originals:
        found.update(f"{path.name} {path.stat().st_size}\n".encode())
    return found.hexdigest()[:16]


def peak_mb() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
