"""From options to a plan: names resolved, set read, extractors and sample source checked before work starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import protocols
from av_bench.contracts import ClipSet, SampleSource, UsageError
from av_bench.features.reference_pack import read as read_reference
from av_bench.pipeline import clean_subset
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.generate import sample_source
from av_bench.pipeline.measure import measure
from av_bench.pipeline.plan import RunOptions, RunPlan
from av_bench.pipeline.preflight import refuse_missing
from av_bench.pipeline.reference_media import reads_videos
from av_bench.pipeline.windows import fit, with_seconds
from av_bench.pipeline.work import units_of
from av_bench.results.record import RunFolder, RunSpec
from av_bench.runtime.progress import Reporter, Stage
from protocols.definitions import SetRequest, recorded
from protocols.readers.read import read_clips

LONGEST_NAME = 60  # characters of a label in the name of a run folder


def make_plan(
    options: RunOptions, reporter: Reporter, source: SampleSource | None = None, *, idle: bool = False
) -> RunPlan:
    """Resolve names, read the set, check extractors and sample source. Raises AvBenchError for what cannot work.

    ``idle``: nothing will be computed on the device, so that it need not be here.
    """
    _check(options)
    place = options.place
    options = replace(options, device=place.devices[0])
    if not idle:
        place.check()
    definition = protocols.load_set(options.set)
    protocol, remark = choose_protocol(definition, options.protocol)
    protocol = with_seconds(protocol, options.seconds)
    if source is None:
        refuse_missing(options)
    reference = read_reference(options.reference) if options.reference is not None else None
    measurement = measure(protocol, options.metrics, options.device, options.flavour)
    source = source or sample_source(options.model, options.samples, options.pattern)
    with reporter.stage("set", 0):
        clips = _read_set(definition, options, reporter)
    if reference is not None:
        reference.check(clips, protocol, measurement.flavour, measurement.extractors)
    if options.store is not None:
        source.use_store(options.store)
    if place.local and not idle:  # else workers of their own have it
        source.place(options.device)
    source.setup(clips, protocol.seconds, options.seed)
    fitted, windows = fit(protocol, options.seconds, clips, source, options.workers)
    if fitted is not protocol:
        protocol = fitted
        measurement = replace(measurement, protocol=protocol)
        if windows:  # a clip that is too short for a network is excluded with the reason
            least = measurement.extractors.shortest
            windows = {clip_id: max(seconds, least) for clip_id, seconds in windows.items()}
        else:
            measurement.extractors.check(protocol.seconds)
        source.setup(clips, protocol.seconds, options.seed)
    spec = RunSpec(
        model=options.model or "samples",
        set=clips.name,
        set_version=clips.version,
        list_hash=clips.list_hash,
        protocol=protocol.name,
        protocol_version=protocol.version,
        flavour=measurement.flavour,
        seed=options.seed,
        samples_per_clip=options.samples_per_clip,
        samples=_samples(options),
        reference=reference.digest if reference else None,
        dedup=clean_subset.overlap_hash(options.dedup, clips.clips),
        definition=recorded(protocol, definition),
    )
    name = _file_name(options.label or row_name(options))[:LONGEST_NAME]
    default = Path("runs") / f"{clips.name}-{name}-{spec.digest}"
    folder = RunFolder(options.out or default)
    plan = RunPlan(options, definition, measurement, clips, source, spec, folder, reference, windows, remark)
    return replace(plan, units=units_of(clips.clips, options.device), reads_videos=reads_videos(plan))


def _samples(options: RunOptions) -> str | None:
    """A user's folder, with the pattern of its names."""
    if options.samples is None:
        return None
    return str(options.samples.resolve() / options.pattern) if options.pattern else str(options.samples.resolve())


def row_name(options: RunOptions) -> str:
    """Name of a run's row in tables, unless the user gives a label."""
    if options.samples is not None and options.model is None:
        return options.samples.resolve().name
    name, colon, rest = str(options.model).partition(":")
    return (Path(name).stem if name.endswith((".yaml", ".yml")) else name) + colon + rest


def _check(options: RunOptions) -> None:
    if options.model is None and options.samples is None:
        raise UsageError("give either --model NAME or --samples DIR (`av-bench list models` shows the names)")
    if options.samples_per_clip < 1:
        raise UsageError(f"--samples-per-clip must be at least 1, got {options.samples_per_clip}")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit must be at least 1, got {options.limit}")
    if not 0.0 <= options.min_coverage <= 1.0:
        raise UsageError(f"--min-coverage must lie between 0 and 1, got {options.min_coverage:g}")
    if options.flavour not in (None, "paper", "strict"):
        raise UsageError(f"--flavour must be paper or strict, got {options.flavour!r}")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1, got {options.workers}")
    if options.pattern is not None and options.samples is None:
        raise UsageError("--pattern says how the files of --samples are named; give --samples DIR")
    if options.samples and options.data and _same_folder(options.samples, options.data):
        raise UsageError(f"--samples and --data are the same folder {options.data}: the reference would score itself")


def _same_folder(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one of them is not there, or a loop of links; the reader reports it
        return False


def _read_set(definition: protocols.SetDefinition, options: RunOptions, reporter: Reporter) -> ClipSet:
    render: Stage | None = None

    def progress(done: int, total: int) -> None:
        nonlocal render
        if render is None:
            if done < total:
                reporter.say(f"set {definition.name}: rendering {total - done} clips, once (about 3 per second)")
            render = Stage("render", total, reporter.quiet)
        render.advance(done - render.done)

    request = SetRequest(
        options.data, options.table, options.lists, options.limit, options.workers, progress, reporter.say_once
    )
    return read_clips(definition, request)


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in text)
