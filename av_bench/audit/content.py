"""The same recording under another name: test media against training media by what is heard and seen.

Fingerprints stream: a file is decoded once, leaves about 10 kB in the store, and is forgotten. Sound candidates are
verified on the fingerprints, picture candidates on the media themselves, so what is reported has an offset, a length, a
confidence and the change that was undone, for the sound and for the picture apart. What could not be compared is part
of the result: an audit that did not compare everything says so wherever it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

from av_bench.audit.copies import Keep, Kept, Recording, copies_of, once
from av_bench.audit.fingerprints import Fingerprint, fingerprint
from av_bench.audit.library import Library, Match
from av_bench.contracts import MediaError, UsageError
from av_bench.features.store import Features, Store
from av_bench.media.listing import LeftOut, MediaFile, probe, walk
from av_bench.runtime.cores import usable_cores
from av_bench.runtime.files import file_digest
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter

VERSION = "audit-fingerprint-4"  # store folder; changes whenever a fingerprint could change
_BATCH = 64


@dataclass
class ContentAudit:
    """All matches, the names of all compared files (``clip_names``), and what was left out.

    ``kept`` is there when a set was compared with itself: which copy stays, and which it stands for.
    """

    test: Path
    trains: tuple[Path, ...]
    counts: dict[str, int] = field(default_factory=dict)
    test_names: dict[Path, str] = field(default_factory=dict)
    train_names: dict[Path, str] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    kept: Kept | None = None

    @property
    def not_compared(self) -> list[LeftOut]:
        """Files and folders that may hold a recording and were not compared: the audit is incomplete."""
        return [item for item in self.left_out if not item.harmless]


def clip_names(folder: Path, files: Sequence[Path]) -> dict[Path, str]:
    """What the files below a folder are called: by their stem, as ids of clips are made.

    A file in a sub-folder whose stem another file has too is called by its path below ``folder`` without suffix: class
    folders number their files alike, and a leaked one must not take its clean namesakes with it.
    """
    below = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    namesakes = Counter(name.rpartition("/")[2] for name in set(below.values()))
    return {p: p.stem if p.parent == folder or namesakes[p.stem] == 1 else name for p, name in below.items()}


def _distinct(test: Path, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Every training folder once; the test folder itself by the name it has as such. UsageError when one folder lies
    in another: its files would be counted twice, or found in themselves."""
    for folder in (test, *folders):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    for inner, given in found.items():
        for outer in inner.parents:
            if outer in found:
                raise UsageError(f"--train {given} is inside --train {found[outer]}; give one of them")
    own = test.resolve()
    for folder, given in found.items():
        if own in folder.parents:
            raise UsageError(f"--train {given} is inside --test {test}; audit folders that have no file in common")
        if folder in own.parents:
            raise UsageError(
                f"--test {test} is inside --train {given}: all of it is training data; give another folder, or "
                f"compare {given} with itself to find its duplicates"
            )
    return tuple(test if folder == own else given for folder, given in found.items())


def audit_content(
    test: Path,
    trains: Sequence[Path],
    store: Store | None = None,
    reporter: Reporter | None = None,
    workers: int = 0,
    keep: Keep = "first",
    lost: Sequence[LeftOut] = (),
) -> ContentAudit:
    """Compare every media file below ``test`` with every one below the training folders.

    ``workers`` threads decode and compare (0: one per core). ``test`` may be a training folder as well: then every pair
    of its files is compared once, none with itself, and of copies one is kept by the rule ``keep``. ``lost`` are files
    that end any process that reads them; they are not compared. Raises UsageError on a folder without media.
    """
    reporter = reporter or Reporter(quiet=True)
    workers = workers or usable_cores()
    result = ContentAudit(test, _distinct(test, trains))
    result.left_out += lost
    skipped = {item.path for item in lost}
    library = Library()
    known: dict[Path, Recording] = {}
    for folder in result.trains:
        files = [path for path in _listed(folder, result.left_out) if path not in skipped]
        with reporter.stage(f"fingerprints of {folder}", len(files)) as stage:
            for path, codes in stream(files, store, workers, result.left_out, stage.advance):
                library.add(path, codes)
                known[path] = Recording(max(codes.seconds), codes.pixels)
                result.train_names[path] = ""
        result.train_names |= _named(folder, [p for p in result.train_names if p.is_relative_to(folder)], result)
    library.build()
    queries = [p for p in result.train_names if p.is_relative_to(test)] if test in result.trains else None
    found = _listed(test, result.left_out) if queries is None else queries
    files = [path for path in found if path not in skipped]
    with reporter.stage(f"matching {test}", len(files)) as stage:
        asked = stream(files, store, workers, result.left_out, lambda: None)
        for path, matches in prefetch_map(lambda q: (q[0], list(library.matches(*q))), asked, workers, 2 * workers):
            result.test_names[path] = ""
            result.matches += matches
            stage.advance()
    result.test_names = _named(test, list(result.test_names), result)
    if queries is not None:
        result.kept = copies_of(result.matches, {p: known[p] for p in queries}, keep)
        result.matches = once(result.matches, set(queries), result.kept)
    result.matches.sort(key=lambda m: (str(m.test), -m.confidence, str(m.train)))
    result.left_out.sort(key=lambda item: item.path)
    return result


def _listed(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """All files below a folder, hidden ones too; what cannot be a file goes to ``left_out``."""
    files, others = walk(folder)
    left_out += others
    return files


def _named(folder: Path, files: Sequence[Path], result: ContentAudit) -> dict[Path, str]:
    """Names of the compared files of a folder, and their count. UsageError when there are none."""
    if not files:
        lost = [item for item in result.not_compared if item.path.is_relative_to(folder)]
        why = f"; {len(lost)} could not be read, e.g. {lost[0].path}: {lost[0].reason}" if lost else ""
        raise UsageError(
            f"{folder}: no audio or video file below it{why}; an audit of nothing would call everything clean"
        )
    result.counts[str(folder)] = len(files)
    return clip_names(folder, files)


def stream(
    files: Sequence[Path],
    store: Store | None,
    workers: int,
    left_out: list[LeftOut],
    advance: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Path, Fingerprint]]:
    """Fingerprints in the order of ``files``, from the store where it has them; a batch at a time in memory.

    What is not a recording, or cannot be read, goes to ``left_out``. ``advance`` is called for each file.
    """

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            keys = list(pool.map(_digest, batch))
            known = store.get(VERSION, {key for key in keys if isinstance(key, str)}) if store else {}
            done = list(pool.map(_fingerprint_of, batch, keys, repeat(known)))
            if store:
                new = [(k, f) for k, f in zip(keys, done, strict=True) if isinstance(k, str) and k not in known]
                store.put(VERSION, {key: f.pack() for key, f in new if isinstance(f, Fingerprint)})
            for path, codes in zip(batch, done, strict=True):
                advance()
                if isinstance(codes, Fingerprint):
                    yield path, codes
                else:
                    left_out.append(codes)


def _digest(path: Path) -> str | LeftOut:
    """What a file's fingerprint is stored under; empty for an empty file."""
    try:
        return file_digest(path) if path.stat().st_size else ""
    except OSError as error:
        return LeftOut(path, f"cannot be read: {error.strerror}", False)


def _fingerprint_of(path: Path, key: str | LeftOut, known: Mapping[str, Features]) -> Fingerprint | LeftOut:
    """The fingerprint of a file, one of ``known`` if it is there; or why there is none."""
    if isinstance(key, LeftOut):
        return key
    if key in known:
        return Fingerprint.unpack(known[key])
    try:
        found = probe(path)
        return fingerprint(path) if isinstance(found, MediaFile) else found
    except MediaError as error:
        return LeftOut(path, f"{error.reason.value}: {error.detail}", False)
    except OSError as error:
        return LeftOut(path, f"cannot be read: {error.strerror}", False)
