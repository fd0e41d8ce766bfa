"""A list of clips as a table, and set operations on it: concatenate, take away, count once, filter by label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from av_bench.contracts import UsageError


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that does not fit its format. ``line`` counts from 1 (in a JSON list: the entry)."""

    file: str
    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class ClipList:
    """Rows of one list.

    ``rows`` is an arrow table with the columns ``id`` (string), ``file`` (index into ``files``), ``line`` (from 1; in
    a JSON list the entry), where the format has windows ``start`` and ``end`` (ms), and where it has labels ``label``.
    ``hashes`` holds the sha256 of each unpacked file.
    """

    name: str
    format: str
    namespace: str
    label_kind: str
    files: tuple[str, ...]
    hashes: tuple[str, ...]
    rows: pa.Table
    malformed: tuple[Malformed, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def windows(self) -> bool:
        """True when rows have start and end times."""
        return "start" in self.rows.column_names

    @cached_property
    def n_ids(self) -> int:
        """Number of different ids (recordings)."""
        return len(pc.unique(self.rows["id"]))

    @cached_property
    def n_clips(self) -> int:
        """Number of different clips: (id, start, end) counted once, however many captions or labels repeat it."""
        return len(self) if self.n_ids == len(self) else len(distinct(self))

    def where(self, row: int) -> tuple[str, int]:
        """File and line of a row."""
        return self.files[self.rows["file"][row].as_py()], int(self.rows["line"][row].as_py())


def clip_name(clip_id: str, start_ms: int | None) -> str:
    """Name of a clip in a run: ``<id>_<start seconds, six digits>``, or the bare id where a list has no windows."""
    if start_ms is None:
        return clip_id
    whole, rest = divmod(start_ms, 1000)
    return f"{clip_id}_{whole:06d}" + (f".{rest:03d}" if rest else "")


def clip_names(rows: pa.Table) -> frozenset[str]:
    """Names of all clips of a table of rows."""
    ids = rows["id"].to_pylist()
    starts = rows["start"].to_pylist() if "start" in rows.column_names else [None] * len(ids)
    return frozenset(map(clip_name, ids, starts))


def concatenate(name: str, lists: Sequence[ClipList]) -> ClipList:
    """All rows of several lists as one; they must share namespace and have windows all or none."""
    first = lists[0]
    if any(part.namespace != first.namespace or part.windows != first.windows for part in lists):
        raise UsageError(
            f"{name}: its files hold different kinds of ids or only some have times; audit them one by one"
        )
    labelled = all("label" in part.rows.column_names and part.label_kind == first.label_kind for part in lists)
    tables: list[pa.Table] = []
    files: list[str] = []
    hashes: list[str] = []
    for part in lists:
        rows = part.rows if labelled or "label" not in part.rows.column_names else part.rows.drop_columns(["label"])
        shifted = pc.cast(pc.add(rows["file"], pa.scalar(len(files), pa.int16())), pa.int16())
        tables.append(rows.set_column(rows.column_names.index("file"), "file", shifted))
        files += part.files
        hashes += part.hashes
    rows = pa.concat_tables([t.select(tables[0].column_names) for t in tables])
    return replace(
        first,
        name=name,
        label_kind=first.label_kind if labelled else "none",
        files=tuple(files),
        hashes=tuple(hashes),
        rows=rows,
        malformed=tuple(m for part in lists for m in part.malformed),
        notes=tuple(n for part in lists for n in part.notes),
    )


def key_columns(rows: pa.Table) -> list[str]:
    """Columns that make two rows the same clip."""
    return ["id", "start", "end"] if "start" in rows.column_names else ["id"]


def distinct(clips: ClipList) -> pa.Table:
    """Rows with every clip once (the first row of each), in file order."""
    return distinct_rows(clips.rows)


def distinct_rows(rows: pa.Table) -> pa.Table:
    """The first row of each clip of a table of rows."""
    keep = ~rows.select(key_columns(rows)).to_pandas().duplicated().to_numpy()
    return rows if keep.all() else rows.filter(pa.array(keep))


def without(clips: ClipList, removed: ClipList) -> ClipList:
    """The list without every segment (id and start) of ``removed``."""
    key = ["id", "start"] if clips.windows and removed.windows else ["id"]
    taken = removed.rows.select(key).to_pandas().drop_duplicates()
    mark = clips.rows.select(key).to_pandas().merge(taken, on=key, how="left", indicator="side")["side"] == "left_only"
    return replace(clips, rows=clips.rows.filter(pa.array(mark.to_numpy())), files=clips.files)


def filter_labels(clips: ClipList, drop: Sequence[str] = (), keep: Sequence[str] = ()) -> ClipList:
    """Rows that carry none of ``drop`` and, if ``keep`` is given, at least one of it.

    Labels count literally: ``/m/09x0r`` (Speech) does not take its children along. AudioSet rows hold machine ids,
    VGGSound rows one class name. Raises UsageError for a list without labels.
    """
    if clips.label_kind == "none":
        raise UsageError(f"{clips.name}: the list has no labels, so no label filter can be applied")
    mask = np.ones(len(clips), bool)
    for labels, wanted in ((drop, False), (keep, True)):
        if labels:
            mask &= _carries(clips, labels) == wanted
    parts = [f"{word} {', '.join(labels)}" for word, labels in (("without", drop), ("only", keep)) if labels]
    return replace(clips, rows=clips.rows.filter(pa.array(mask)), notes=(*clips.notes, "; ".join(parts)))


def _carries(clips: ClipList, labels: Sequence[str]) -> NDArray[np.bool_]:
    if clips.label_kind == "class":
        hit = pc.is_in(clips.rows["label"], value_set=pa.array(labels, pa.string()))
    else:
        escaped = "|".join(re.escape(label) for label in labels)
        hit = pc.match_substring_regex(clips.rows["label"], pattern=rf"(?:^|,)(?:{escaped})(?:,|$)")
    return np.asarray(hit.to_numpy(), bool)
