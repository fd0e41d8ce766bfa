"""Do the metrics react to known damage as they should?

A protocol lists damages of the reference audio, each with the metrics that must see it, and series along which a metric
must rise step by step. Each damage is an ordinary run; it is compared with the undamaged oracle clip by clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import protocols
from av_bench.contracts import UsageError
from av_bench.engines.choose import Place
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.run import run
from av_bench.results.compare import differences
from av_bench.results.findings import Outcome, Reaction, Series
from av_bench.results.record import Run, read_run
from protocols.definitions import Selfcheck


def run_selfcheck(
    set_name: str,
    *,
    data: Path | None,
    limit: int | None,
    out: Path,
    workers: int | None,
    quiet: bool,
    place: Place = Place(),  # noqa: B008 - plain data, frozen
) -> Outcome:
    """Run every damage of the set's protocol; runs that exist already are reused."""
    plan = _plan(set_name)
    models = list(dict.fromkeys(["oracle", *plan.moves, *(m for s in plan.series for m in s.models)]))
    wanted = [*(m for metrics in plan.moves.values() for m in metrics), *(s.metric for s in plan.series)]
    runs: dict[str, Run] = {}
    for model in models:
        folder = out / model.replace(":", "-").replace("=", "")
        options = RunOptions(
            set=set_name,
            model=model,
            data=data,
            limit=limit,
            out=folder,
            workers=workers,
            quiet=quiet,
            min_coverage=0.0,
            **place.options(),
        )
        runs[model] = read_run(run(options).path)
        watched = [*plan.moves.get(model, ()), *(s.metric for s in plan.series if model in s.models)]
        _has_all(runs[model], wanted if model == "oracle" else watched)
    reactions = [r for model, metrics in plan.moves.items() for r in _reactions(runs[model], runs["oracle"], metrics)]
    series = [_series(s.metric, s.models, runs) for s in plan.series]
    return Outcome(set_name, runs["oracle"].scores["counts"]["scored"], tuple(reactions), tuple(series))


def _plan(set_name: str) -> Selfcheck:
    protocol, _ = choose_protocol(protocols.load_set(set_name), None)
    if protocol.selfcheck is None:
        raise UsageError(f"protocol {protocol.name} lists no damages to check (key selfcheck)")
    return protocol.selfcheck


def _has_all(run: Run, wanted: Sequence[str]) -> None:
    """Refuse at the first run, not after the last, when a metric that is to be watched cannot be computed."""
    missing = [m for m in wanted if m not in run.scores["metrics"]]
    if missing:
        why = run.scores["absent"].get(missing[0], "not in the protocol")
        raise UsageError(f"selfcheck needs {missing[0]}, which is absent: {why}")


def _reactions(damaged: Run, oracle: Run, metrics: Sequence[str]) -> list[Reaction]:
    found = {d.metric: d for d in differences(damaged, oracle, names=metrics)}
    return [
        Reaction(damaged.name, m, found[m].base, found[m].new, found[m].low, found[m].high, found[m].verdict == "worse")
        for m in metrics
    ]


def _series(metric: str, models: Sequence[str], runs: Mapping[str, Run]) -> Series:
    entries = [runs[m].scores["metrics"][metric] for m in models]
    intervals = [entry.get("interval") for entry in entries]
    halves = [0.0 if interval is None else (interval[1] - interval[0]) / 2 for interval in intervals]
    return Series(metric, tuple(models), tuple(e["value"] for e in entries), tuple(halves))
