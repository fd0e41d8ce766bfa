"""A run, or one shard of it: the shard does everything but the scores, which ``merge`` computes from all of them."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from av_bench.contracts import Clip, SampleSource, UsageError
from av_bench.pipeline import run as whole
from av_bench.pipeline.dispatch import carry_out
from av_bench.pipeline.outcomes import write_outcomes
from av_bench.pipeline.plan import RunOptions, RunPlan, RunResult
from av_bench.pipeline.prepare import make_plan
from av_bench.pipeline.work import whole_units
from av_bench.results.record import RunFolder, dumps
from av_bench.results.shapes import read_record
from av_bench.results.shards import Shard, choose_shard, code, differing, keep_split, own, refuse_taken_over
from av_bench.runtime import interrupt
from av_bench.runtime.files import write_atomically
from av_bench.runtime.offline import offline_if
from av_bench.runtime.progress import Reporter


def run(options: RunOptions, source: SampleSource | None = None) -> RunResult:
    """A whole run (see ``av_bench.pipeline.run.run``), or the shard that ``options.shard`` names.

    The result of a shard has no scores; its ``path`` is the shard's folder.
    """
    if options.shard is None:
        return whole.run(options, source)
    if source is not None:
        raise UsageError("a shard is run by name (--model), not with a model that is in memory")
    reporter = Reporter(options.quiet)
    with offline_if(options.offline):
        plan = make_plan(options, reporter)
        shard, split = choose_shard(options.shard, plan.folder.path)
        _refuse_whole(plan.folder.path)
        keep_split(plan.folder.path, split)
        start = _start(plan, shard)
        _refuse_other_run(plan, shard, start)
        plan = replace(plan, folder=RunFolder(shard_folder(plan.folder.path, shard), plan.folder.path))
        with interrupt.stoppable(), plan.folder.locked():
            try:
                return _run_shard(plan, shard, start, reporter)
            finally:
                plan.folder.close()


def shard_folder(run_folder: Path, shard: Shard) -> Path:
    """Where the records of a shard are."""
    return run_folder / "shards" / shard.name


def _start(plan: RunPlan, shard: Shard) -> dict[str, Any]:
    """What a shard is started with (``shard.json``)."""
    return {"shard": shard.number, "of": shard.of, "code": code(), "paths": _paths(plan), "options": to_record(plan)}


def _run_shard(plan: RunPlan, shard: Shard, start: dict[str, Any], reporter: Reporter) -> RunResult:
    folder = plan.folder.path
    plan.folder.open(plan.spec)
    _refuse_other_start(folder, start)
    token = own(folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    write_atomically(folder / "shard.json", dumps(start))
    clips = clips_of(plan, shard)
    done = carry_out(plan, clips, reporter)
    refuse_taken_over(folder, token)
    digest = write_outcomes(folder / "clips.jsonl", [done.clips[clip.id] for clip in clips], plan.folder.audio)
    manifest = start | {
        "clips": len(clips),
        "sha256": digest,
        "extra": done.extra,
        "network_runs": done.forwards,
        "seconds": dict(reporter.seconds),
        "host": socket.gethostname(),
    }
    write_atomically(folder / "manifest.json", dumps(manifest))
    reporter.say(f"shard {shard.number} of {shard.of}: {len(clips)} clips are done; when all shards are: "
                 f"av-bench merge {folder.parent.parent}")  # fmt: skip
    return RunResult(folder, {}, 0)


def clips_of(plan: RunPlan, shard: Shard) -> list[Clip]:
    """The clips of a shard in the order of the list: whole units, each by its first clip's id."""
    units = whole_units(plan.units, [clip.id for clip in plan.clips.clips])
    mine = {clip_id for unit in units if shard.has(unit[0]) for clip_id in unit}
    return [clip for clip in plan.clips.clips if clip.id in mine]


def to_record(plan: RunPlan) -> dict[str, Any]:
    """The options of a run as JSON, with paths that mean the same from every folder."""
    found: dict[str, Any] = {}
    for name, value in asdict(plan.options).items():
        if isinstance(value, Path):
            value = str(value.absolute())
        if name in ("set", "protocol") and value is not None and Path(value).is_file():
            value = str(Path(value).absolute())
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def from_record(record: dict[str, Any]) -> RunOptions:
    """Options from a shard's record. KeyError or TypeError when it is none."""
    given = {field.name: record[field.name] for field in fields(RunOptions)}
    for name in ("samples", "data", "table", "lists", "out", "store", "reference", "dedup"):
        given[name] = None if given[name] is None else Path(given[name])
    given["metrics"] = None if given["metrics"] is None else tuple(given["metrics"])
    return RunOptions(**given)


def _paths(plan: RunPlan) -> dict[str, str]:
    """Where media and features are, as this machine sees them."""
    options = plan.options
    places = {
        "data": options.data,
        "table": options.table,
        "samples": options.samples,
        "reference": options.reference,
        "store": plan.store,
    }
    return {name: str(path.resolve()) for name, path in places.items() if path is not None}


def _refuse_whole(run_folder: Path) -> None:
    if (run_folder / "ledger.jsonl").is_file() and not (run_folder / "shards").is_dir():
        raise UsageError(f"{run_folder} was started without shards; go on without them, or choose another --out")


SAME = "all shards of a run need the same: choose another --out, or remove that folder and run it again"


def _refuse_other_run(plan: RunPlan, shard: Shard, start: Mapping[str, Any]) -> None:
    """Refuse before the work what ``merge`` would: another spec, code, paths or metrics than the first shard's there.

    Shards that start at the same moment may not see each other; ``merge`` compares all of them.
    """
    known = sorted((plan.folder.path / "shards").glob(f"*-of-{shard.of}/shard.json"))
    other = next((path for path in known if path.parent.name != shard.name), None)
    if other is None:
        return
    RunFolder(other.parent).refuse_other(plan.spec, SAME)
    earlier = read_record(other, dict)
    for what in ("code", "paths"):
        if found := differing(start[what], earlier.get(what) or {}):
            raise UsageError(f"{other.parent} was started with other {what}: {', '.join(found)}; {SAME}")
    ours, theirs = (record.get("options", {}).get("metrics") for record in (start, earlier))
    if ours != theirs:
        both = f"{metrics_text(theirs)} (here {metrics_text(ours)})"
        raise UsageError(f"{other.parent} was started with other --metrics: {both}; {SAME}")


def metrics_text(asked: Sequence[str] | None) -> str:
    """What --metrics asked for, in words."""
    return "all" if asked is None else ", ".join(asked)


def _refuse_other_start(folder: Path, start: dict[str, Any]) -> None:
    """A resumed shard has the code and the paths that it was started with."""
    path = folder / "shard.json"
    if not path.is_file():
        return
    earlier = read_record(path, dict)
    for what in ("code", "paths"):
        if found := differing(start[what], earlier.get(what) or {}):
            raise UsageError(
                f"{folder} was started with other {what}: {', '.join(found)}; go on with the same, or remove that "
                "folder to do the shard again"
            )
