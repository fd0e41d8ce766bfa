"""An acceptance report for people, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from av_bench.accept.report import Item, Report


def markdown(report: Report, table: str = "") -> str:
    """The report, ready to be sent in."""
    counts = {s: sum(item.status == s for item in report.items) for s in ("ok", "absent", "failed")}
    lines = [
        "# av-bench acceptance",
        "",
        f"{counts['ok']} ok, {counts['failed']} failed, {counts['absent']} absent (not tried). "
        + ("Nothing failed." if report.passed else "Something failed."),
    ]
    if report.other_files:
        lines += [
            "",
            f"**Not the released files** (the lock file in use pins others): {', '.join(report.other_files)}.",
        ]
    parts = (("Files", report.files), ("Networks", report.networks), ("Models", report.models))
    for title, items in parts:
        if not items:
            continue
        lines += ["", f"## {title}", "", "| what | status | detail | outputs | compared |", "|---|---|---|---|---|"]
        lines += [_row(item) for item in items]
    if table:
        lines += ["", "## Table 1", "", table.rstrip()]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(report.environment["packages"].items()))
    lines += ["", "## Environment", "", f"{report.environment['device']}; {packages}", ""]
    return "\n".join(lines)


def _row(item: Item) -> str:
    cells = (item.what, item.status, _cell(item.detail), _cell(_told(item.given)), _cell(item.compared))
    return f"| {' | '.join(cells)} |"


def _told(given: Mapping[str, Any]) -> str:
    """Digests of outputs, or the hash of a file."""
    if "sha256" in given:
        return f"sha256 {given['sha256'][:16]}..."
    return "; ".join(f"{key} {tuple(value['shape'])} {value['digest']}" for key, value in given.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
