"""One strict reader for all tables: csv, tsv and JSON lines of sets, lists, mappings and audits.

An unclosed quotation mark must not swallow the rows after it: in tsv quotation marks are letters; in csv each
one that opens a cell must close it, and a cell of several lines may hold none that looks like a row. Errors name file
and line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError
from av_bench.schema import parse_json, read_text

LARGEST_TABLE = 1024 * 1024 * 1024  # bytes of a table, unpacked
LONGEST_CELL = 131_072  # characters


class TableError(UsageError):
    """A table is not well formed; the message names file and line."""


def read_table(path: Path) -> str:
    """The text of a table. UsageError when it is not a regular UTF-8 file of at most ``LARGEST_TABLE`` bytes."""
    return read_text(path, LARGEST_TABLE)


def read_rows(text: str, where: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of every row that is not blank, the header included. TableError names what is not closed."""
    source = _Lines(text)
    if delimiter == "\t":
        reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(source, delimiter=delimiter, strict=True)
    width = 0
    while True:
        line = reader.line_num + 1
        source.taken.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TableError(f"{where}, line {line}: {_explained(error)}") from error
        if cells is None:
            return
        width = width or len(cells)
        for number, swallowed in enumerate(source.taken[1:], line + 1):
            if swallowed.count(delimiter) == width - 1:
                raise TableError(
                    f"{where}, line {line}: a quotation mark opens a cell that ends on line {reader.line_num}, and "
                    f"line {number} looks like a row of its own; inside a cell a quotation mark is written twice"
                )
        if cells:
            yield line, cells


class _Lines:
    """The lines of a text, one after the other; ``taken`` holds those that were read for the current row."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return line


def header_of(cells: Sequence[str], where: str, needed: Collection[str]) -> list[str]:
    """A header row, checked: no name twice, and the columns that are needed."""
    header = list(cells)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"{where}, line 1: duplicate column {twice!r}")
    missing = [name for name in needed if name not in header]
    if missing:
        raise TableError(f"{where}, line 1: no column {', '.join(missing)}; the header is {', '.join(header)[:160]!r}")
    return header


def records(
    text: str, where: str, delimiter: str = ",", needed: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row by column name) of a table with a header. TableError for a row with more or fewer cells."""
    rows = read_rows(text, where, delimiter)
    first = next(rows, None)
    if first is None:
        return
    header = header_of(first[1], where, needed)
    for line, cells in rows:
        if len(cells) != len(header):
            raise TableError(f"{where}, line {line}: {len(header)} fields are expected, found {len(cells)}")
        yield line, dict(zip(header, cells, strict=True))


def json_lines(text: str, where: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of every line of a JSON lines file that is not blank. UsageError names the line that is not JSON.

    Only ``\\n`` ends a line: JSON texts may hold other line separators.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, parse_json(line, f"{where}, line {number}")


def _explained(error: csv.Error) -> str:
    message = str(error)
    if "end of data" in message:
        return "a quotation mark opens a cell and is never closed; inside a cell it is written twice"
    if "field limit" in message:
        return f"a cell of more than {LONGEST_CELL:,} characters; is a quotation mark not closed?"
    if "expected after" in message:
        return "text follows a closing quotation mark; inside a cell it is written twice"
    return message
