"""What papers report about one model, as Markdown, CSV and a plot, with our own run among it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av_bench.results.record import Run
from reports.ledger import Spread, higher_is_better

ARROWS = {True: "↑", False: "↓"}


@dataclass(frozen=True)
class Own:
    """Our own run's value of one metric."""

    name: str
    value: float


def own_values(runs: Sequence[Run], on: str | None) -> dict[str, list[Own]]:
    """Metric -> values of our runs on the set."""
    found: dict[str, list[Own]] = {}
    for run in runs:
        if on is None or run.scores["set"]["name"] == on:
            for metric, entry in run.scores["metrics"].items():
                found.setdefault(metric, []).append(Own(run.name, float(entry["value"])))
    return found


def summary(spread: Spread) -> str:
    """Lowest to highest of what somebody measured, with the factor between them."""
    values = spread.evidence
    if not values:
        return "no evidence: copied numbers only"
    low, high = min(values), max(values)
    text = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if low > 0 and high > low:
        text += f", factor {high / low:.2f}"
    text += f" ({len(values)} number{'s' if len(values) > 1 else ''}"
    return text + (f", {spread.unchecked} unchecked)" if spread.unchecked else ")")


def lines(spreads: Sequence[Spread], own: dict[str, list[Own]]) -> list[tuple[str, ...]]:
    """One line per number: metric, value, model, paper, place, clips, condition, origin, remarks."""
    found: list[tuple[str, ...]] = []
    for spread in spreads:
        for n, how in spread.numbers:
            remarks = [] if n.checked else ["unchecked: read in a summary only"]
            remarks += [] if n.evidence else ["copied: no evidence"]
            remarks += ["variant not stated"] if how == "family" else []
            paper = f"{n.paper} ({n.arxiv})" if n.arxiv else n.paper
            about = (n.model, paper, n.place, n.set, n.clips, n.condition, n.origin, "; ".join(remarks))
            found.append((spread.metric, n.printed, *about))
        found += [
            (spread.metric, f"{o.value:.6g}", o.name, "this run", *[""] * 4, "own", "")
            for o in own.get(spread.metric, ())
        ]
    return found


HEADS = ("metric", "value", "model", "paper", "place", "set", "clips", "condition", "origin", "remarks")


def markdown(model: str, on: str | None, spreads: Sequence[Spread], own: dict[str, list[Own]]) -> str:
    """The spread per metric, then every number with its source."""
    text = [f"**{_md(model)}**{f' on {_md(on)}' if on else ''}, as reported (not measured here)", ""]
    text += ["| metric | measured by papers | own |", "|---|---|---|"]
    for spread in spreads:
        mine = ", ".join(f"{o.value:.4g} ({_md(o.name)})" for o in own.get(spread.metric, ()))
        text.append(f"| {_md(spread.metric)} {ARROWS[higher_is_better(spread.metric)]} | {summary(spread)} | {mine} |")
    text += ["", f"| {' | '.join(HEADS)} |", "|---|---:|" + "---|" * (len(HEADS) - 2)]
    text += [f"| {' | '.join(map(_md, line))} |" for line in lines(spreads, own)]
    return "\n".join(text) + "\n"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def as_csv(spreads: Sequence[Spread], own: dict[str, list[Own]]) -> str:
    """Every number with its source."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(HEADS)
    writer.writerows([[f"'{t}" if t[:1] in ("=", "+", "@") else t for t in line] for line in lines(spreads, own)])
    return sink.getvalue()


def plot(model: str, on: str | None, spreads: Sequence[Spread], own: dict[str, list[Own]], path: Path) -> None:
    """One panel per metric: a dot per number, hollow where unchecked, a cross where copied, a diamond for own runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [s for s in spreads if len(s.numbers) + len(own.get(s.metric, ())) > 1] or list(spreads)
    heights = [1.1 + 0.28 * (len(s.numbers) + len(own.get(s.metric, ()))) for s in shown]
    figure = Figure(figsize=(8, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, spread in zip(panels, shown, strict=True):
        names = []
        for at, (n, how) in enumerate(spread.numbers):
            style = {"marker": "x", "color": "#8a94a1"} if not n.evidence else {"marker": "o", "color": "#2563a8"}
            hollow = {"markerfacecolor": "white"} if n.evidence and not n.checked else {}
            axes.plot([n.value], [at], linestyle="none", markersize=7, **style, **hollow)
            clips = f", {n.clips} clips" if n.clips else ""
            names.append(f"{n.model}{'?' if how == 'family' else ''} ({n.paper}{clips})")
        for o in own.get(spread.metric, ()):
            axes.plot([o.value], [len(names)], linestyle="none", marker="D", color="#b3431e", markersize=7)
            names.append(f"{o.name} (this run)")
        axes.set_yticks(range(len(names)), [_plain(n) for n in names], fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"{spread.metric} {ARROWS[higher_is_better(spread.metric)]}", fontsize=10, loc="left")
        axes.grid(axis="x", color="#d9dee4")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    figure.suptitle(
        f"{_plain(model)}{f' on {_plain(on)}' if on else ''}: filled read in the source, hollow unchecked, "
        "cross copied, diamond own",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
