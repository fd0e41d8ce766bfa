"""The same recording under another name: test media against training media by what is heard and seen.

Fingerprints stream: a training file is decoded once, leaves about 3.6 kB in the index, and is forgotten. Every
candidate of the index is verified on the media themselves (``alignment``), so what is reported has an offset, a length
and a confidence, for the sound and for the picture apart.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from av_bench.audit import report
from av_bench.audit.fingerprints import ARRAYS, Fingerprint, fingerprint
from av_bench.audit.library import Library, Match
from av_bench.contracts import MediaError, UsageError
from av_bench.features.store import Store
from av_bench.media.decode import AUDIO_SUFFIXES, VIDEO_SUFFIXES, file_digest
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter

VERSION = "audit-fingerprint-3"  # store folder; changes whenever a code could change
_BATCH = 64


@dataclass
class ContentAudit:
    """All matches, the names of all files (``clip_names``), and the files that could not be read."""

    test: Path
    trains: tuple[Path, ...]
    counts: dict[str, int] = field(default_factory=dict)
    test_names: dict[Path, str] = field(default_factory=dict)
    train_names: dict[Path, str] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def media_below(folder: Path) -> list[Path]:
    """Media files below a folder, sorted. UsageError when there are none."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    found = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES and not p.name.startswith(".")
    )
    if not found:
        raise UsageError(f"{folder}: no audio or video file below it; an audit of nothing would call everything clean")
    return found


def clip_names(folder: Path, files: Sequence[Path]) -> dict[Path, str]:
    """What the files below a folder are called: by their stem, as ids of clips are made.

    A file in a sub-folder whose stem another file has too is called by its path below ``folder`` without suffix: class
    folders number their files alike, and a leaked one must not take its clean namesakes with it.
    """
    below = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    namesakes = Counter(name.rpartition("/")[2] for name in set(below.values()))
    return {p: p.stem if p.parent == folder or namesakes[p.stem] == 1 else name for p, name in below.items()}


def _distinct(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Every folder once. UsageError when one lies in another: its files would be counted twice."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    for inner, given in found.items():
        for outer in inner.parents:
            if outer in found:
                raise UsageError(f"--train {given} lies in --train {found[outer]}; give one of them")
    return tuple(found.values())


def audit_content(
    test: Path, trains: Sequence[Path], store: Store | None = None, reporter: Reporter | None = None, workers: int = 0
) -> ContentAudit:
    """Compare every media file below ``test`` with every one below the training folders.

    ``workers`` threads decode and compare (0: one per core). A file is never compared with itself. Raises UsageError
    on an empty folder, MissingRequirement without the audit extra; unreadable files are listed in the result.
    """
    reporter = reporter or Reporter(quiet=True)
    workers = workers or os.cpu_count() or 1
    result = ContentAudit(test, _distinct(trains))
    library = Library()
    queries = media_below(test)
    result.test_names = clip_names(test, queries)
    for folder in result.trains:
        files = media_below(folder)
        result.train_names |= clip_names(folder, files)
        result.counts[str(folder)] = len(files)
        with reporter.stage(f"fingerprints of {folder}", len(files)) as stage:
            for path, codes in stream(files, store, workers, result.unreadable):
                library.add(path, codes)
                stage.advance()
    library.build()
    result.counts[str(test)] = len(queries)
    with reporter.stage(f"matching {test}", len(queries)) as stage:
        asked = stream(queries, store, workers, result.unreadable)
        for found in prefetch_map(lambda query: list(library.matches(*query)), asked, workers, 2 * workers):
            result.matches += found
            stage.advance()
    result.matches.sort(key=lambda m: (str(m.test), -m.confidence, str(m.train)))
    result.unreadable.sort()
    return result


def stream(
    files: Sequence[Path], store: Store | None, workers: int, unreadable: list[tuple[Path, str]]
) -> Iterator[tuple[Path, Fingerprint]]:
    """Fingerprints in the order of ``files``, from the store where it has them; a batch at a time in memory."""

    def one(path: Path) -> tuple[str, Fingerprint | str, bool]:
        digest = ""
        try:
            digest = file_digest(path)
            cached = store.get(VERSION, [digest]).get(digest) if store and store.has(VERSION, digest) else None
            return digest, _unpack(cached) if cached else fingerprint(path), cached is not None
        except (MediaError, OSError) as error:
            return digest, str(error), True

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            done = list(pool.map(one, batch))
            if store and (fresh := {d: _pack(f) for d, f, old in done if not old and isinstance(f, Fingerprint)}):
                store.put(VERSION, fresh)
            for path, (_, codes, _) in zip(batch, done, strict=True):
                if isinstance(codes, Fingerprint):
                    yield path, codes
                else:
                    unreadable.append((path, codes))


def _pack(codes: Fingerprint) -> dict[str, Any]:
    arrays = {name: getattr(codes, name) for name in ARRAYS}
    return arrays | {"seconds": np.asarray(codes.seconds, np.float64)}


def _unpack(arrays: dict[str, Any]) -> Fingerprint:
    return Fingerprint(
        **{name: np.asarray(arrays[name]) for name in ARRAYS},
        seconds=(float(arrays["seconds"][0]), float(arrays["seconds"][1])),
    )


# --------------------------------------------------------------------------- result file


def to_json(result: ContentAudit) -> dict[str, Any]:
    """The audit in the schema of ``av_bench.audit.report``; clips are named as ``clip_names`` says."""
    names = result.test_names
    by_train = {t: {names[m.test] for m in result.matches if m.train.is_relative_to(t)} for t in result.trains}
    found = sorted({names[m.test] for m in result.matches})
    trains = [
        {"name": str(t), "clips": result.counts[str(t)], "overlapping_clips": len(clips)}
        for t, clips in by_train.items()
    ]
    return {
        "version": report.VERSION,
        "kind": "content",
        "rule": "content",
        "test": {"name": str(result.test), "clips": result.counts[str(result.test)]},
        "train": trains,
        "overlapping": found,
        "in_every_train": sorted(set(found).intersection(*by_train.values())),
        "findings": [_finding(m, names[m.test], result.train_names[m.train]) for m in result.matches],
        "malformed": [{"file": str(path), "reason": reason} for path, reason in result.unreadable],
        "notes": [],
    }


def _finding(match: Match, test: str, train: str) -> dict[str, Any]:
    data: dict[str, Any] = {"clip": test, "kind": match.kind, "test": {"file": str(match.test)}}
    data["train"] = {"file": str(match.train), "clip": train}
    for name, found in (("audio", match.sound), ("video", match.picture)):
        if found:
            data[name] = {key: round(value, 3) for key, value in asdict(found).items()}
    return data
