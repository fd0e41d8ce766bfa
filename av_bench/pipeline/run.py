"""plan -> reference features -> generate -> generated features -> score -> record."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import protocols
from av_bench.contracts import Clip, MediaError, Need, Reason, Side
from av_bench.features.extraction import Extraction
from av_bench.features.sides import Table
from av_bench.features.store import FeaturesLost, Store
from av_bench.pipeline import generate, score
from av_bench.pipeline.plan import Plan, RunOptions, RunResult
from av_bench.pipeline.prepare import make_plan, row_name
from av_bench.pipeline.real_side import real_side, refuse_changed_media
from av_bench.pipeline.videos import write_videos
from av_bench.results.record import SCHEMA, environment
from av_bench.runtime.files import home
from av_bench.runtime.prefetch import default_workers
from av_bench.runtime.progress import Reporter


def run(options: RunOptions, generator: Any = None) -> RunResult:
    """Run and score one model on one set. Raises AvBenchError before work starts when the request cannot work.

    ``generator`` stands in for the one that ``options.model`` names (training hands in the network it has so far).
    """
    reporter = Reporter(options.quiet)
    plan = make_plan(options, reporter, generator)
    with plan.folder.locked():
        plan.folder.open(plan.spec)
        plan.folder.refuse_to_lose([column.name for column in plan.columns])
        try:
            for _ in plan.networks.names:  # each round drops what is damaged in one extractor's features
                with contextlib.suppress(FeaturesLost):
                    return _work(plan, reporter)
            return _work(plan, reporter)
        finally:
            plan.folder.close()


def _work(plan: Plan, reporter: Reporter) -> RunResult:
    options = plan.options
    extraction = Extraction(
        networks=plan.networks,
        store=Store(options.store or home() / "store"),
        seconds=plan.protocol.seconds,
        workers=options.workers or default_workers(),
        reporter=reporter,
        one_network=options.one_network,
    )
    definition = protocols.load_set(options.set)
    real = real_side(plan, extraction, definition)
    plan.networks.release("reference", "video")
    refuse_changed_media(plan, real)
    usable = [c for c in plan.clips.clips if real.problem(c.id) is None]
    generate.generate(plan, usable, reporter)
    samples = generate.collect(plan, usable)
    names = plan.networks.of("generated")
    extraction.media([m for m in samples.media if m.problem is None], "generated", names, audio=True, video=False)
    plan.networks.release("reference", "video", "generated")
    table = Table(plan.clips.clips, real, samples)
    scored = table.scored(options.samples_per_clip)
    sides: tuple[Side, ...] = ("generated", "reference")
    for name in sides:
        pairs = table.pairs(scored, name)
        extraction.pairs(pairs, [n for n in plan.networks.pairs(name) if score.has_inputs(plan, real, n, name)])
    texts = [c.text for c in scored if c.text is not None]
    extraction.texts(texts, plan.networks.of("text"))
    with reporter.stage("score", 0):
        scores, rows = score.score(plan, extraction, table, scored)
    wanted = getattr(plan.generator, "watch", False) if options.videos is None else options.videos
    if wanted:
        write_videos(plan.folder.path / "videos", scored, table, plan.protocol.seconds, reporter)
    _record(plan, extraction, table, scored, scores, rows, reporter)
    covered = len(scored) / len(plan.clips.clips)
    complete = covered >= options.min_coverage and bool(scores["metrics"])
    return RunResult(plan.folder.path, scores, 0 if complete else 3)


def _record(
    plan: Plan,
    extraction: Extraction,
    table: Table,
    scored: Sequence[Clip],
    scores: dict[str, Any],
    rows: list[dict[str, Any]],
    reporter: Reporter,
) -> None:
    folder = plan.folder
    for clip in plan.clips.clips:
        problem = table.problem(clip.id, plan.options.samples_per_clip)
        if problem is not None:
            folder.log(clip.id, problem.stage, reason=problem.reason, detail=problem.detail)
        else:
            folder.log(clip.id, "score", **table.origin(clip.id))
        for stage, reason, detail in table.flags(clip.id):
            folder.log(clip.id, stage, reason=reason, detail=detail)
    for name, detail in getattr(plan.generator, "extra", {}).items():
        folder.log(name, "generate", reason=Reason.EXTRA_SAMPLE, detail=detail)
    folder.write_clips(rows)
    folder.write_json("scores.json", scores)
    if hasattr(plan.generator, "coverage"):
        found = plan.generator.coverage(plan.clips.clips, plan.options.samples_per_clip)
        folder.write_json("coverage.json", found)
        reporter.say(f"coverage: {found['covered']} of {found['expected']} clips ({folder.path}/coverage.json)")
    seconds = dict(reporter.seconds)
    info: dict[str, Any] = {
        "schema": SCHEMA,
        "spec": {**vars(plan.spec), "label": plan.options.label or row_name(plan.options)},
        "environment": environment(plan.options.device),
        "precision": "fp32",
        "generator": generate.describe(plan),
        "extractors": {name: plan.networks.fingerprint(name) for name in plan.networks.names},
        "seconds": seconds,
        "clips_per_second": {k: round(len(scored) / s, 3) for k, s in seconds.items() if s > 0.01 and len(scored)},
        "network_runs": extraction.forwards,
    }
    folder.write_json("run.json", info)


__all__ = ["MediaError", "Need", "Plan", "RunOptions", "RunResult", "make_plan", "run"]
