"""Reading feature shards: memory-mapped, checked on opening, a batch gathered in one go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import UsageError
from model_zoo.mmaudio.features.crop_plan import check_complete
from model_zoo.mmaudio.features.shard_file import DTYPES, read_index, shard_folders

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_ITEM_BYTES = {torch.bfloat16: 2, torch.float32: 4}


T = TypeVar("T")


@dataclass
class Rows:
    """Stored features of a batch: mean and std (B, N, C), clip (B, Lc, Dc), sync (B, Ls, Ds), text (B, Lt, Dt).

    Rows without a modality hold zeros there and False in ``video`` or ``has_text`` (B,).
    """

    mean: torch.Tensor
    std: torch.Tensor
    clip: torch.Tensor
    sync: torch.Tensor
    text: torch.Tensor
    video: torch.Tensor
    has_text: torch.Tensor

    def to(self, device: torch.device) -> Rows:
        """On another device; from pinned memory the copy does not wait."""
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})

    def pin(self) -> Rows:
        """In page-locked memory."""
        return replace(self, **{name: value.pin_memory() for name, value in vars(self).items()})


class FeatureSet:
    """All shards of one folder as one indexable set.

    ``ids``, ``crops`` and ``labels`` have one entry per sample; ``video`` and ``text_row`` (-1: no text) are arrays.
    ``verify`` reads every file once and compares checksums; ``part`` = (k, n) checks every n-th shard only, so that
    n processes share the work. UsageError also when an extraction into the folder is not complete.
    """

    def __init__(self, root: Path | str, verify: bool = True, part: tuple[int, int] = (0, 1)) -> None:
        self.root = Path(root)
        check_complete(self.root)
        folders = shard_folders(self.root)
        if not folders:
            raise UsageError(f"{self.root} holds no feature shards; extract features into it first")
        self._indexes = [(folder, read_index(folder)) for folder in folders]
        if verify:
            with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter lock
                list(pool.map(lambda item: _verify(*item), self._indexes[part[0] :: part[1]]))
        self.dtype = self._same("dtype", [(f, i["dtype"]) for f, i in self._indexes])
        self.shapes = self._all_shapes()
        self._files = {name: self._map(name) for name in self.shapes}
        self.ids: list[str] = [key for _, index in self._indexes for key in index["ids"]]
        self.crops: list[int] = [crop for _, index in self._indexes for crop in index["crops"]]
        self.labels = [
            index["labels"][k] if k is not None else None for _, index in self._indexes for k in index["label"]
        ]
        self.video: Bools = np.array([flag for _, index in self._indexes for flag in index["video"]], dtype=np.bool_)
        self.excluded: list[dict[str, str]] = [entry for _, index in self._indexes for entry in index["excluded"]]
        if not self.ids:
            raise UsageError(f"{self.root}: no shard holds a sample; {len(self.excluded)} were excluded at extraction")
        counts = np.array([len(index["ids"]) for _, index in self._indexes])
        shards = np.repeat(np.arange(len(counts)), counts)
        self._where = np.stack([shards, np.arange(len(shards)) - np.repeat(np.cumsum(counts) - counts, counts)], axis=1)
        self._video_where = self._rank_within_shard(shards)
        self._text_numbers, self._text_where = self._texts()
        self.text_row = self._text_rows()

    def __len__(self) -> int:
        return len(self.ids)

    def latent_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and unbiased standard deviation (C,) of the latent means over all samples and frames.

        From sums stored at extraction, in float64: no pass over the data.
        """
        filled = [index for _, index in self._indexes if index["ids"]]
        total = np.sum([index["latent_sum"] for index in filled], axis=0)
        squares = np.sum([index["latent_square_sum"] for index in filled], axis=0)
        n = len(self) * self.shapes["mean"][0]
        mean = total / n
        variance = (squares - n * mean**2) / (n - 1)
        if not bool((variance > 0).all()):
            channel = int(np.argmin(variance))
            raise UsageError(f"{self.root}: latent channel {channel} never varies; it cannot be normalised")
        return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float()

    def text_features(self, text: str) -> torch.Tensor | None:
        """Stored features (Lt, Dt) of a text, None when it is not there."""
        if text not in self._text_numbers:
            return None
        shard, row = self._text_where[self._text_numbers[text]]
        return self._files["text"][int(shard)][int(row)].clone()

    def read(self, rows: Ints, into: Rows) -> None:
        """Fill ``into`` (of ``len(rows)`` samples) with these samples; sorted ``rows`` read fastest."""
        where = self._where[rows]
        for name in ("mean", "std"):
            self._gather(name, where, np.arange(len(rows)), vars(into)[name])
        video = self.video[rows]
        for name in ("clip", "sync"):
            target = vars(into)[name]
            if not video.all():
                target[torch.from_numpy(~video)] = 0
            if video.any():
                self._gather(name, self._video_where[rows[video]], np.flatnonzero(video), target)
        text = self.text_row[rows]
        has_text = text >= 0
        if not has_text.all():
            into.text[torch.from_numpy(~has_text)] = 0
        if has_text.any():
            self._gather("text", self._text_where[text[has_text]], np.flatnonzero(has_text), into.text)
        into.video.copy_(torch.from_numpy(video))
        into.has_text.copy_(torch.from_numpy(has_text))

    def _gather(self, name: str, where: Ints, at: Ints, out: torch.Tensor) -> None:
        """Copy rows (shard, row) to positions ``at`` of ``out``, one indexed copy per shard."""
        for shard in np.unique(where[:, 0]):
            chosen = where[:, 0] == shard
            places, source = at[chosen], torch.from_numpy(where[chosen, 1])
            first, last = int(places[0]), int(places[-1]) + 1
            stored = self._files[name][shard]
            if last - first == len(places):  # neighbours in the batch: no intermediate copy
                torch.index_select(stored, 0, source, out=out[first:last])
            else:
                out[torch.from_numpy(places)] = stored.index_select(0, source)

    def _same(self, what: str, found: Sequence[tuple[Path, T]]) -> T:
        for folder, value in found:
            if value != found[0][1]:
                raise UsageError(f"shard {folder}: {what} is {value}, {found[0][0]} has {found[0][1]}; they don't mix")
        return found[0][1]

    def _all_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name in ("mean", "std", "clip", "sync", "text"):
            found = [(f, tuple(i["arrays"][name]["shape"])) for f, i in self._indexes if name in i["arrays"]]
            if found:
                shapes[name] = self._same(f"the shape of {name}", found)
        return shapes

    def _map(self, name: str) -> dict[int, torch.Tensor]:
        """Memory maps of one array by shard number; size checked even when checksums are not."""
        maps, dtype = {}, DTYPES[self.dtype]
        for number, (folder, index) in enumerate(self._indexes):
            if name not in index["arrays"]:
                continue
            file, rows, shape = folder / f"{name}.bin", index["arrays"][name]["rows"], self.shapes[name]
            count = rows * int(np.prod(shape))
            size = file.stat().st_size if file.is_file() else None
            if size != count * _ITEM_BYTES[dtype]:
                found = (
                    "is missing" if size is None else f"has {size} bytes, its index says {count * _ITEM_BYTES[dtype]}"
                )
                raise UsageError(f"shard {folder}: {file.name} {found}; remove this folder and extract it again")
            maps[number] = torch.from_file(str(file), shared=False, size=count, dtype=dtype).view(rows, *shape)
        return maps

    def _rank_within_shard(self, shards: Ints) -> Ints:
        """(n, 2) shard and row of each sample's video features; rows of samples without video mean nothing."""
        before: Ints = np.cumsum(self.video) - self.video
        starts = np.searchsorted(shards, shards)
        return np.stack([shards, before - before[starts]], axis=1)

    def _texts(self) -> tuple[dict[str, int], Ints]:
        """Number of each text, and its (shard, row)."""
        numbers: dict[str, int] = {}
        where: list[tuple[int, int]] = []
        for shard, (_, index) in enumerate(self._indexes):
            for row, text in enumerate(index["texts"]):
                if text not in numbers:
                    numbers[text] = len(where)
                    where.append((shard, row))
        return numbers, np.array(where, dtype=np.int64).reshape(-1, 2)

    def _text_rows(self) -> Ints:
        """Text number of each sample, -1 without text. UsageError names a text without features."""
        for key, label in zip(self.ids, self.labels, strict=True):
            if label is not None and label not in self._text_numbers:
                raise UsageError(f"{self.root}: the text {label!r} of {key} has no features; extract the texts again")
        return np.array([-1 if label is None else self._text_numbers[label] for label in self.labels], dtype=np.int64)


def _verify(folder: Path, index: Mapping[str, Any]) -> None:
    """Compare every file of a shard with its checksum."""
    for name, array in index["arrays"].items():
        try:
            with (folder / f"{name}.bin").open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"shard {folder}: {name}.bin cannot be read ({error}); extract it again") from error
        if found != array["sha256"]:
            fix = "remove this folder and run the extraction again; only what is missing is made"
            raise UsageError(f"shard {folder}: {name}.bin is damaged (checksum differs); {fix}")


def empty_rows(count: int, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Rows:
    """Uninitialised ``Rows`` for ``count`` samples."""
    arrays = {n: torch.empty((count, *shapes[n]), dtype=dtype) for n in ("mean", "std", "clip", "sync", "text")}
    flags = {n: torch.empty(count, dtype=torch.bool) for n in ("video", "has_text")}
    return Rows(**arrays, **flags)
