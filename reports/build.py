"""Runs -> tables. Rows of one table share set, list, protocol and flavour; nothing is mixed.

Ceilings and floors (oracle, shuffled, noise, silence) stand apart from the models, and best and second best are
marked among the models (among all rows when there are only ceilings and floors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.results.compare import half_width, unstated_pack
from av_bench.results.definition import conflicts
from av_bench.results.record import Run, read_run
from av_bench.results.shapes import Described
from reports.marks import marked_cells
from reports.model import Cell, Column, Row, Table, params_cell
from reports.notes import marked, model_notes, scored_list
from reports.significance import NOTE, with_marks

SANITY = ("oracle", "shuffled", "noise", "silence")


def tables(
    paths: Sequence[Path | str | Run], *, allow_different_n: bool = False, with_paper: str | None = None
) -> list[Table]:
    """Group run folders into tables. UsageError when rows of one table have different clips, unless allowed.

    ``with_paper`` (table1, table2, table3) adds that table's rows as reported, and for runs of the same models the
    difference, ours - reported.
    """
    if not paths:
        raise UsageError("no run folders given; `av-bench table runs/*`")
    groups: dict[tuple[str, ...], list[list[Run]]] = {}
    for path in paths:
        run = path if isinstance(path, Run) else read_run(path)
        alike = groups.setdefault(_key(run), [])
        group = next((g for g in alike if not any(_conflicts(run, other) for other in g)), None)
        if group is None:
            alike.append([run])
        else:
            group.append(run)
    found = []
    for key, alike in groups.items():
        for runs in alike:
            others = [g[0] for g in alike if g is not runs]
            table = _table(key, runs, allow_different_n)
            notes = [f"Warning: {_edited(runs[0], other)}." for other in others]
            found.append(replace(table, notes=(*table.notes, *notes)))
    if with_paper is None:
        return found
    from reports.paper_rows import with_reported

    return [with_reported(table, with_paper) for table in found]


def _key(run: Run) -> tuple[str, ...]:
    """What all rows of a table share."""
    clips, protocol = run.scores["set"], run.scores["protocol"]
    names = (clips["name"], clips["version"], clips["list_hash"], protocol["name"], protocol["version"])
    return (*names, run.scores["flavour"], unstated_pack(run) or "")


def _conflicts(run: Run, other: Run) -> list[str]:
    return conflicts(run.scores.get("definition"), other.scores.get("definition"))


def _edited(run: Run, other: Run) -> str:
    fields = "; ".join(_conflicts(run, other))
    return f"not comparable with {other.name}, which was run with another definition of the same name: {fields}"


def _table(key: tuple[str, ...], runs: list[Run], allow_different_n: bool) -> Table:
    populations = {run.scores["scored_hash"] for run in runs}
    if len(populations) > 1 and not allow_different_n:
        counts = ", ".join(f"{r.path.name}: {r.scores['counts']['scored']}" for r in runs)
        raise UsageError(
            f"rows of one table must be scored on the same clips; scored are {counts}. FD and IS depend on n. "
            "Complete the runs, pass --common to score all rows on the clips that all have, or --allow-different-n to "
            "print them as they are"
        )
    mixed = _mixed(runs)
    columns = _columns(runs, mixed)
    rows = with_marks(_ranked([_row(run, columns) for run in runs], columns), runs, columns)
    rows.sort(key=lambda row: (row.group != "bounds", _bound_order(row.name)))
    name, version, _, protocol, protocol_version, flavour, _ = key
    scored = sorted({run.scores["counts"]["scored"] for run in runs})
    n = str(scored[0]) if len(scored) == 1 else f"{scored[0]} to {scored[-1]}"
    title = f"{name} (version {version}), protocol {protocol} {protocol_version}, {flavour} flavour, n = {n}"
    remarks = dict.fromkeys(run.scores["protocol"].get("remark", "") for run in runs)
    title = "; ".join([title, *filter(None, remarks)])
    notes = _notes(rows, len(populations) > 1)
    if any(cell.tied for row in rows for cell in row.cells.values()):
        notes = (*notes, NOTE)
    if mixed:
        difference = "come from different weights, front ends or devices in different rows and are not ranked"
        notes = (*notes, f"Warning: the networks behind {', '.join(mixed)} {difference}.")
    made = Table(
        title,
        columns,
        tuple(rows),
        notes,
        f"{name}-{protocol}-{flavour}",
        (name, flavour),
        protocol=(protocol, protocol_version),
        version=version,
    )
    return marked_cells(made, {str(run.path): run for run in runs})


def _mixed(runs: list[Run]) -> tuple[str, ...]:
    """Metrics whose networks are not the same in all rows."""
    networks: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for run in runs:
        for metric, entry in run.scores["metrics"].items():
            networks.setdefault(metric, set()).add(tuple(sorted(entry["extractors"].items())))
    return tuple(metric for metric, found in networks.items() if len(found) > 1)


def _columns(runs: list[Run], mixed: tuple[str, ...]) -> tuple[Column, ...]:
    order: dict[str, Column] = {}
    for metric in dict.fromkeys(metric for run in runs for metric in run.scores["protocol"]["metrics"]):
        for run in runs:
            entry = run.scores["metrics"].get(metric)
            if entry is not None:
                up, unit = bool(entry["higher_is_better"]), entry["unit"]
                order.setdefault(metric, Column(metric, up, unit, ranked=metric not in mixed))
    described = [run.info.get("generator", {}) for run in runs]
    params = (
        [Column("params", False, "M", metric=False, ranked=False)] if any("parameters" in d for d in described) else []
    )
    timed = any("seconds_per_sample" in d for d in described)
    seconds = [Column("seconds", False, "s/sample", metric=False, ranked=False)] if timed else []
    return (*params, *order.values(), *seconds)


def _row(run: Run, columns: tuple[Column, ...]) -> Row:
    cells = {}
    for column in columns:
        entry = run.scores["metrics"].get(column.name)
        if entry is not None:
            cells[column.name] = Cell(float(entry["value"]), half_width(entry), int(entry["n"]))
    described = run.info.get("generator", {})
    cells |= _description(described)
    kind = str(run.info["spec"]["model"]).split(":")[0]
    bound, remarks = kind in SANITY, [f"{c.name}: {note}" for c in columns for note in _remarks(run, c.name)]
    if kind == "shuffled" and (same := [c.name for c in columns if c.name in cells.keys() - run.per_clip()]):
        cells = {name: cell for name, cell in cells.items() if name not in same}
        why = "the same recordings in another order are no floor for metrics that ignore it"
        remarks.append(f"no {', '.join(same)}: {why}")
    mark = " †" if marked(scored_list(run), described.get("training_sets", ())) else ""
    return Row(
        run.name + mark,
        "bounds" if bound else "models",
        cells,
        run.scores["counts"],
        run.scores["absent"],
        tuple(run.scores["warnings"]),
        run.path,
        run.scores.get("clean"),
        model_notes(run, described),
        tuple((r["table"], r["row"]) for r in described.get("paper", ())),
        tuple(remarks),
    )


def _remarks(run: Run, metric: str) -> list[str]:
    entry = run.scores["metrics"].get(metric)
    return [] if entry is None else list(entry["notes"])


def _description(described: Described) -> dict[str, Cell]:
    """Cells of the columns that describe a model."""
    cells = {}
    if "parameters" in described:
        cells["params"] = params_cell(described["parameters"]["count"] / 1e6)
    if "seconds_per_sample" in described:
        seconds = described["seconds_per_sample"]
        cells["seconds"] = Cell(float(seconds["mean"]), None, int(seconds["n"]))
    return cells


def _ranked(rows: list[Row], columns: tuple[Column, ...]) -> list[Row]:
    ranked = [row for row in rows if row.group == "models"] or rows
    if len(ranked) < 2:
        return rows
    places: dict[tuple[int, str], int] = {}
    for column in [c for c in columns if c.ranked]:
        values = sorted({r.cells[column.name].value for r in ranked if column.name in r.cells})
        if column.higher_is_better:
            values.reverse()
        for row in ranked:
            cell = row.cells.get(column.name)
            if cell is not None and cell.value in values[:2]:
                places[id(row), column.name] = values.index(cell.value) + 1
    return [
        replace(row, cells={k: replace(c, rank=places.get((id(row), k))) for k, c in row.cells.items()}) for row in rows
    ]


def _bound_order(name: str) -> int:
    kind = name.split(":")[0]
    return SANITY.index(kind) if kind in SANITY else len(SANITY)


def _notes(rows: Sequence[Row], different: bool) -> tuple[str, ...]:
    notes = []
    if different:
        notes.append("Rows are scored on different clips: FD and IS depend on n and must not be compared.")
    for row in rows:
        counts = row.counts
        excluded = ", ".join(f"{n} {reason}" for reason, n in counts["excluded"].items()) or "none"
        flagged = ", ".join(f"{n} {reason}" for reason, n in counts["flagged"].items())
        text = f"{row.name}: {counts['scored']} of {counts['expected']} clips scored; excluded: {excluded}"
        notes.append(text + (f"; flagged: {flagged}" if flagged else ""))
    for row in rows:
        if row.clean is not None:
            notes.append(_clean_note(row))
    absent: dict[str, list[str]] = {}
    for row in rows:
        for metric, reason in row.absent.items():
            absent.setdefault(f"{metric} is absent: {reason}", []).append(row.name)
        for text in row.remarks:
            absent.setdefault(text, []).append(row.name)
    notes += [text if len(names) == len(rows) else f"{text} ({', '.join(names)})" for text, names in absent.items()]
    notes += list(dict.fromkeys(text for row in rows for text in row.model_notes))
    notes += list(dict.fromkeys(f"Warning: {w}" for row in rows for w in row.warnings))
    if any(row.name.split(":")[0] == "silence" for row in rows):
        notes.append("A constant prediction can look good on DeSync and AP: read them beside F1.")
    return tuple(notes)


def _clean_note(row: Row) -> str:
    """What the subset without overlapping clips gives, and whether it differs."""
    assert row.clean is not None
    parts = []
    for name, entry in row.clean["metrics"].items():
        against = entry.get("against_full", {})
        text = f"{name} {entry['value']:.3f}"
        if "interval" in against:
            low, high = against["interval"]
            text += f" ({against['difference']:+.3f} [{low:+.3f}, {high:+.3f}])"
        parts.append(text)
    left = f"{row.name} without {row.clean['left_out']} overlapping clips (n = {row.clean['scored']}): "
    return left + "; ".join(parts)
