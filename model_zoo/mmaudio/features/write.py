"""Feature shards: what training reads, written once, as plain files.

A feature folder holds shards. A shard is a folder with one raw little-endian ``.bin`` file per array (rows back to
back, bfloat16 unless asked otherwise) and an ``index.json`` with ids, texts, flags, shapes, sums and checksums:

    mean, std  (N, C)     posterior of the audio latents, one row per sample
    clip       (Lc, Dc)   visual features, a row only for samples that have video
    sync       (Ls, Ds)   synchronisation features, likewise
    text       (Lt, Dt)   text features, one row per distinct text; samples name their text by number

A shard is written under a hidden name and renamed when complete, so a folder never shows half a shard.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

import torch

from av_bench.contracts import UsageError
from av_bench.runtime.files import lock
from model_zoo.mmaudio.features.crop_plan import FILE
from model_zoo.mmaudio.features.shard_file import WRITER, Sample, ShardFile, read_index, shard_folders

__all__ = ["Sample", "ShardWriter"]


class ShardWriter:
    """Writes samples into shards of ``shard_size``; started again, it resumes after the last complete shard.

    One writer per folder at a time. ``sample_key in writer`` tells what is already there::

        with ShardWriter(folder) as writer:
            for clip in clips:
                if clip.id not in writer:
                    writer.append(Sample(clip.id, mean, std, clip_features, sync_features, text, text_features))
    """

    def __init__(self, root: Path | str, shard_size: int = 4096, dtype: str = "bf16") -> None:
        self.root, self.shard_size, self.dtype = Path(root), shard_size, dtype
        if (self.root / FILE).exists():
            raise UsageError(f"{self.root} was made by an extraction, which adds to it; choose another folder")
        self._held = contextlib.ExitStack()
        if not self._held.enter_context(lock(self.root / WRITER)):
            self._held.close()
            raise UsageError(f"{self.root} is being written by another process; wait, or choose another folder")
        self._keys: set[tuple[str, int]] = set()
        self._texts: set[str] = set()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._number = 0
        try:
            self._take_up()
        except BaseException:
            self._held.close()
            raise
        self._open: ShardFile | None = None

    def _take_up(self) -> None:
        """Learn what earlier writers have left."""
        for folder in shard_folders(self.root):
            index = read_index(folder)
            if not folder.name.isdecimal():
                raise UsageError(f"{self.root}: {folder.name} is not a shard of a ShardWriter; choose another folder")
            self._keys.update(zip(index["ids"], index["crops"], strict=True))
            self._texts.update(index["texts"])
            self._shapes |= {name: tuple(a["shape"]) for name, a in index["arrays"].items()}
            self._number = max(self._number, int(folder.name) + 1)

    def __contains__(self, key: str | tuple[str, int]) -> bool:
        return (key if isinstance(key, tuple) else (key, 0)) in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, sample: Sample) -> None:
        """Add one sample. UsageError: it is there already, its shape differs, its text has no features yet."""
        key = (sample.id, sample.crop)
        if key in self._keys:
            raise UsageError(
                f"{self.root}: sample {sample.id!r} crop {sample.crop} is there already; ids must be unique"
            )
        if sample.text is not None and sample.text not in self._texts and sample.text_features is None:
            raise UsageError(f"{sample.id}: the text {sample.text!r} is new to {self.root}; give its text_features")
        shard = self._shard()
        if sample.text is not None and sample.text_features is not None:
            self.add_text(sample.text, sample.text_features)
        shard.add(sample)
        self._keys.add(key)
        if len(shard) >= self.shard_size:
            self.flush()

    def add_text(self, text: str, features: torch.Tensor) -> None:
        """Store the features (Lt, Dt) of a text unless they are there; ``""`` is the text of unconditional samples."""
        if text not in self._texts:
            self._shard().add_text(text, features)
            self._texts.add(text)

    def flush(self) -> None:
        """Complete the open shard."""
        if self._open is not None:
            self._shapes |= self._open.shapes
            done, self._open = self._open, None
            try:
                done.close()
            except BaseException:
                done.abandon()
                raise
            self._number += 1

    def close(self) -> None:
        """Complete the open shard and let the folder go."""
        with self._held:
            self.flush()

    def _shard(self) -> ShardFile:
        """The open shard, a new one when there is none."""
        if self._open is None:
            self._open = ShardFile(self.root, f"{self._number:06d}", self.dtype, self._shapes)
        return self._open

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # an unfinished shard is made again next time
            if self._open is not None:
                self._open.abandon()
            self._held.close()
