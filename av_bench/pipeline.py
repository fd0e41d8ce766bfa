"""plan -> reference features -> generate -> generated features -> score -> record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protocols
from av_bench import dedup, generation, muxing, scoring
from av_bench.accounts import Table
from av_bench.contracts import Clip, ClipSet, Flavour, MediaError, Need, Reason, Side, UsageError
from av_bench.engines.local import default_workers
from av_bench.features import Extraction, Medium, RealSide
from av_bench.networks import Networks
from av_bench.progress import Reporter, Stage
from av_bench.record import SCHEMA, RunFolder, RunSpec, environment
from av_bench.reference import Reference
from av_bench.reference import read as read_reference
from av_bench.store import FeaturesLost, Store, home
from protocols.load import SetRequest, read_clips

DEFAULT_SEED = 14159265  # the published evaluation's seed


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do; the CLI's flags, one for one."""

    set: str
    model: str | None = None
    samples: Path | None = None
    label: str | None = None
    data: Path | None = None
    table: Path | None = None
    lists: Path | None = None
    out: Path | None = None
    limit: int | None = None
    seed: int = DEFAULT_SEED
    samples_per_clip: int = 1
    flavour: Flavour | None = None
    protocol: str | None = None
    metrics: tuple[str, ...] | None = None
    device: str = "cpu"
    workers: int | None = None
    one_network: bool = False
    offline: bool = False
    min_coverage: float = 1.0
    store: Path | None = None
    reference: Path | None = None
    dedup: Path | None = None
    videos: bool | None = None
    quiet: bool = False


@dataclass(frozen=True)
class RunResult:
    """Where the record is, what it says, and the exit code (0, or 3 below ``min_coverage``)."""

    path: Path
    scores: dict[str, Any]
    exit_code: int


@dataclass
class Plan:
    """Everything decided before work starts; building it refuses what cannot work."""

    options: RunOptions
    protocol: protocols.Protocol
    flavour: Flavour
    clips: ClipSet
    columns: list[Any]
    networks: Networks
    generator: Any
    spec: RunSpec
    folder: RunFolder
    reference: Reference | None = None


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


def make_plan(options: RunOptions, reporter: Reporter, generator: Any = None) -> Plan:
    """Resolve names, read the set, check extractors and generator."""
    _check(options)
    if options.offline:
        os.environ["AV_BENCH_OFFLINE"] = "1"  # read wherever something could be fetched
    definition = protocols.load_set(options.set)
    protocol = protocols.load_protocol(options.protocol or definition.protocol)
    flavour: Flavour = options.flavour or protocol.flavour
    columns = scoring.columns(protocol, options.metrics)
    reference = read_reference(options.reference) if options.reference is not None else None
    needs = [n for c in columns for n in c.needs]
    networks = Networks(needs, options.device, flavour)
    networks.check(protocol.seconds)  # what is missing or does not fit fails here, in the first second
    generator = generator or generation.generator(options.model, options.samples)
    with reporter.stage("set", 0):
        clips = _read_set(definition, options, reporter)
    if reference is not None:
        reference.check(clips, protocol, flavour, networks)
    if options.store is not None and getattr(generator, "store", None) is not None:
        generator.store = Store(options.store)
    if hasattr(generator, "place"):
        generator.place(options.device)
    generator.setup(clips, protocol.seconds, options.seed)
    spec = RunSpec(
        model=options.model or "samples",
        set=clips.name,
        set_version=clips.version,
        list_hash=clips.list_hash,
        protocol=protocol.name,
        protocol_version=protocol.version,
        flavour=flavour,
        seed=options.seed,
        samples_per_clip=options.samples_per_clip,
        samples=str(options.samples.resolve()) if options.samples else None,
        reference=reference.digest if reference else None,
        dedup=dedup.overlap_hash(options.dedup),
    )
    row = options.label or _row_name(options)
    default = Path("runs") / f"{clips.name}-{_file_name(row)}-{spec.digest}"
    folder = RunFolder(options.out or default)
    return Plan(options, protocol, flavour, clips, columns, networks, generator, spec, folder, reference)


def _check(options: RunOptions) -> None:
    if options.model is None and options.samples is None:
        raise UsageError("give either --model NAME or --samples DIR (`av-bench list models` shows the names)")
    if options.samples_per_clip < 1:
        raise UsageError(f"--samples-per-clip must be at least 1, got {options.samples_per_clip}")
    if not 0.0 <= options.min_coverage <= 1.0:
        raise UsageError(f"--min-coverage must lie between 0 and 1, got {options.min_coverage:g}")
    if options.flavour not in (None, "paper", "strict"):
        raise UsageError(f"--flavour must be paper or strict, got {options.flavour!r}")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1, got {options.workers}")
    if options.samples and options.data and options.samples.resolve() == options.data.resolve():
        raise UsageError(f"--samples and --data are the same folder {options.data}: the reference would score itself")
    from av_bench.devices import check_device

    check_device(options.device)


def _read_set(definition: protocols.SetDefinition, options: RunOptions, reporter: Reporter) -> ClipSet:
    render: Stage | None = None

    def progress(done: int, total: int) -> None:
        nonlocal render
        if render is None:
            if done < total:
                reporter.say(f"set {definition.name}: rendering {total - done} clips, once (about 3 per second)")
            render = Stage("render", total, reporter.quiet)
        render.advance(done - render.done)

    request = SetRequest(options.data, options.table, options.lists, options.limit, options.workers, progress)
    return read_clips(definition, request)


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in text)


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
    real = _real_side(plan, extraction, definition)
    plan.networks.release("reference", "video")
    _same_media(plan, real)
    usable = [c for c in plan.clips.clips if real.problem(c.id) is None]
    generation.generate(plan, usable, reporter)
    samples = generation.collect(plan, usable)
    names = plan.networks.of("generated")
    extraction.media([m for m in samples.media if m.problem is None], "generated", names, audio=True, video=False)
    plan.networks.release("reference", "video", "generated")
    table = Table(plan.clips.clips, real, samples)
    scored = table.scored(options.samples_per_clip)
    sides: tuple[Side, ...] = ("generated", "reference")
    for name in sides:
        pairs = table.pairs(scored, name)
        extraction.pairs(pairs, [n for n in plan.networks.pairs(name) if scoring.has_inputs(plan, real, n, name)])
    texts = [c.text for c in scored if c.text is not None]
    extraction.texts(texts, plan.networks.of("text"))
    with reporter.stage("score", 0):
        scores, rows = scoring.score(plan, extraction, table, scored)
    wanted = getattr(plan.generator, "watch", False) if options.videos is None else options.videos
    if wanted:
        muxing.videos(plan.folder.path / "videos", scored, table, plan.protocol.seconds, reporter)
    _record(plan, extraction, table, scored, scores, rows, reporter)
    covered = len(scored) / len(plan.clips.clips)
    complete = covered >= options.min_coverage and bool(scores["metrics"])
    return RunResult(plan.folder.path, scores, 0 if complete else 3)


def _real_side(plan: Plan, extraction: Extraction, definition: protocols.SetDefinition) -> RealSide:
    """The real side: the clips' own media, or a reference pack that stands for them."""
    clips, pack = plan.clips.clips, plan.reference
    if pack is None:
        real = real_media(clips, extraction, definition.reference_audio)
    elif not pack.features:
        real = real_media(clips, extraction, False)
    else:
        needs = list(scoring.with_inputs(plan.columns, plan.networks))
        sounds = pack.media(clips, needs, extraction.store, plan.networks, extraction.seconds)
        real = RealSide(sounds, sounds, seen=all(pack.covers(n) for n in needs if n.side == "video"))
        if not real.seen and all(c.video is not None and c.video.is_file() for c in clips):
            real = RealSide(real_media(clips, extraction, False).pictures, sounds)
    if "onsets" in definition.options:
        for clip in clips:
            if clip.onsets is None and real.problem(clip.id) is None and real.media(clip.id):
                detail = "its file of onset times is not there"
                real.media(clip.id)[0].problem = MediaError(clip.id, Reason.MISSING_FILE, detail)
    return real


def _same_media(plan: Plan, real: RealSide) -> None:
    """Refuse to score samples that an earlier start made for other media, or with other weights.

    What every start of a run was made from is kept in ``inputs.json``. A user's own samples are read anew each time,
    and a clip that has no sample yet may have got another medium: it was broken, and is mended.
    """
    if plan.options.samples is not None:
        return
    digests = {c.id: [m.digest for m in real.media(c.id) if m.digest] for c in plan.clips.clips}
    media = {clip_id: found for clip_id, found in digests.items() if found}
    weights = str(getattr(plan.generator, "identity", ""))
    known = plan.folder.inputs()
    earlier = known.get("media", {})
    changed = [i for i, found in media.items() if earlier.get(i, found) != found and generation.has_sample(plan, i)]
    if changed:
        raise UsageError(
            f"{plan.folder.path} holds samples that were made before the media of {len(changed)} clips changed, e.g. "
            f"{changed[0]}; choose another --out or remove that folder"
        )
    if known.get("generator", weights) != weights:
        raise UsageError(
            f"{plan.folder.path} holds samples of {plan.spec.model} with other weights; choose another --out or remove "
            "that folder"
        )
    plan.folder.write_json("inputs.json", {"generator": weights, "media": earlier | media})


def real_media(clips: Sequence[Clip], extraction: Extraction, has_audio: bool) -> RealSide:
    """Media of the real side, extracted. Separate audio files are handled after the videos."""
    networks = extraction.networks
    audio_names, video_names = networks.of("reference") if has_audio else [], networks.of("video")
    joint = {c.id: Medium(c.id, c.video) for c in clips if c.video is not None}
    apart = {c.id: Medium(c.id, c.audio) for c in clips if c.audio is not None and has_audio}
    together = [m for i, m in joint.items() if i not in apart]
    extraction.media(together, "reference", [*audio_names, *video_names], audio=has_audio, video=True)
    alone = [m for i, m in joint.items() if i in apart]
    if alone:
        extraction.media(alone, "video", video_names, audio=False, video=True)
    if apart:
        extraction.media(list(apart.values()), "reference", audio_names, audio=True, video=False)
    return RealSide(joint, {**{m.id: m for m in together}, **apart} if has_audio else {})


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
        "spec": {**vars(plan.spec), "label": plan.options.label or _row_name(plan.options)},
        "environment": environment(plan.options.device),
        "precision": "fp32",
        "generator": generation.describe(plan),
        "extractors": {name: plan.networks.fingerprint(name) for name in plan.networks.names},
        "seconds": seconds,
        "clips_per_second": {k: round(len(scored) / s, 3) for k, s in seconds.items() if s > 0.01 and len(scored)},
        "network_runs": extraction.forwards,
    }
    folder.write_json("run.json", info)


def _row_name(options: RunOptions) -> str:
    if options.samples is not None and options.model is None:
        return options.samples.resolve().name
    name, colon, rest = str(options.model).partition(":")
    return (Path(name).stem if name.endswith((".yaml", ".yml")) else name) + colon + rest


__all__ = ["MediaError", "Need", "Plan", "RunOptions", "RunResult", "make_plan", "run"]
