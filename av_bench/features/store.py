"""Content-addressed feature store: what was computed once is never computed again.

Key of an entry: extractor fingerprint (a folder) and the input (media sha256 and window, or two of them for pairs).
Entries live in immutable shards named by the sha256 of their own bytes, written to a temporary name and renamed, so
any number of writers may share a store and a torn or flipped shard is noticed on reading, dropped and recomputed.
Format: safetensors; a tensor is named ``<key>/<output>``. No pickle anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import AvBenchError, UsageError
from av_bench.features.safetensors_read import arrays
from av_bench.media.content import open_regular
from av_bench.runtime.files import ABANDONED, remove_parts, write_atomically
from av_bench.runtime.notes import read_note, write_note

_HEADER_BYTES = 100 << 20  # the format allows no more
_INDEX = ".index.json"  # shard -> its keys; shards never change, so what it says stays right
_DIGITS = 32  # of a hash in a key
_FEW = 64  # shards that are looked into one by one

log = logging.getLogger(__name__)


class FeaturesLost(AvBenchError):
    """Entries that were indexed could not be read: their shard was damaged, and is gone. Compute them again."""


Features = dict[str, NDArray[Any]]


def media_key(digest: str, seconds: float) -> str:
    """Key of one medium in one window."""
    return f"{digest[:_DIGITS]}:{seconds:g}"


def text_key(text: str) -> str:
    """Key of a text."""
    return f"text:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def pair_key(video: str, audio: str) -> str:
    """Key of a pair of media keys."""
    return f"{video}+{audio}"


@dataclass
class Store:
    """Features on disk below ``root``."""

    root: Path
    _index: dict[str, dict[str, Path]] = field(default_factory=dict, repr=False)
    _seen: dict[str, set[Path]] = field(default_factory=dict, repr=False)

    def has(self, fingerprint: str, key: str) -> bool:
        """Whether an entry is indexed (its checksum is verified when it is read)."""
        return key in self._entries(fingerprint)

    def lacks(self, fingerprint: str, keys: Iterable[str]) -> bool:
        """Whether any of the entries is not indexed."""
        return not self._entries(fingerprint).keys() >= set(keys)

    def refresh(self, fingerprint: str) -> None:
        """Look again at the disk: other writers may have added shards."""
        known = self._seen.setdefault(fingerprint, set())
        entries = self._index.setdefault(fingerprint, {})
        folder = self.root / fingerprint
        if not folder.is_dir():
            return
        remove_parts(folder, older_than=ABANDONED)
        there = sorted(folder.glob("*.safetensors"))
        new = [shard for shard in there if shard not in known]
        listed = read_note(folder / _INDEX) if len(new) > _FEW else {}
        found = {shard: listed.get(shard.name) or _keys_of(shard) for shard in new}
        for shard, keys in found.items():
            entries.update(dict.fromkeys(map(sys.intern, keys), shard))
        known.update(new)
        if sum(shard.name not in listed for shard in new) > _FEW:
            names = {shard.name for shard in there}
            kept = {name: keys for name, keys in listed.items() if name in names}
            write_note(folder / _INDEX, kept | {shard.name: sorted(keys) for shard, keys in found.items()})

    def get(self, fingerprint: str, keys: Iterable[str]) -> dict[str, Features]:
        """Entries that are there and intact. Damaged shards are removed, their entries are missing."""
        entries = self._entries(fingerprint)
        by_shard: dict[Path, list[str]] = {}
        for key in keys:
            if key in entries:
                by_shard.setdefault(entries[key], []).append(key)
        found: dict[str, Features] = {}
        for shard, wanted in by_shard.items():
            content = self._read(fingerprint, shard)
            for key in wanted:
                if key in content:
                    found[key] = content[key]
                else:
                    entries.pop(key, None)
        return found

    def require(self, fingerprint: str, keys: Iterable[str]) -> dict[str, Features]:
        """All of the entries. FeaturesLost when one is not there any more."""
        wanted = list(keys)
        found = self.get(fingerprint, wanted)
        lost = [key for key in wanted if key not in found]
        if lost:
            raise FeaturesLost(f"store {self.root}: {len(lost)} features of {fingerprint} are lost; start again")
        return found

    def put(self, fingerprint: str, entries: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Write entries as one new shard."""
        if not entries:
            return
        from safetensors.numpy import save

        flat = {f"{k}/{o}": np.array(a, order="C") for k, row in entries.items() for o, a in row.items()}
        payload = save(flat)
        shard = self.root / fingerprint / f"{hashlib.sha256(payload).hexdigest()[:40]}.safetensors"
        write_atomically(shard, payload)
        self._index.setdefault(fingerprint, {}).update(dict.fromkeys(entries, shard))
        self._seen.setdefault(fingerprint, set()).add(shard)

    def size(self) -> dict[str, int]:
        """Bytes per fingerprint."""
        there = sorted(self.root.iterdir()) if self.root.is_dir() else []
        folders = [p for p in there if p.is_dir() and not p.name.startswith(".")]
        return {p.name: sum(f.stat().st_size for f in p.glob("*.safetensors")) for p in folders}

    def clean(self, fingerprint: str | None = None) -> int:
        """Remove all entries, or those of one fingerprint; returns the bytes freed."""
        freed = 0
        for name, bytes_ in self.size().items():
            if fingerprint is not None and name != fingerprint:
                continue
            for shard in (self.root / name).glob("*.safetensors"):
                shard.unlink(missing_ok=True)
            freed += bytes_
            self._index.pop(name, None)
            self._seen.pop(name, None)
        if fingerprint is not None and not freed and fingerprint not in self.size():
            raise UsageError(f"store {self.root}: no features of {fingerprint!r}; `av-bench store size` lists them")
        return freed

    def keep(self, fingerprints: Set[str], media: Set[str]) -> int:
        """Remove all but the entries of some fingerprints for some media (sha256 or identity); returns bytes freed.

        Shards stay whole while one of their entries is kept; texts of a kept fingerprint stay.
        """
        freed, wanted = 0, {digest[:_DIGITS] for digest in media}
        for name in self.size():
            if name not in fingerprints:
                freed += self.clean(name)
                continue
            for shard in (self.root / name).glob("*.safetensors"):
                if not any(_is_of(key, wanted) for key in _keys_of(shard)):
                    freed += shard.stat().st_size
                    shard.unlink(missing_ok=True)
            self._index.pop(name, None)
            self._seen.pop(name, None)
        return freed

    def bytes_of_an_entry(self, fingerprint: str) -> float | None:
        """What an entry takes on disk, by the first shard that is indexed; None when there is none."""
        shard = next(iter(self._entries(fingerprint).values()), None)
        try:
            return None if shard is None else shard.stat().st_size / max(1, len(_keys_of(shard)))
        except OSError:
            return None

    def free(self) -> int:
        """Bytes free on the disk of the store."""
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        return shutil.disk_usage(there).free

    def _entries(self, fingerprint: str) -> dict[str, Path]:
        if fingerprint not in self._index:
            self.refresh(fingerprint)
        return self._index[fingerprint]

    def _read(self, fingerprint: str, shard: Path) -> dict[str, Features]:
        content: dict[str, Features] = {}
        try:
            payload = _bytes_of(shard)
            if hashlib.sha256(payload).hexdigest()[:40] != shard.stem:
                raise ValueError("checksum differs")
            for name, array in arrays(payload):
                key, _, output = name.rpartition("/")
                content.setdefault(key, {})[output] = array
        except (OSError, ValueError) as error:
            log.warning("feature shard %s is damaged (%s); its features will be computed again", shard, error)
            with contextlib.suppress(OSError):  # a folder, or not ours to remove: it is not looked at again
                shard.unlink(missing_ok=True)
            index = self._index[fingerprint]
            for key in [k for k, s in index.items() if s == shard]:
                del index[key]
        return content


def _is_of(key: str, digests: Set[str]) -> bool:
    """Whether a key is of a text, or of a medium, or pair of media, that is among the digests."""
    return key.startswith("text:") or all(part.partition(":")[0] in digests for part in key.split("+"))


def _keys_of(shard: Path) -> set[str]:
    """Keys in a shard, read from its header only; a shard whose header cannot be read has none."""
    try:
        with os.fdopen(open_regular(shard), "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 0 < length <= min(os.fstat(handle.fileno()).st_size, _HEADER_BYTES):
                return set()
            header = json.loads(handle.read(length))
    except (OSError, ValueError, RecursionError):
        return set()
    names = header if isinstance(header, dict) else ()
    return {name.rpartition("/")[0] for name in names if name != "__metadata__"}


def _bytes_of(shard: Path) -> bytes:
    with os.fdopen(open_regular(shard), "rb") as handle:
        return handle.read()
