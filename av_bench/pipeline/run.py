"""A run from its plan to its record: reference features, samples, their features, scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, Reason, SampleSource, UsageError, printable
from av_bench.features.sides import Sides
from av_bench.features.store import FeaturesLost, Store
from av_bench.pipeline import score, unchanged
from av_bench.pipeline.dispatch import Done, carry_out
from av_bench.pipeline.generate import describe
from av_bench.pipeline.plan import RunOptions, RunPlan, RunResult
from av_bench.pipeline.prepare import make_plan, row_name
from av_bench.pipeline.videos import write_videos
from av_bench.pipeline.work import extraction_of
from av_bench.results.record import SCHEMA, RunFolder, environment
from av_bench.results.values import PSEUDO
from av_bench.runtime import interrupt
from av_bench.runtime.garbage import rare_collections
from av_bench.runtime.offline import offline_if
from av_bench.runtime.progress import Reporter


def run(options: RunOptions, source: SampleSource | None = None) -> RunResult:
    """Run and score one model on one set. Raises AvBenchError before work starts when the request cannot work.

    ``source`` replaces the one that ``options.model`` names (training passes the network it has so far).
    SIGTERM and SIGUSR1 end it at the next clip (``interrupt.Stopped``); the same call resumes.
    """
    if source is not None and not options.place.local:
        raise UsageError("several devices need a model by name (--model), not one that is in memory")
    reporter = Reporter(options.quiet)
    with offline_if(options.offline), rare_collections():
        plan = make_plan(options, reporter, source)
        with interrupt.stoppable(), plan.folder.locked():
            refuse_unmerged(plan.folder.path)
            plan.folder.open(plan.spec)
            plan.folder.refuse_to_lose([metric.name for metric in plan.measurement.metrics])
            try:
                return complete(plan, reporter, lambda: carry_out(plan, plan.clips.clips, reporter))
            finally:
                plan.folder.close()


def refuse_unmerged(folder: Path) -> None:
    """UsageError for a folder that shards are being written to."""
    if (folder / "shards").is_dir() and not (folder / "scores.json").is_file():
        raise UsageError(f"{folder} is cut into shards; `av-bench merge {folder}` scores them. Or choose another --out")


def complete(plan: RunPlan, reporter: Reporter, work: Callable[[], Done]) -> RunResult:
    """Do the work and score it, again as long as features that were there turn out to be damaged."""
    for _ in plan.extractors.names:  # each round drops what is damaged in one extractor's features
        with contextlib.suppress(FeaturesLost):
            return finish(plan, reporter, work())
    return finish(plan, reporter, work())


def finish(plan: RunPlan, reporter: Reporter, done: Done, *, new_ledger: bool = False) -> RunResult:
    """Scores and record of a run whose clips are done. A ``new_ledger`` says nothing of their outcomes yet."""
    options = plan.options
    extraction = extraction_of(plan, Store(plan.store), reporter)
    sides = done.sides(plan)
    scored = sides.scored(options.samples_per_clip)
    interrupt.check()
    wanted = unchanged.fingerprint(plan, sides, done.extra)
    known = unchanged.earlier_scores(plan.folder, wanted)
    with reporter.stage("score", 0):
        if known is None:
            scores, *rows = score.score(plan, extraction, sides, scored, done.extra)
        else:
            scores = known
    if known is None or new_ledger:
        _log_outcomes(plan, done, sides)
    if known is None:
        _write_scores(plan.folder, scores, rows)
    if plan.source.watchable if options.videos is None else options.videos:
        write_videos(plan.folder.path / "videos", scored, sides, plan.protocol.seconds, plan.workers, reporter)
    _record(plan, done, scored, wanted, reporter)
    covered = len(scored) / len(plan.clips.clips)
    complete = covered >= options.min_coverage and bool(scores["metrics"])
    return RunResult(plan.folder.path, scores, 0 if complete else 3)


def _log_outcomes(plan: RunPlan, done: Done, sides: Sides) -> None:
    """A line for every clip: scored, or why not; and what else is said of it."""
    folder = plan.folder
    with folder.logged_together():
        for clip in plan.clips.clips:
            problem = sides.problem(clip.id, plan.options.samples_per_clip)
            if problem is not None:
                folder.log(clip.id, problem.stage, reason=problem.reason, detail=problem.detail)
            else:
                folder.log(clip.id, "score", **sides.origin(clip.id))
            for stage, reason, detail in sides.flags(clip.id):
                folder.log(clip.id, stage, reason=reason, detail=detail)
        for name, detail in plan.clips.left_out:
            folder.log(name, "set", reason=Reason.LEFT_OUT, detail=detail)
        for name, detail in done.extra.items():
            folder.log(name, "generate", reason=Reason.EXTRA_SAMPLE, detail=detail)


def _write_scores(folder: RunFolder, scores: dict[str, Any], rows: Sequence[list[dict[str, Any]]]) -> None:
    folder.write_clips(rows[0])
    folder.write_clips(rows[1], PSEUDO)
    folder.write_json("scores.json", scores)


def _record(plan: RunPlan, done: Done, scored: Sequence[Clip], wanted: str | None, reporter: Reporter) -> None:
    found = plan.source.coverage(plan.clips.clips, plan.options.samples_per_clip)
    if found is not None:
        plan.folder.write_json("coverage.json", found)
        reporter.say(f"coverage: {found['covered']} of {found['expected']} clips ({plan.folder.path}/coverage.json)")
    seconds = dict(reporter.seconds)
    info: dict[str, Any] = {
        "schema": SCHEMA,
        "spec": {
            **{k: v for k, v in vars(plan.spec).items() if k != "definition"},
            "label": printable(plan.options.label or row_name(plan.options)),
        },
        "request": _request(plan),
        "environment": environment(plan.options.device),
        "precision": "fp32",
        "generator": describe(plan),
        "extractors": {name: plan.extractors.fingerprint(name) for name in plan.extractors.names},
        "seconds": seconds,
        "clips_per_second": {k: round(len(scored) / s, 3) for k, s in seconds.items() if s > 0.01 and len(scored)},
        "network_runs": done.forwards,
    }
    if wanted is not None:
        info["scored_from"] = {"inputs": wanted, "files": unchanged.result_files(plan.folder)}
    plan.folder.write_json("run.json", info)


def _request(plan: RunPlan) -> dict[str, Any]:
    """Where the clips were read from, so that a report finds them again."""
    options = plan.options
    places = {"data": options.data, "table": options.table, "lists": options.lists}
    found = {name: str(path.resolve()) for name, path in places.items() if path is not None}
    return {"set": options.set, "limit": options.limit, **found}
