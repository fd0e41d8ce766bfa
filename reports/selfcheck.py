"""The selfcheck as a Markdown table and a plot."""

from __future__ import annotations

from pathlib import Path

from av_bench.results.findings import Outcome, Series
from av_bench.runtime.files import write_atomically


def write_report(outcome: Outcome, folder: Path) -> None:
    """``selfcheck.md`` and ``selfcheck.png`` in ``folder``."""
    write_atomically(folder / "selfcheck.md", _markdown(outcome).encode())
    _plot(outcome, folder / "selfcheck.png")


def _markdown(outcome: Outcome) -> str:
    lines = [f"Selfcheck on {outcome.set}, {outcome.clips} clips", ""]
    lines += ["| damage | metric | oracle | damaged | difference (95 %) | reacted |", "|---|---|---:|---:|---:|---|"]
    for r in outcome.reactions:
        interval = "" if r.low is None else f"{r.value - r.base:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
        mark = "yes" if r.reacted else "**no**"
        lines.append(f"| {r.model} | {r.metric} | {r.base:.3f} | {r.value:.3f} | {interval} | {mark} |")
    for s in outcome.series:
        steps = ", ".join(f"{_step(m)}: {v:.3f}" for m, v in zip(s.models, s.values, strict=True))
        lines += ["", f"{s.metric} {'rises' if s.rises else 'does **not** rise'} step by step: {steps}"]
    return "\n".join(lines) + "\n"


def _step(model: str) -> str:
    return model.partition(":")[2] or model


def _plot(outcome: Outcome, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import io

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(1, 1.8), layout="constrained")
    for series in outcome.series:
        _draw_series(axes[0], series)
    labels = [f"{r.model}\n{r.metric}" for r in outcome.reactions]
    heights = [_effect(r.value - r.base, r.low, r.high) for r in outcome.reactions]
    colours = ["#2a6f97" if r.reacted else "#c1121f" for r in outcome.reactions]
    axes[1].bar(range(len(heights)), heights, color=colours)
    axes[1].axhline(1.0, color="#555", linewidth=0.8, linestyle="--")
    axes[1].set_yscale("log")
    axes[1].set_xticks(range(len(labels)), labels, rotation=90, fontsize=6.5)
    axes[1].set_ylabel("|difference| / half width of its 95 % interval (up to 100)")
    axes[1].set_title("every damage on the metrics that must see it (above 1: seen)", fontsize=10)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=130)
    plt.close(figure)
    write_atomically(path, sink.getvalue())


def _draw_series(axis: object, series: Series) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    axis.errorbar(
        range(len(series.values)), series.values, yerr=series.half_widths, marker="o", capsize=3, color="#2a6f97"
    )
    axis.set_xticks(range(len(series.models)), [_step(m) for m in series.models], fontsize=8)
    axis.set_ylabel(series.metric)
    axis.set_ylim(bottom=0)
    axis.set_title("growing damage, 95 % intervals", fontsize=10)


def _effect(difference: float, low: float | None, high: float | None) -> float:
    """Difference in half widths, drawn up to 100; an interval of no width (every clip alike) is drawn as 100."""
    if low is None or high is None or difference == 0:
        return 0.0
    half = (high - low) / 2
    return min(100.0, abs(difference) / half) if half > 0 else 100.0
