"""The report folder: static pages that open by double click, with their media. No server, no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench.contracts import Clip, UsageError, unknown_name
from av_bench.results.record import Run
from av_bench.runtime.progress import Reporter
from reports.model import Cell, Table
from reports.site import views
from reports.site.choose import Choice, choose
from reports.site.statistics import chart_data, duels

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
MARKER = "report.json"
PAGES = {
    "index": "Overview",
    "clips": "Clips",
    "compare": "Compare",
    "distributions": "Distributions",
    "failures": "Failures",
}


@dataclass(frozen=True)
class Options:
    """Which clips, and how they get there. ``metric``: the one worst and best go by; None: the first per clip."""

    clips: int = 60
    rule: str = "mixed"
    named: tuple[str, ...] = ()
    metric: str | None = None
    seed: int = 14159265
    link: bool = False


def write_report(
    tables: Sequence[Table],
    runs: Sequence[Run],
    media: views.Media,
    out: Path,
    options: Options,
    detect: views.Detect,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the folder, whole or not at all; returns what ``report.json`` says of it.

    UsageError when ``out`` holds something that is not a report, or for unknown clips, rules and metrics.
    """
    if out.exists() and not (out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and is not a report; choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        summary = _fill(tables, runs, media, partial, options, detect, reporter)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _fill(
    tables: Sequence[Table],
    runs: Sequence[Run],
    media: views.Media,
    out: Path,
    options: Options,
    detect: views.Detect,
    reporter: Reporter,
) -> dict[str, Any]:
    found = views.models(runs)
    asked = views.metrics(found)
    failures = views.failures(found)
    choices, by = _choices(found, asked, options)
    reasons: dict[str, dict[str, None]] = {}
    for failure in failures:
        reasons.setdefault(failure.clip, {})[failure.reason] = None
    clips = []
    with reporter.stage("clips", len(choices)) as stage:
        for i, choice in enumerate(choices):
            why = list(reasons.get(choice.clip, {}))
            clips.append(views.clip_view(i, choice, found, asked, media, out, detect, why, options.link))
            stage.advance()
    labels = {c: clip.label or "" for c in _every(found) if (clip := _known(media, c)) is not None}
    data = chart_data(found, asked, {c.id: c.anchor for c in clips}, labels, options.seed)
    charts = _plotly(out)
    (out / "data.js").write_text(f"window.REPORT = {script_json(data)};\n", encoding="utf8")
    for name in ("report.css", "report.js", "charts.js"):
        shutil.copyfile(HERE / "static" / name, out / name)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    summary = {
        "clips": len(clips),
        "of": data["clips_in_all"],
        "rule": options.rule,
        "by": by,
        "seed": options.seed,
        "bytes": size,
        "charts": charts,
        "runs": [str(run.path) for run in runs],
    }
    content = {
        "tables": tables,
        "models": found,
        "metrics": asked,
        "directions": {m.name: m.higher_is_better for m in asked},
        "clips": clips,
        "duels": duels(found, asked),
        "failures": failures,
        "seconds": media.seconds,
        "labels": sorted({c.label for c in clips if c.label}),
        "reasons": sorted({r for c in clips for r in c.reasons}),
        "summary": summary,
        "pages": PAGES,
        "points": len(data["clips"]),
    }
    environment = _environment()
    for page in PAGES:
        text = environment.get_template(f"{page}.html.j2").render(page=page, **content)
        (out / f"{page}.html").write_text(text, encoding="utf8")
    (out / MARKER).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf8")
    return summary


def _every(found: Sequence[views.Model]) -> list[str]:
    return sorted({c for m in found for values in m.values.values() for c in values})


def _known(media: views.Media, clip_id: str) -> Clip | None:
    try:
        return media.clip(clip_id)
    except KeyError:
        return None


def _choices(found: Sequence[views.Model], asked: Sequence[views.Metric], options: Options) -> tuple[list[Choice], str]:
    """The clips to show, and by which metric of which model they were chosen."""
    names = [m.name for m in asked]
    if options.metric is not None and options.metric not in names:
        raise UsageError(f"--by: {unknown_name('metric', options.metric, names)}")
    every = _every(found)
    if not asked:
        return choose({}, options.clips, "random", options.seed, options.named, every), "no metric per clip: at random"
    metric = next(m for m in asked if options.metric in (None, m.name))
    model = next((m for m in found if _is_model(m)), found[0])
    sign = 1 if metric.higher_is_better else -1
    scores = {clip: sign * value for clip, value in model.values.get(metric.name, {}).items()}
    chosen = choose(scores, options.clips, options.rule, options.seed, options.named, every)
    return chosen, f"{metric.name} of {model.name}"


def _is_model(model: views.Model) -> bool:
    from reports.build import SANITY

    return str(model.run.info["spec"]["model"]).split(":")[0] not in SANITY


def _plotly(out: Path) -> bool:
    """Put the chart library beside the pages; False where it is not installed (the pages then say how to get it)."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return False
    (out / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf8")
    return True


def script_json(value: object) -> str:
    """JSON that can be embedded in a script: nothing in it ends the element or the line."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["bar"] = _bar
    made.filters["short"] = _short
    made.filters["script_json"] = script_json
    return made


def _short(value: float) -> str:
    """Four significant digits, at most four decimals, never 1e-13."""
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}".rstrip("0").rstrip(".") or "0"


def _bar(cell: Cell, table: Table, column: str) -> dict[str, float] | None:
    """Where a value and its interval lie between the lowest and highest of the column, in percent."""
    cells = [row.cells[column] for row in table.rows if column in row.cells]
    low = min(c.value - (c.half_width or 0.0) for c in cells)
    high = max(c.value + (c.half_width or 0.0) for c in cells)
    if high <= low:
        return None

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 1)

    half = cell.half_width or 0.0
    return {
        "left": at(cell.value - half),
        "width": round(at(cell.value + half) - at(cell.value - half), 1),
        "at": at(cell.value),
    }
