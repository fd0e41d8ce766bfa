"""Which rows of a table are not distinguishable from the best of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from av_bench.results.compare import alike
from av_bench.results.record import Run
from reports.model import Column, Row

ALPHA = 0.05
MARK = "≈"
NOTE = (
    f"{MARK} not distinguishable from the best of its column: paired on the same clips, two-sided, "
    f"{ALPHA:.0%} for all pairs of rows of a column together."
)


def with_marks(rows: Sequence[Row], runs: Sequence[Run], columns: Sequence[Column]) -> list[Row]:
    """Rows with ``tied`` cells; ``runs`` have the order of ``rows``. Only ranked rows and columns are compared.

    The level is shared by all pairs of ranked rows, since which of them is best is seen in the same data.
    """
    best = {c.name: i for c in columns if c.ranked for i, row in enumerate(rows) if _rank(row, c.name) == 1}
    ranked = [i for i, row in enumerate(rows) if row.group == "models"]
    if len(ranked) < 2:
        ranked = list(range(len(rows)))
    pairs = len(list(combinations(ranked, 2)))
    if not best or not pairs:
        return list(rows)
    values = [run.paired_values() for run in runs]
    marked = []
    for i, row in enumerate(rows):
        tied = {
            name
            for name, j in best.items()
            if i in ranked
            and _rank(row, name) != 1
            and name in row.cells
            and alike(name, (runs[i], values[i]), (runs[j], values[j]), ALPHA / pairs)
        }
        cells = {name: replace(cell, tied=name in tied) for name, cell in row.cells.items()}
        marked.append(replace(row, cells=cells))
    return marked


def _rank(row: Row, name: str) -> int | None:
    cell = row.cells.get(name)
    return None if cell is None else cell.rank
