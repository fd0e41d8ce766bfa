"""All shards of a run together: checked, their records joined, and scored without any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from av_bench.contracts import UsageError
from av_bench.features.store import FeaturesLost
from av_bench.pipeline.dispatch import Done
from av_bench.pipeline.outcomes import read_outcomes
from av_bench.pipeline.plan import RunOptions, RunPlan, RunResult
from av_bench.pipeline.prepare import make_plan
from av_bench.pipeline.run import finish
from av_bench.pipeline.shard import from_record, metrics_text, shard_folder
from av_bench.pipeline.work import Finished
from av_bench.results.record import RunFolder
from av_bench.results.shapes import read_record
from av_bench.results.shards import Shard, Split, array_of, code, differing, read_split
from av_bench.runtime import interrupt
from av_bench.runtime.files import write_atomically
from av_bench.runtime.offline import offline_if
from av_bench.runtime.progress import Reporter


class Manifest(TypedDict):
    """What a finished shard says of itself (``manifest.json``, see ``av_bench.pipeline.shard``)."""

    shard: int
    of: int
    code: dict[str, str]
    paths: dict[str, str]
    options: dict[str, Any]
    sha256: str
    extra: dict[str, str]
    network_runs: int
    host: str


AS_IT_WAS = "merge with the list, set and protocol that it was run with"


def merge(folder: Path, *, script: str = "SCRIPT", quiet: bool = False) -> RunResult:
    """Score a run from its shards. UsageError names what is missing and the line that does only that again.

    ``script`` is the batch script that this line names.
    """
    split = read_split(folder)
    if split is None:
        raise UsageError(_no_shards(folder))
    manifests = _complete(folder, split, script)
    reporter = Reporter(quiet)
    options = _options(folder, split, manifests[0], quiet)
    with offline_if(options.offline):
        plan = make_plan(options, reporter, idle=True)
        with interrupt.stoppable(), RunFolder(folder).locked():
            _check(plan, split, manifests)
            done = _join(plan, split, manifests)
            try:
                return finish(plan, reporter, done, new_ledger=True)
            except FeaturesLost as error:
                raise UsageError(
                    f"{error.args[0]}. The shards wrote them to {manifests[0]['paths']['store']}: merge where that "
                    "folder is, or run the shards again"
                ) from error
            finally:
                plan.folder.close()


def _options(folder: Path, split: Split, manifest: Manifest, quiet: bool) -> RunOptions:
    """The options of the run, from those of its first shard. UsageError when the record is none of ours."""
    try:
        options, store = from_record(manifest["options"]), Path(manifest["paths"]["store"])
    except (KeyError, TypeError) as error:
        where = shard_folder(folder, Shard(0, split.of))
        raise UsageError(
            f"{where / 'manifest.json'} is not whole ({error}); remove {where} and run that shard again"
        ) from error
    return replace(options, out=folder, store=store, devices=None, engine=None, address=None, shard=None, quiet=quiet)


def _no_shards(folder: Path) -> str:
    """Why a folder cannot be merged: not there, a part of the run folder that is meant, or a run without shards."""
    if not folder.is_dir():
        return f"{folder}: no such run folder"
    whole = next((parent for parent in folder.absolute().parents[:2] if read_split(parent) is not None), None)
    if whole is not None:
        return f"{folder} is a part of the run folder {whole}; merge that one"
    return f"{folder} has no shards; `av-bench run --shard i/n --out {folder}` makes them"


def _complete(folder: Path, split: Split, script: str) -> list[Manifest]:
    """The manifests of all shards, in order. UsageError when one is missing, there twice, or not where it belongs."""
    _refuse_strangers(folder, split)
    found: list[Manifest] = []
    missing: list[int] = []
    for number in range(split.of):
        path = shard_folder(folder, Shard(number, split.of)) / "manifest.json"
        if not path.is_file():
            missing.append(number)
            continue
        manifest = read_record(path, Manifest)
        if (manifest["shard"], manifest["of"]) != (number, split.of):
            raise UsageError(
                f"{path.parent} holds shard {manifest['shard']} of {manifest['of']}: that one would count "
                f"twice, and shard {number} of {split.of} is missing"
            )
        found.append(manifest)
    if missing:
        raise UsageError(_gaps(folder, split, missing, script))
    return found


def _refuse_strangers(folder: Path, split: Split) -> None:
    known = {Shard(number, split.of).name for number in range(split.of)}
    for path in sorted((folder / "shards").glob("*/manifest.json")):
        if path.parent.name not in known:
            raise UsageError(
                f"{path.parent} is none of the {split.of} shards of this run, whose folders are 0-of-{split.of} to "
                f"{split.of - 1}-of-{split.of}: a copy, or of another split. Move it away"
            )


def _gaps(folder: Path, split: Split, missing: Sequence[int], script: str) -> str:
    """Which shards are missing, why if that is known, and how to run only these."""
    names = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
    started = [n for n in missing if (shard_folder(folder, Shard(n, split.of)) / "owner.json").is_file()]
    state = f" ({len(started)} of them were started and have not ended)" if started else ""
    tasks = array_of([split.task(number) for number in missing])
    retry = f"sbatch --array={tasks} {script}"
    return (
        f"{folder}: {len(missing)} of {split.of} shards are missing: {names}{state}. Run these alone with\n"
        f"    {retry}\nor each with `av-bench run ... --shard {missing[0]}/{split.of}`, then merge again"
    )


def _check(plan: RunPlan, split: Split, manifests: Sequence[Manifest]) -> None:
    """All shards are of this code, of the same paths, and for the same metrics."""
    ours = code()
    for number, manifest in enumerate(manifests):
        where = shard_folder(plan.folder.path, Shard(number, split.of))
        again = f"remove {where} and run that shard again"
        if found := differing(ours, manifest["code"]):
            raise UsageError(f"{where} was made by other code: {', '.join(found)}; merge with the same, or {again}")
        if found := differing(manifests[0]["paths"], manifest["paths"]):
            raise UsageError(
                f"{where} read and wrote elsewhere than shard 0: {', '.join(found)} (host {manifest['host']}, shard 0: "
                f"{manifests[0]['host']}); all shards need the same paths: {again}"
            )
        first, its = (found["options"].get("metrics") for found in (manifests[0], manifest))
        if first != its:
            both = f"{metrics_text(its)} (shard 0: {metrics_text(first)})"
            raise UsageError(
                f"{where} was run with other --metrics than shard 0: {both}; all shards need the same: {again}"
            )


def _join(plan: RunPlan, split: Split, manifests: Sequence[Manifest]) -> Done:
    """Ledgers and inputs of all shards as those of the run; what became of each clip."""
    done, generators, ledger = Done(), set[str](), b""
    media: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for number, manifest in enumerate(manifests):
        shard = RunFolder(shard_folder(plan.folder.path, Shard(number, split.of)), plan.folder.path)
        shard.open(plan.spec, f"{AS_IT_WAS}, or remove that folder and run the shard again")
        clips = read_outcomes(shard.path / "clips.jsonl", manifest["sha256"], plan.folder.audio)
        done.add(Finished(tuple(clips), manifest["extra"], manifest["network_runs"], {}))
        inputs = shard.inputs()
        media |= inputs.get("media", {})
        samples |= inputs.get("samples", {})
        generators |= {inputs["generator"]} if "generator" in inputs else set()
        ledger += _lines(shard.path / "ledger.jsonl")
    _refuse_gaps(plan, done)
    if len(generators) > 1:
        raise UsageError(
            f"{plan.folder.path}: shards were generated with different weights; run them again with the same"
        )
    plan.folder.open(plan.spec, AS_IT_WAS)  # not before all shards fit: what is refused leaves the folder as it was
    plan.folder.refuse_to_lose([metric.name for metric in plan.measurement.metrics])
    write_atomically(plan.folder.path / "ledger.jsonl", ledger)
    made_from: dict[str, Any] = {"media": media, "samples": samples} if media or samples else {}
    plan.folder.write_json("inputs.json", made_from | ({"generator": generators.pop()} if generators else {}))
    return done


def _lines(path: Path) -> bytes:
    """A shard's ledger with its last line ended; one without clips has none."""
    found = path.read_bytes() if path.is_file() else b""
    return found if not found or found.endswith(b"\n") else found + b"\n"


def _refuse_gaps(plan: RunPlan, done: Done) -> None:
    """Every clip of the list is in one shard, and every sample that a shard wrote is still there."""
    ids = {clip.id for clip in plan.clips.clips}
    lacking = sorted(ids - set(done.clips))
    if lacking:
        raise UsageError(
            f"{plan.folder.path}: the list has grown since its shards were run, e.g. by {lacking[0]}; run them again"
        )
    audio = plan.folder.audio
    there = {path.name for path in audio.iterdir()} if audio.is_dir() else set()
    for clip in done.clips.values():
        for medium in clip.generated:
            if medium.problem is None and medium.path.parent == audio and medium.path.name not in there:
                raise UsageError(f"{medium.path} is gone, though its shard wrote it; run that shard again")
