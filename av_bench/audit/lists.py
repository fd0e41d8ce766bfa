"""Clip lists: read any format of the field into one table of (id, window, file, line).

A list is read as a whole and never repaired. A row that does not fit its format is kept aside with file, line and
text; a file in which most rows do not fit (a wrong delimiter, another format) and an empty file are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from av_bench.audit import formats
from av_bench.audit.cliplist import ClipList, Malformed
from av_bench.audit.formats import DEFAULT_WINDOW_MS, Format
from av_bench.contracts import UsageError
from av_bench.rows import TableError, header_of, read_rows
from av_bench.schema import parse_json
from protocols.lists.sources import unpack

_SNIFF_ROWS = 50
_SHORTEST_MS = 200  # no clip list holds shorter windows
_TEXT = 160  # characters of a malformed row that are kept


def read_list(
    path: Path | str,
    format_name: str | None = None,
    name: str | None = None,
    shown: str | None = None,
    columns: dict[str, str] | None = None,
) -> ClipList:
    """Read one list file.

    ``format_name`` is one of ``formats.FORMATS``; without it the first rows decide, or ``columns`` says which columns
    of a table with a header hold what (``formats.own_columns``). ``shown`` is the file name that
    findings print. Raises UsageError on an empty file, an unknown format, a wrong delimiter or a wrong header.
    """
    path = Path(path)
    shown = shown or str(path)
    raw = unpack(path)
    if b"\x00" in raw[:4096]:
        raise UsageError(f"{shown}: a binary file, not a list")
    digest = hashlib.sha256(raw).hexdigest()
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        if not raw.isascii():
            raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}, line {line}: not UTF-8 text; save the list as UTF-8") from error
    if columns is not None and format_name is None:
        layout = _own_table(raw, columns, shown)
    else:
        layout = formats.get(format_name) if format_name else _sniff(raw, shown)
    records, lines, odd = _records(raw, layout, shown)
    rows, malformed = _parse(records, lines, layout, shown)
    _refuse_foreign(len(rows), [*odd, *malformed], layout, raw, shown)
    _refuse_instants(rows, layout, shown)
    return ClipList(
        name or shown,
        layout.name,
        layout.namespace,
        layout.label_kind,
        (shown,),
        (digest,),
        rows,
        tuple(sorted([*odd, *malformed], key=lambda m: m.line)),
    )


def _records(raw: bytes, layout: Format, shown: str) -> tuple[pa.Array, NDArray[np.int32], list[Malformed]]:
    """Split a file into records: (string array, line numbers, rows that cannot be split)."""
    if layout.kind == "lines":
        return (*_line_records(raw), [])
    text = raw.decode("utf-8")
    if layout.kind == "json" and layout.key == "id":
        return _json_lines(text, shown)
    if layout.kind == "json":
        entries = _json_entries(text, layout, shown)
        return pa.array(entries, pa.string()), np.arange(1, len(entries) + 1, dtype=np.int32), []
    return _table_records(text, layout, shown)


def _line_records(raw: bytes) -> tuple[pa.Array, NDArray[np.int32]]:
    """Lines (ended by LF, CR LF or CR) without comments and blanks. The arrow strings point into ``raw``: two million
    lines cost no copy."""
    if len(raw) >= 2**31:
        raise UsageError("list files of 2 GiB and more are not read; split the file")
    if b"\r" in raw and raw.count(b"\r") != raw.count(b"\r\n"):
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    buffer = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(buffer == 10).astype(np.int32) + 1
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    if offsets[-1] != len(raw):
        offsets = np.append(offsets, np.int32(len(raw)))
    first = buffer[offsets[:-1]]
    records = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(raw))
    keep = first != ord("#")
    for index in np.flatnonzero(np.diff(offsets) < 4):  # only very short lines can be blank
        keep[index] = bool(raw[offsets[index] : offsets[index + 1]].strip()) and keep[index]
    lines = np.arange(1, len(offsets), dtype=np.int32)
    if keep.all():
        return records, lines
    return records.filter(pa.array(keep)), lines[keep]


def _table_records(text: str, layout: Format, shown: str) -> tuple[pa.Array, NDArray[np.int32], list[Malformed]]:
    """Rows of a file with a header, as the wanted columns joined by a comma."""
    rows = read_rows(text, shown, layout.delimiter)
    _, header = next(rows, (1, []))
    absent = [c for c in layout.columns if c not in header]
    if absent:
        raise UsageError(
            f"{shown}, line 1: format {layout.name} needs the columns {', '.join(layout.columns)} separated by "
            f"{layout.delimiter!r}, the header is {','.join(header)[:_TEXT]!r}; check the delimiter and the format"
        )
    header_of(header, shown, layout.columns)
    wanted = [header.index(c) for c in layout.columns]
    found: list[str] = []
    lines: list[int] = []
    odd: list[Malformed] = []
    for line, row in rows:
        if len(row) == len(header):
            found.append(",".join(row[i] for i in wanted))
            lines.append(line)
        else:
            reason = f"{len(row)} cells where the header has {len(header)}"
            odd.append(Malformed(shown, line, layout.delimiter.join(row)[:_TEXT], reason))
    return pa.array(found, pa.string()), np.asarray(lines, np.int32), odd


def _json_entries(text: str, layout: Format, shown: str) -> list[str]:
    """Ids written in a JSON list or object of lists, as text."""
    data = parse_json(text, shown)
    if isinstance(data, dict) and layout.key == "*":
        return list(data)
    if isinstance(data, dict):
        if layout.key not in data:
            raise UsageError(
                f"{shown}: no key {layout.key!r} (keys: {', '.join(map(str, data))[:_TEXT]}); choose another format"
            )
        data = data[layout.key]
    if not isinstance(data, list):
        raise UsageError(f"{shown}: format {layout.name} expects a JSON list, found {type(data).__name__}")
    return [_json_id(entry) for entry in data]


def _json_id(entry: object) -> str:
    """The id of an entry as text; what is neither text nor a whole number stays visible as a malformed row."""
    value = entry.get("id", entry) if isinstance(entry, dict) else entry
    return value if isinstance(value, str) else json.dumps(value)[:_TEXT]


def _json_lines(text: str, shown: str) -> tuple[pa.Array, NDArray[np.int32], list[Malformed]]:
    """Ids of a file with a JSON object per line; a line that is not JSON is a malformed row."""
    records: list[str] = []
    lines: list[int] = []
    odd: list[Malformed] = []
    for number, line in enumerate(text.split("\n"), 1):  # only "\n" ends a line: JSON strings may hold others
        if not line.strip():
            continue
        try:
            records.append(_json_id(parse_json(line, "line")))
            lines.append(number)
        except UsageError as error:
            odd.append(Malformed(shown, number, line[:_TEXT], str(error).removeprefix("line: ")))
    return pa.array(records, pa.string()), np.asarray(lines, np.int32), odd


def _parse(records: pa.Array, lines: NDArray[np.int32], layout: Format, shown: str) -> tuple[pa.Table, list[Malformed]]:
    """Match every record; return the table of rows and the records that do not fit."""
    found = pc.extract_regex(records, pattern=rf"^(?:{layout.pattern})\s*$")
    good = found.is_valid().to_numpy(zero_copy_only=False)
    malformed = [
        Malformed(shown, int(lines[i]), records[int(i)].as_py().rstrip("\r\n")[:_TEXT], f"not like {layout.example!r}")
        for i in np.flatnonzero(~good)
    ]
    if malformed:
        found, records, lines = found.filter(pa.array(good)), records.filter(pa.array(good)), lines[good]
    columns: dict[str, pa.Array] = {"id": pc.struct_field(found, "id")}
    if layout.windows:
        start = _milliseconds(pc.struct_field(found, "start"), layout.unit_ms)
        has_end = "end" in layout.groups
        end = _milliseconds(pc.struct_field(found, "end"), layout.unit_ms) if has_end else start + DEFAULT_WINDOW_MS
        columns |= {"start": pa.array(start), "end": pa.array(end)}
    if layout.label_kind != "none":
        columns["label"] = pc.utf8_trim(pc.struct_field(found, "label"), characters='" \r\n')
    columns |= {"file": pa.array(np.zeros(len(lines), np.int16)), "line": pa.array(lines)}
    table = pa.table(columns)
    if layout.windows and (backward := end <= start).any():
        malformed += [
            Malformed(
                shown, int(lines[i]), records[int(i)].as_py().rstrip("\r\n")[:_TEXT], "the end is not after the start"
            )
            for i in np.flatnonzero(backward)
        ]
        table = table.filter(pa.array(~backward))
    return table, malformed


def _milliseconds(values: pa.Array, unit_ms: int) -> NDArray[np.int64]:
    """Times written in units of ``unit_ms`` as whole ms."""
    written: NDArray[np.float64] = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    return np.rint(written * unit_ms).astype(np.int64)


def _refuse_foreign(good: int, bad: Sequence[Malformed], layout: Format, raw: bytes, shown: str) -> None:
    if good == 0 or len(bad) > good:
        first = raw.splitlines()[0][:_TEXT].decode("utf-8", "replace")
        raise UsageError(
            f"{shown}: {len(bad)} of {good + len(bad)} rows are not {layout.name} rows (like {layout.example!r}); "
            f"the first line is {first!r}. Check the delimiter, or name another format of: {', '.join(formats.FORMATS)}"
        )


def _refuse_instants(rows: pa.Table, layout: Format, shown: str) -> None:
    """UsageError when most windows are far under 1 s: the times are in another unit, and nothing would overlap."""
    if _instants(rows, layout):
        raise UsageError(
            f"{shown}: read as {layout.name}, most windows last less than {_SHORTEST_MS} ms; the times are probably in "
            "seconds: name the format, e.g. vggsound-s:FILE"
        )


def _instants(rows: pa.Table, layout: Format) -> bool:
    """Whether most windows of a table of rows are far under 1 s."""
    if not layout.windows or not len(rows):
        return False
    return float(np.median(rows["end"].to_numpy() - rows["start"].to_numpy())) < _SHORTEST_MS


def _own_table(raw: bytes, columns: dict[str, str], shown: str) -> Format:
    """The format of a table by its named columns: the delimiter its header has, YouTube ids where most ids are such."""
    head = raw[: 1 << 16].decode("utf-8", "ignore")
    first = head.splitlines()[0] if head else ""
    wanted = set(columns.values())
    for delimiter in (",", "\t", ";", "|"):
        with contextlib.suppress(TableError):  # a quotation mark that another delimiter makes sense of
            if wanted <= set(next(read_rows(first, shown, delimiter), (1, []))[1]):
                break
    else:
        raise UsageError(
            f"{shown}, line 1: --columns asks for {', '.join(sorted(wanted))}; the header is {first[:_TEXT]!r}"
        )
    lines = "".join(head.splitlines(keepends=True)[:_SNIFF_ROWS])
    youtube = formats.of_columns(columns, delimiter, youtube=True)
    records, numbers, _ = _records(lines.encode(), youtube, shown)
    fits = len(_parse(records, numbers, youtube, shown)[0])
    return youtube if 2 * fits > len(records) else formats.of_columns(columns, delimiter, youtube=False)


def _sniff(raw: bytes, shown: str) -> Format:
    """The first format whose pattern fits most of the first rows."""
    head = b"".join(raw.splitlines(keepends=True)[:_SNIFF_ROWS]) if not _is_json(raw) else raw
    broken: TableError | None = None
    for layout in formats.FORMATS.values():
        if (layout.kind == "json") != _is_json(raw):
            continue
        try:
            records, lines, odd = _records(head, layout, shown)
        except TableError as error:
            broken = error
            continue
        except UsageError:
            continue
        rows = _parse(records, lines, layout, shown)[0] if len(records) else ()
        if 2 * len(rows) > len(records) + len(odd) and not _instants(rows, layout):
            return layout
    if broken is not None:
        raise broken
    first = raw.splitlines()[0][:_TEXT].decode("utf-8", "replace")
    raise UsageError(
        f"{shown}: the first line {first!r} fits no known list format; check the delimiter, or name one of: "
        f"{', '.join(formats.FORMATS)}"
    )


def _is_json(raw: bytes) -> bool:
    return raw.lstrip()[:1] in (b"{", b"[")
