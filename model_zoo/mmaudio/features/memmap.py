"""Import of feature folders that the published MMAudio training made: memory-mapped tensors with a table beside them.

Such a folder holds ``meta.json``, which says shape and type of each tensor, and a file ``<name>.memmap`` of raw numbers
per tensor: mean and std ``(n, N, C)``, text_features ``(n, Lt, Dt)``, and with video clip_features ``(n, Lc, Dc)`` and
sync_features ``(n, Ls, Ds)``. The table (tsv) names the rows in order: id, and label or caption.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av_bench.contracts import UsageError, check_id, shortened
from av_bench.rows import read_table, records
from av_bench.schema import load_json
from model_zoo.mmaudio.features.write import Sample, ShardWriter

SOUND, VIDEO = ("mean", "std", "text_features"), ("clip_features", "sync_features")
_TYPES = {"torch.float32": np.float32, "torch.float16": np.float16, "torch.float64": np.float64}
_SAME = 0.01  # text features of one text differ by less than this part of their largest value


@dataclass(frozen=True)
class MemmapFeatures:
    """An opened folder: arrays by the published names, and id and text of each row."""

    folder: Path
    arrays: Mapping[str, NDArray[Any]]
    rows: list[tuple[str, str | None]]

    def __len__(self) -> int:
        return len(self.rows)

    def samples(self) -> Iterator[Sample]:
        """All rows in order; an id that comes again is the next crop of its recording."""
        crops: Counter[str] = Counter()
        for number, (key, text) in enumerate(self.rows):
            row = {name: _tensor(array[number]) for name, array in self.arrays.items()}
            clip, sync = row.get("clip_features"), row.get("sync_features")
            yield Sample(key, row["mean"], row["std"], clip, sync, text, row["text_features"], crops[key])
            crops[key] += 1


def _tensor(row: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(row, dtype=np.float32))


def open_memmap(folder: Path, table: Path) -> MemmapFeatures:
    """Open such a folder. UsageError names all parts that are missing, or that are not what ``meta.json`` says."""
    meta = folder / "meta.json"
    if not meta.is_file():
        raise UsageError(f"{folder}: no folder of memory-mapped features: meta.json is missing")
    about = load_json(meta)
    about = about if isinstance(about, dict) else {}
    names = [*SOUND, *(VIDEO if any(name in about for name in VIDEO) else ())]
    missing = [n for n in names if not isinstance(about.get(n), dict) or not (folder / f"{n}.memmap").is_file()]
    if missing:
        raise UsageError(f"{folder}: incomplete: {', '.join(missing)} missing (in meta.json, or as NAME.memmap)")
    arrays = {name: _array(folder / f"{name}.memmap", about[name]) for name in names}
    rows = _rows(table)
    counts = {name: len(array) for name, array in arrays.items()}
    if set(counts.values()) != {len(rows)}:
        counted = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"{folder}: {counted} rows, and {table} has {len(rows)}; use the table of these features")
    _check_texts(arrays["text_features"], rows, table)
    return MemmapFeatures(folder, arrays, rows)


def _array(file: Path, about: Mapping[str, Any]) -> NDArray[Any]:
    kind, shape = _TYPES.get(str(about.get("dtype"))), about.get("shape")
    sound = isinstance(shape, list) and len(shape) == 3 and all(isinstance(s, int) and s > 0 for s in shape)
    if kind is None or not sound or not isinstance(shape, list):
        raise UsageError(f"{file}: meta.json says {about.get('dtype')} {shape}; floats of three axes are expected")
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    if file.stat().st_size != wanted:
        raise UsageError(f"{file}: {file.stat().st_size:,} bytes, {wanted:,} are expected for {shape}: it is cut off")
    found: NDArray[Any] = np.memmap(file, dtype=kind, mode="r", shape=tuple(shape))
    return found


def _rows(table: Path) -> list[tuple[str, str | None]]:
    found = []
    for line, row in records(read_table(table), str(table), "\t", needed=("id",)):
        where = f"{table}, line {line}"
        text = row.get("label") if row.get("label") is not None else row.get("caption")
        if text is None:
            raise UsageError(f"{table}: the header needs a column label or caption beside id")
        key = _unquoted(row["id"])
        check_id(key, where)
        found.append((key, _unquoted(text) or None))
    return found


def _unquoted(cell: str) -> str:
    """A cell as it was before it was written: tables of pandas quote cells that hold a quotation mark."""
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def _check_texts(features: NDArray[Any], rows: list[tuple[str, str | None]], table: Path) -> None:
    """UsageError where one text has two features: the captions of the table were shifted against them."""
    first: dict[str, int] = {}
    for number, (key, text) in enumerate(rows):
        if text is None:
            continue
        one = first.setdefault(text, number)
        if one == number:
            continue
        a, b = (np.asarray(features[n], dtype=np.float32) for n in (one, number))
        if float(np.abs(a - b).max()) > _SAME * max(float(np.abs(a).max()), 1e-6):
            raise UsageError(
                f"{table}: {rows[one][0]} and {key} have the text {shortened(text, 60)!r}, but their text features "
                "differ: the texts do not belong to these features"
            )


def import_features(
    folder: Path, table: Path, out: Path, empty_text: torch.Tensor | None, dtype: str = "bf16", shard_size: int = 4096
) -> int:
    """Write a feature folder; returns its samples. What an earlier, killed import wrote is kept.

    ``empty_text`` ``(Lt, Dt)``: features of the empty text; without them a recipe names them (``empty_text``).
    """
    found = open_memmap(folder, table)
    wanted = found.arrays["text_features"].shape[1:]
    if empty_text is not None and tuple(empty_text.shape) != wanted:
        raise UsageError(f"features of the empty text: {tuple(empty_text.shape)} given, the others are {wanted}")
    with ShardWriter(out, shard_size, dtype) as writer:
        if empty_text is not None:
            writer.add_text("", empty_text)
        for sample in found.samples():
            if (sample.id, sample.crop) not in writer:
                writer.append(sample)
    return len(found)
