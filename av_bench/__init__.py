"""av-bench: evaluation and benchmark suite for video-to-audio generation.

>>> import av_bench
>>> result = av_bench.run(set="impacts", model="shuffled", limit=64)   # doctest: +SKIP
>>> print(av_bench.table([result.path]))                               # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunResult
    from av_bench.results.gate import Verdict

__all__ = ["gate", "run", "table"]


def run(**options: Any) -> RunResult:
    """Generate, score and record; keyword arguments are the fields of ``av_bench.pipeline.plan.RunOptions``.

    Returns the run folder, its scores and the exit code (0, or 3 when fewer clips than ``min_coverage`` were scored).
    Raises UsageError, MissingRequirement or MetricError (``av_bench.contracts``).
    """
    from av_bench.contracts import UsageError
    from av_bench.pipeline.plan import RunOptions
    from av_bench.pipeline.run import run as run_pipeline

    for key in ("samples", "data", "table", "lists", "out", "store", "reference", "dedup"):
        if isinstance(options.get(key), str):
            options[key] = Path(options[key])
    if "metrics" in options and options["metrics"] is not None:
        options["metrics"] = tuple(options["metrics"])
    try:
        request = RunOptions(**options)
    except TypeError as error:
        raise UsageError(f"av_bench.run: {error}") from error
    return run_pipeline(request)


def table(paths: Sequence[Path | str], form: str = "markdown", *, allow_different_n: bool = False) -> str:
    """Run folders -> a table as text; ``form`` is markdown, latex, csv or html."""
    from reports.build import tables
    from reports.render import render

    return render(tables(paths, allow_different_n=allow_different_n), form)


def gate(new: Path | str, against: Path | str, rules: Path | str | None = None) -> Verdict:
    """A run against a baseline run; ``.passed`` and ``.checks`` of the verdict say the rest."""
    from av_bench.results.gate import gate as gate_runs

    return gate_runs(new, against, rules)
