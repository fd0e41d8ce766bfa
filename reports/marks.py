"""Marks that keep a table honest: better than real, in the loop."""

from __future__ import annotations

from dataclasses import replace

from av_bench.results.record import Run
from reports.model import Cell, Column, Row, Table

BETTER = "‡"
LOOP = "◇"
_EXTRACTORS = {"laion-clap": "clap", "ms-clap": "msclap"}  # weights whose extractors have another name


def marked_cells(table: Table, runs: dict[str, Run]) -> Table:
    """The table with marks at cells and their footnotes. ``runs``: run of each row, by its path as text."""
    rows, footnotes = list(table.rows), []
    oracle = next((r for r in rows if r.group == "bounds" and r.name == "oracle"), None)
    if oracle is not None:
        rows, found = _better_than_real(rows, oracle, table.columns)
        if found:
            text = f"better than the reference audio (oracle) in {', '.join(found)}: it does not tell them apart"
            footnotes.append((BETTER, text))
    rows, loops = _in_the_loop(rows, runs)
    if loops:
        footnotes.append((LOOP, "the network that scores was in the loop: " + "; ".join(loops)))
    return replace(table, rows=tuple(rows), footnotes=(*table.footnotes, *footnotes))


def _mark(cell: Cell, mark: str) -> Cell:
    return replace(cell, marks=(*cell.marks, mark))


def _better_than_real(rows: list[Row], oracle: Row, columns: tuple[Column, ...]) -> tuple[list[Row], list[str]]:
    """Cells of models that beat the oracle's, where the numbers come from the same networks."""
    found: dict[str, None] = {}
    marked = []
    for row in rows:
        cells = dict(row.cells)
        for column in columns:
            ours, real = row.cells.get(column.name), oracle.cells.get(column.name)
            if row.group != "models" or not column.metric or not column.ranked or ours is None or real is None:
                continue
            if ours.value > real.value if column.higher_is_better else ours.value < real.value:
                cells[column.name] = _mark(ours, BETTER)
                found[column.title] = None
        marked.append(replace(row, cells=cells))
    return marked, list(found)


def _in_the_loop(rows: list[Row], runs: dict[str, Run]) -> tuple[list[Row], list[str]]:
    """Cells scored by a network that the model was trained with, conditioned on or selected by."""
    hits, marked = [], []
    for row in rows:
        run = runs.get(str(row.path))
        cells = dict(row.cells)
        for network, how in (run.info.get("generator", {}).get("metric_networks_used", {}) if run else {}).items():
            assert run is not None
            hit = [name for name in cells if name in run.scores["metrics"] and _scores(run, name, network)]
            for name in hit:
                cells[name] = _mark(cells[name], LOOP)
            if hit:
                hits.append(f"{row.name}, {', '.join(hit)} ({how})")
        marked.append(replace(row, cells=cells))
    return marked, hits


def _scores(run: Run, metric: str, network: str) -> bool:
    """Whether a metric rests on a network; extractors are named NETWORK or NETWORK-PART."""
    network = _EXTRACTORS.get(network, network)
    used = run.scores["metrics"][metric]["extractors"]
    return any(name == network or name.startswith(f"{network}-") for name in used)
