"""Two models clip by clip, for a terminal, a page (Markdown with links) and a spreadsheet (CSV)."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from urllib.parse import quote

from rich.table import Table as RichTable
from rich.text import Text

from av_bench.results.compare_clips import Comparison, MetricComparison
from reports.render import csv_text as guarded
from reports.render import markdown_text
from reports.terminal import console

_HEADS = ("metric", "A", "B", "A - B", "interval", "win rate", "sign test", "clips", "verdict")


def show(comparison: Comparison) -> None:
    """The comparison on a terminal."""
    out = console()
    view = RichTable(title=_title(comparison), title_justify="left")
    for name in _HEADS:
        view.add_column(name, justify="left" if name in ("metric", "verdict") else "right", overflow="fold")
    for metric in comparison.metrics:
        view.add_row(*(Text(cell, style=_style(metric) if i == 8 else "") for i, cell in enumerate(_cells(metric))))
    out.print(view)
    out.print(Text(f"  {_explained(comparison)}", style="dim"))
    for metric in comparison.metrics:
        if metric.most:
            out.print(Text(f"\n{_most(metric)}", style="bold"))
        for pair in metric.most:
            files = "  ".join(str(path) for path in pair.files if path is not None)
            out.print(Text(f"  {pair.id}  A {pair.a:.4g}  B {pair.b:.4g}  {files}"))


def markdown(comparison: Comparison, folder: Path | None = None) -> str:
    """The comparison as Markdown; links to media are relative to ``folder`` (default: the working directory)."""
    lines = [f"### {markdown_text(_title(comparison))}", "", f"| {' | '.join(_HEADS)} |"]
    lines.append("|---|" + "---:|" * (len(_HEADS) - 2) + "---|")
    for metric in comparison.metrics:
        lines.append(f"| {' | '.join(markdown_text(cell) for cell in _cells(metric))} |")
    lines += ["", f"{_explained(comparison)}"]
    for metric in comparison.metrics:
        if not metric.most:
            continue
        lines += ["", f"**{markdown_text(_most(metric))}**", "", "| clip | A | B | A - B |", "|---|---:|---:|---:|"]
        for pair in metric.most:
            cells = [
                _link(f"{value:.4g}", path, folder) for value, path in zip((pair.a, pair.b), pair.files, strict=True)
            ]
            lines.append(f"| {markdown_text(pair.id)} | {' | '.join(cells)} | {pair.a - pair.b:+.4g} |")
    return "\n".join(lines) + "\n"


def csv_text(comparison: Comparison) -> str:
    """One line per metric and clip with full precision, after one per metric with clip ``*`` for the whole."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["metric", "clip", "a", "b", "difference", "low", "high", "win_rate", "sign_p", "verdict"])
    for metric in comparison.metrics:
        d = metric.difference
        numbers = [d.new, d.base, d.value, d.low, d.high, metric.win_rate, metric.sign_p]
        writer.writerow([d.metric, "*", *("" if n is None else repr(n) for n in numbers), guarded(metric.verdict)])
    for row in comparison.clips().to_dict("records"):
        values = [repr(row[key]) for key in ("a", "b", "difference")]
        writer.writerow([row["metric"], guarded(row["id"]), *values, "", "", "", "", ""])
    return sink.getvalue()


def _title(comparison: Comparison) -> str:
    return f"A: {comparison.a}   B: {comparison.b}"


def _explained(comparison: Comparison) -> str:
    return (
        f"Paired on the clips that both scored; the intervals hold together with {1 - comparison.alpha:.0%}. "
        "Win rate: share of clips on which A is better, ties half. Metrics of the whole set have no winner per clip."
    )


def _cells(metric: MetricComparison) -> list[str]:
    d = metric.difference
    interval = "" if d.low is None else f"[{d.low:+.4g}, {d.high:+.4g}]"
    rate = "" if metric.win_rate is None else f"{metric.win_rate:.0%} ({metric.wins}:{metric.losses})"
    p = "" if metric.sign_p is None else f"p = {metric.sign_p:.2g}"
    arrow = "↑" if d.higher_is_better else "↓"
    head = [f"{d.metric} {arrow}", f"{d.new:.4g}", f"{d.base:.4g}", f"{d.value:+.4g}"]
    return [*head, interval, rate, p, str(d.clips), metric.verdict]


def _style(metric: MetricComparison) -> str:
    return "bold" if metric.verdict in ("A better", "B better") else ""


def _most(metric: MetricComparison) -> str:
    what = "move the difference most" if metric.wins is None else "differ most"
    return f"{metric.difference.metric}: clips that {what}"


def _link(text: str, path: Path | None, folder: Path | None) -> str:
    if path is None:
        return text
    return f"[{text}]({quote(os.path.relpath(path, folder or Path.cwd()))})"
