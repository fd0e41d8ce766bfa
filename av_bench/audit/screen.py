"""Audit results as tables for the screen (rich)."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from av_bench.audit.alignment import Alignment
from av_bench.audit.cliplist import Malformed
from av_bench.audit.content import ContentAudit
from av_bench.audit.overlaps import Finding, ListAudit
from av_bench.audit.report import seconds
from av_bench.audit.tables import Cell, TableA4


def summary_table(result: ListAudit) -> Table:
    """A rich table: one line per training list, then union and intersection."""
    table = Table(title=f"{result.test} ({result.n_clips:,} clips, {result.n_ids:,} ids), rule {result.rule}")
    table.add_column("training list")
    for head in ("its clips", "test clips in it", "share", "test ids in it"):
        table.add_column(head, justify="right")
    for t in result.trains:
        table.add_row(
            t.name, f"{t.n_clips:,}", f"{len(t.clips):,}", _share(len(t.clips), result.n_clips), f"{len(t.ids):,}"
        )
    if len(result.trains) > 1:
        for name, (clips, ids) in (("in any of them", result.union), ("in all of them", result.intersection)):
            table.add_row(
                name, "", f"{len(clips):,}", _share(len(clips), result.n_clips), f"{len(ids):,}", style="bold"
            )
    return table


def findings_table(findings: Sequence[Finding], limit: int) -> Table:
    """A rich table of the first ``limit`` findings with file and line of both rows."""
    table = Table(title=f"findings ({min(limit, len(findings)):,} of {len(findings):,}; --csv or --json holds all)")
    for head in ("test clip", "test row", "training row", "training start (s)"):
        table.add_column(head, overflow="fold")
    for f in findings[:limit]:
        table.add_row(f.clip, f"{f.test.file}:{f.test.line}", f"{f.train.file}:{f.train.line}", seconds(f.train))
    return table


def malformed_lines(rows: Sequence[Malformed], limit: int = 20) -> list[str]:
    """Plain lines ``file:line: why: text`` of rows that were not used."""
    lines = [f"{m.file}:{m.line}: {m.reason}: {m.text!r}" for m in rows[:limit]]
    if len(rows) > limit:
        lines.append(f"... and {len(rows) - limit} more; --json holds all")
    return [f"{len(rows)} malformed rows were not audited:", *lines]


def a4_table(result: TableA4) -> Table:
    """A rich table: the paper's counts and ours by rule, clips and (ids)."""
    table = Table(title="Table A4: test clips found in training lists; ours as clips (ids), share of the test list")
    table.add_column("test list")
    table.add_column("training list")
    for head in ("paper", "by id", "by overlap", "by segment"):
        table.add_column(head, justify="right")
    for cell in result.cells:
        without = f" without {', '.join(cell.without)}" if cell.without else ""
        size = f" ({cell.n_clips:,} clips)" if cell.n_clips is not None else ""
        table.add_row(cell.test + size, cell.train + without, paper_text(cell), *ours_text(cell))
    return table


def paper_text(cell: Cell) -> str:
    """The printed cell: count, size and share, or "-"."""
    return "-" if cell.paper is None else f"{cell.paper} of {cell.paper_n:,} ({100 * cell.paper / cell.paper_n:.1f} %)"


def ours_text(cell: Cell) -> tuple[str, str, str]:
    """Our counts by id, overlap, segment; "not computed" where a list is missing."""
    if cell.n_clips is None:
        return ("not computed",) * 3
    words = []
    for rule in ("id", "overlap", "segment"):
        found = cell.ours.get(rule)
        words.append("no times" if found is None else f"{found[0]:,} ({found[1]:,}) {_share(found[0], cell.n_clips)}")
    return words[0], words[1], words[2]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def matches_table(result: ContentAudit, limit: int = 200) -> Table:
    """A rich table: each match with offset, length and confidence of sound and picture, and what was changed."""
    sizes = ", ".join(f"{name}: {count:,} files" for name, count in result.counts.items())
    shown = f", the first {limit:,} shown" if len(result.matches) > limit else ""
    title = f"{len(result.matches):,} content match{'' if len(result.matches) == 1 else 'es'}{shown} ({sizes})"
    table = Table(title=title, caption="offset, length, confidence")
    table.add_column("test file", overflow="fold")
    table.add_column("training file", overflow="fold")
    table.add_column("in common", no_wrap=True)  # on a narrow screen names give way
    for m in result.matches[:limit]:
        what = textwrap.wrap(f"{m.kind}: {m.change}" if m.change else m.kind, _COMMON)
        lines = [*what, *(_stretch(name, a) for name, a in (("sound", m.sound), ("picture", m.picture)) if a)]
        table.add_row(_short(m.test, (result.test,)), _short(m.train, result.trains), "\n".join(lines))
    return table


_COMMON = 32  # columns of the screen for what two files have in common


def _short(path: Path, folders: Sequence[Path]) -> str:
    """A file by its path below its folder; with several folders, with the folder's name."""
    folder = next(f for f in folders if path.is_relative_to(f))
    inside = path.relative_to(folder)
    return str(inside if len(folders) == 1 else folder.name / inside)


def _stretch(name: str, found: Alignment) -> str:
    return f"{name} {found.offset:+.2f} s, {found.length:.1f} s, {found.confidence:.2f}"


def kept_lines(result: ContentAudit, limit: int = 20) -> list[str]:
    """Of a set against itself: which files go, and which stays for each."""
    if result.kept is None:
        return []
    goes = sorted(result.kept.stands_for.items())
    lines = [f"  {path} is a copy of {stays}" for path, stays in goes[:limit]]
    rest = [f"  ... and {len(goes) - limit:,} more; --json holds all"] if len(goes) > limit else []
    return [f"{len(goes):,} copies to leave out (kept: the {result.kept.rule} of each)", *lines, *rest]


def left_out_lines(result: ContentAudit, limit: int = 20) -> list[str]:
    """What was not compared, line by line, and how many files are not recordings."""
    lost = result.not_compared
    lines = [f"not compared: {item.path}: {item.reason}" for item in lost[:limit]]
    if len(lost) > limit:
        lines.append(f"... and {len(lost) - limit:,} more; --json holds all")
    if lost:
        lines.append(f"INCOMPLETE: {len(lost):,} files or folders were not compared; nothing is said about them")
    harmless = Counter(item.reason for item in result.left_out if item.harmless)
    if harmless:
        what = ", ".join(f"{count:,} x {reason}" for reason, count in harmless.most_common(5))
        lines.append(f"no recordings, left out: {what}")
    return lines
