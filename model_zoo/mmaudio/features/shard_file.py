"""One feature shard on disk: how it is written, named, checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from av_bench.contracts import UsageError
from av_bench.runtime.files import write_text

FORMAT, VERSION = "mmaudio-features", 1
INDEX = "index.json"
WRITER = ".writer.lock"  # in folders that a ``ShardWriter`` fills
ARRAYS = ("mean", "std", "clip", "sync", "text")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Sample:
    """One training sample. Without ``clip`` and ``sync`` it has no video, without ``text`` no text.

    ``mean`` and ``std`` are (N, C), ``clip`` (Lc, Dc), ``sync`` (Ls, Ds), ``text_features`` (Lt, Dt); the last is
    needed only the first time a text is met. ``crop`` numbers the crops of one recording.
    """

    id: str
    mean: torch.Tensor
    std: torch.Tensor
    clip: torch.Tensor | None = None
    sync: torch.Tensor | None = None
    text: str | None = None
    text_features: torch.Tensor | None = None
    crop: int = 0


def digest_of(index: dict[str, Any]) -> str:
    """sha256 of an index without its own ``digest``."""
    body = {key: value for key, value in index.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def shard_folders(root: Path) -> list[Path]:
    """Complete shards below ``root``, by name."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []


class _Rows:
    """One array of a shard, appended row by row; knows its checksum when done."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        self.path, self.dtype = path, dtype
        self.shape: tuple[int, ...] | None = None
        self.count = 0
        self._hash = hashlib.sha256()
        self._handle: IO[bytes] | None = None

    def check(self, row: torch.Tensor, owner: str) -> torch.Tensor:
        """The row as it will be stored. UsageError: another shape than the rows before, or not finite."""
        row, name = torch.as_tensor(row).detach().to("cpu", self.dtype).contiguous(), self.path.stem
        if tuple(row.shape) != (self.shape or tuple(row.shape)):
            found, expected = tuple(row.shape), self.shape
            raise UsageError(f"{owner}: {name} has shape {found}, this folder holds {expected}; one folder per length")
        if not bool(torch.isfinite(row).all()):
            raise UsageError(f"{owner}: {name} holds NaN or infinite values; extract it again or leave it out")
        return row

    def write(self, row: torch.Tensor) -> None:
        """Append a checked row."""
        self.shape = tuple(row.shape)
        if self._handle is None:
            self._handle = self.path.open("wb")
        payload = row.view(torch.uint8).numpy().tobytes()
        self._handle.write(payload)
        self._hash.update(payload)
        self.count += 1

    def close(self) -> str | None:
        """Flush to disk; the sha256 of the file, None when there is no row."""
        if self._handle is None:
            return None
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        self._handle = None
        return self._hash.hexdigest()

    def drop(self) -> None:
        """Close without caring for the content."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # a full disk refuses what is buffered, and was reported already
                self._handle.close()
            self._handle = None


class ShardFile:
    """One shard while it is written. ``close`` makes it visible, ``abandon`` removes it."""

    def __init__(
        self,
        root: Path,
        name: str,
        dtype: str = "bf16",
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        key: str | None = None,
    ) -> None:
        """``shapes``: rows that other shards have; ``key``: names the extraction that the shard belongs to."""
        if dtype not in DTYPES:
            raise UsageError(f"unknown storage type {dtype!r}; choose one of {', '.join(DTYPES)}")
        self.path, self.dtype, self.key = root / name, dtype, key
        self.part = root / f".{name}.part"
        shutil.rmtree(self.part, ignore_errors=True)  # left by a killed writer
        self.part.mkdir(parents=True)
        self._arrays = {name: _Rows(self.part / f"{name}.bin", DTYPES[dtype]) for name in ARRAYS}
        for array, shape in (shapes or {}).items():
            self._arrays[array].shape = shape
        self._labels: dict[str, int] = {}
        self._index: dict[str, list[Any]] = {k: [] for k in ("ids", "crops", "label", "video", "texts", "excluded")}
        self._sums: list[np.ndarray[Any, Any]] = []

    def __len__(self) -> int:
        return len(self._index["ids"])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Row shape of every array that has rows."""
        return {name: rows.shape for name, rows in self._arrays.items() if rows.shape is not None}

    def add(self, sample: Sample) -> None:
        """Append a sample (its text features are added by ``add_text``)."""
        if (sample.clip is None) != (sample.sync is None):
            raise UsageError(f"{sample.id}: clip and sync features come together or not at all")
        if bool((torch.as_tensor(sample.std) < 0).any()):
            raise UsageError(f"{sample.id}: std holds negative values; it must be the standard deviation")
        given = {"mean": sample.mean, "std": sample.std, "clip": sample.clip, "sync": sample.sync}
        rows = {n: self._arrays[n].check(row, sample.id) for n, row in given.items() if row is not None}
        for name, row in rows.items():  # only now: a refused sample must leave no row behind
            self._arrays[name].write(row)
        stored = rows["mean"].double().numpy()
        self._sums.append(np.stack([stored.sum(axis=0), (stored**2).sum(axis=0)]))
        self._index["ids"].append(sample.id)
        self._index["crops"].append(sample.crop)
        self._index["video"].append(sample.clip is not None)
        label = None if sample.text is None else self._labels.setdefault(sample.text, len(self._labels))
        self._index["label"].append(label)

    def add_text(self, text: str, features: torch.Tensor) -> None:
        """Append the features (Lt, Dt) of a text."""
        self._arrays["text"].write(self._arrays["text"].check(features, f"text {text!r}"))
        self._index["texts"].append(text)

    def exclude(self, key: str, reason: str, detail: str) -> None:
        """Note a sample that cannot be used, with the reason."""
        self._index["excluded"].append({"id": key, "reason": reason, "detail": detail})

    def close(self) -> Path:
        """Finish the files, write the index, rename. Returns the shard's folder."""
        sums = np.sum(self._sums, axis=0) if self._sums else np.zeros((2, 0))
        hashes = {name: rows.close() for name, rows in self._arrays.items()}
        index: dict[str, Any] = {"format": FORMAT, "version": VERSION, "dtype": self.dtype, **self._index}
        index["labels"] = list(self._labels)
        if self.key is not None:
            index["key"] = self.key
        index["arrays"] = {
            name: {"rows": rows.count, "shape": list(rows.shape or ()), "sha256": hashes[name]}
            for name, rows in self._arrays.items()
            if rows.count
        }
        index["latent_sum"], index["latent_square_sum"] = sums.tolist()
        index["digest"] = digest_of(index)
        write_text(self.part / INDEX, json.dumps(index, allow_nan=False))
        self.part.rename(self.path)
        return self.path

    def abandon(self) -> None:
        """Remove what was written so far."""
        for rows in self._arrays.values():
            rows.drop()
        shutil.rmtree(self.part, ignore_errors=True)


def read_index(folder: Path) -> dict[str, Any]:
    """The index of one shard, checked. UsageError names the shard that is damaged, or the folder that is none."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except FileNotFoundError:
        if not any(folder.glob("*.bin")):
            raise UsageError(_no_shard(folder)) from None
        raise UsageError(f"shard {folder}: its index is missing; {_FIX}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"shard {folder}: its index is damaged ({error}); {_FIX}") from error
    if not isinstance(index, dict):
        raise UsageError(f"shard {folder}: its index is damaged (holds a {type(index).__name__}); {_FIX}")
    if index.get("format") != FORMAT or index.get("version") != VERSION:
        found = f"{index.get('format')!r} version {index.get('version')!r}"
        raise UsageError(f"shard {folder}: holds {found}, expected {FORMAT} version {VERSION}; extract it again")
    if index.get("digest") != digest_of(index):
        raise UsageError(f"shard {folder}: its index is damaged (checksum differs); {_FIX}")
    return index


def _no_shard(folder: Path) -> str:
    """What is wrong with a sub-folder that holds no shard: most often the path is one level too high."""
    root = folder.parent
    nested = [d.name for d in shard_folders(root) if any(d.glob(f"*/{INDEX}"))]
    message = f"{folder} is not a feature shard (it has no {INDEX}); is {root} the right path?"
    if nested:
        return f"{message} It holds what looks like feature folders: {', '.join(nested[:5])}"
    return f"{message} A feature folder holds shards only"


_FIX = "remove this folder and run the extraction again, it makes only what is missing"
