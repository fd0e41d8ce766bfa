"""Samples of a run: whatever source they come from, each (clip, k) ends as a file or as a reason."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from collections.abc import Generator as Yields
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

import model_zoo
from av_bench.contracts import (
    Clip,
    Generated,
    GenerationJob,
    Generator,
    MediaError,
    Reason,
    SampleKey,
    SampleSource,
    UsageError,
    plugin_boundary,
)
from av_bench.features.identify import identify
from av_bench.features.sides import MediaFile
from av_bench.pipeline.own_samples import refuse_changed_samples
from av_bench.results.ledger import entry
from av_bench.runtime.cores import default_workers, torch_threads
from av_bench.runtime.files import home, inside, write_atomically
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter, Stage

if TYPE_CHECKING:
    from av_bench.pipeline.plan import RunPlan

Line = dict[str, Any]  # of the ledger
Result = TypeVar("Result")
Lines = Yields[Line, None, Result]


def sample_source(model: str | None, samples: Path | None, pattern: str | None = None) -> SampleSource:
    """What a run asks for: a model, a folder of samples, or a baseline's published samples."""
    if samples is not None and model is not None:
        from model_zoo.load import load_samples

        if pattern is not None:
            raise UsageError(f"--pattern and --model {model}: the manifest says how its samples are named; give one")
        return load_samples(model, samples)
    if samples is not None:
        from model_zoo.samples import SampleFolder

        return SampleFolder(samples, pattern=pattern)
    return model_zoo.load(str(model))


_SUFFIXES = (".flac", ".wav")


@dataclass(frozen=True)
class SampleFiles:
    """The files of a run's ``audio`` folder: ``<id>.flac`` or ``.wav``, or ``<id>~<k>`` with several per clip."""

    folder: Path
    per_clip: int
    written: dict[str, str] = field(default_factory=dict)  # name of a file that was written now -> its sha256

    def stem(self, key: SampleKey) -> str:
        """File name without its suffix."""
        return key[0] if self.per_clip == 1 else f"{key[0]}~{key[1]}"

    def find(self, key: SampleKey, names: Container[str] | None = None) -> Path | None:
        """A file of a sample, with one of ``names`` where they are given."""
        there = (self.folder / name for name in self.names(key) if names is None or name in names)
        return next((path for path in there if path.is_file()), None)

    def names(self, key: SampleKey) -> list[str]:
        """Names that the file of a sample may have."""
        return [f"{self.stem(key)}{suffix}" for suffix in _SUFFIXES]

    def has(self, clip_id: str) -> bool:
        """Whether any sample of a clip is there."""
        return any(self.find((clip_id, k)) for k in range(self.per_clip))

    def place(self, clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        """Keep a finished file, and no other of the same sample."""
        path = inside(self.folder, f"{self.stem((clip_id, k))}{suffix}")
        self.written[path.name] = hashlib.sha256(payload).hexdigest()
        write_atomically(path, payload)
        for other in _SUFFIXES:
            if other != suffix:
                path.with_name(f"{self.stem((clip_id, k))}{other}").unlink(missing_ok=True)
        return path


def sample_files(plan: RunPlan) -> SampleFiles:
    """The sample files of a run's folder."""
    return SampleFiles(plan.folder.audio, plan.options.samples_per_clip)


def collect_samples(
    plan: RunPlan, clips: Sequence[Clip], known: Mapping[str, Set[str]], folder: Path, reporter: Reporter
) -> Lines[list[MediaFile]]:
    """Have every missing sample made, or found, and return the file of every (clip, k); those without carry why.

    Yields lines for the ledger. ``known`` are the samples of earlier starts (``own_samples.recorded``), ``folder`` is
    for files of the source's own.
    """
    files = sample_files(plan)
    keys = [(clip, k) for clip in clips for k in range(files.per_clip)]
    there = {(clip.id, k): path for clip, k in keys if (path := files.find((clip.id, k), known)) is not None}
    todo = tuple((clip, k) for clip, k in keys if (clip.id, k) not in there)
    earlier = {key: MediaFile(key[0], path, key[1]) for key, path in there.items()}
    store = plan.options.store or home() / "store"
    identify(list(earlier.values()), plan.options.workers or default_workers(), store)
    refuse_changed_samples(plan, list(earlier.values()), known)
    job = GenerationJob(
        clips=tuple(clips),
        todo=todo,
        seed=plan.options.seed,
        samples=files.per_clip,
        device=plan.options.device,
        folder=folder,
        place=files.place,
        units=plan.units,
    )
    with reporter.stage("generate", len(keys)) as stage:
        stage.advance(len(keys) - len(todo))
        settled = yield from _settle(plan, job, files, stage)
    return [
        earlier.get((clip.id, k)) or _medium(clip, k, files, settled, plan.windows.get(clip.id)) for clip, k in keys
    ]


def flag_samples(source: SampleSource, media: Sequence[MediaFile]) -> None:
    """Add the source's remarks to the samples that can be used; the source sees all of them at once."""
    usable = {(m.id, m.sample): m for m in media if m.problem is None}
    for key, flag in source.flags({key: m.path for key, m in usable.items()}).items():
        usable[key].flags.append(flag)


def _settle(plan: RunPlan, job: GenerationJob, files: SampleFiles, stage: Stage) -> Lines[dict[SampleKey, Generated]]:
    """What the source gave for each missing (clip, k): audio is written, and a line for the ledger is yielded."""
    settled: dict[SampleKey, Generated] = {}
    wanted = {(clip.id, k) for clip, k in job.todo}
    started = time.perf_counter()
    for item in _produced(plan, job):
        key = (item.clip_id, item.sample)
        seconds, started = time.perf_counter() - started, time.perf_counter()
        if key in wanted:
            first = key not in settled
            settled[key], lines = _keep(files, checked(item), seconds)
            yield from lines
            stage.advance(first)
    plan.source.finish(job)
    return settled


def _produced(plan: RunPlan, job: GenerationJob) -> Iterator[Generated]:
    """The source's samples; an exception of a plugin names the model and the clip after which it came."""
    if not job.todo:
        return
    source, last = _samples_of(plan, job), "before the first sample"
    while True:
        with plugin_boundary(f"model {plan.spec.model} ({type(plan.source).__module__}), {last}"):
            try:
                item = next(source)
            except StopIteration:
                return
        last = f"after clip {item.clip_id}"
        yield item


def _samples_of(plan: RunPlan, job: GenerationJob) -> Iterator[Generated]:
    """``produce``; for a generator of small operations on a CPU, clip by clip on several threads."""
    source = plan.source
    if not several_clips_at_once(source, job.device):
        yield from source.produce(job)
        return
    assert isinstance(source, Generator)
    generate, workers = source.generate, plan.options.workers or default_workers()
    lacking = list(dict.fromkeys(clip for clip, _ in job.todo))

    def made(clip: Clip) -> list[Generated]:
        return list(generate([clip], job.seed, job.samples))

    with torch_threads(1):
        found = prefetch_map(made, lacking, workers, 2 * workers) if workers > 1 else map(made, lacking)
        for samples in found:
            yield from samples


def several_clips_at_once(source: SampleSource, device: str) -> bool:
    """Whether clips are generated by several threads at once, each on one thread."""
    return (
        isinstance(source, Generator)
        and source.small
        and type(source).produce is Generator.produce
        and device.partition(":")[0] == "cpu"
    )


def _keep(files: SampleFiles, item: Generated, seconds: float) -> tuple[Generated, list[Line]]:
    """Write a sample that is audio, say what became of it, and drop an older file of one that failed after all."""
    key = (item.clip_id, item.sample)
    more: dict[str, Any] = {"k": item.sample}
    if item.timings:
        more["timings"] = dict(item.timings)
    if item.audio is not None:
        rate = int(item.sample_rate or 0)
        path = files.place(*key, *encoded(item.audio, rate))
        more |= {"seconds": round(seconds, 4), "file": path.name, "sha256": files.written[path.name]}
        loud = path.suffix == ".wav"
        reason, detail = (Reason.CLIPPED, "above full scale: kept as float wav") if loud else (None, "")
        line = entry(item.clip_id, "generate", reason, detail, more)
        return Generated(*key, path=path, sample_rate=rate, timings=item.timings), [line]
    if item.path is None:
        if (stale := files.find(key)) is not None:
            stale.unlink()
        if item.reason is Reason.MISSING_SAMPLE:  # said once, when the clip is left out
            return item, []
        return item, [entry(item.clip_id, "generate", item.reason or Reason.GENERATOR_FAILED, item.detail, more)]
    if item.path.parent != files.folder:
        return item, []  # scored in place
    more |= {"file": item.path.name, "sha256": files.written.get(item.path.name)}
    return item, [entry(item.clip_id, "generate", None, "", more)]


def _medium(
    clip: Clip, k: int, files: SampleFiles, settled: dict[SampleKey, Generated], seconds: float | None
) -> MediaFile:
    item, path = settled.get((clip.id, k)), files.find((clip.id, k))
    if item is not None and item.path is not None:
        path = item.path
    if path is not None:
        made = files.written.get(path.name) if path.parent == files.folder else None
        return MediaFile(clip.id, path, k, made=made, seconds=seconds)
    medium = MediaFile(clip.id, files.folder / f"{files.stem((clip.id, k))}.flac", k, seconds=seconds)
    reason = item.reason if item is not None and item.reason is not None else Reason.GENERATOR_FAILED
    detail = item.detail if item is not None else "the model gave no sample"
    medium.problem = MediaError(clip.id, reason, detail)
    return medium


def checked(item: Generated) -> Generated:
    """Turn audio that cannot be a sample into its reason."""
    problem: tuple[Reason, str] | None = None
    if item.audio is None:
        return item
    if item.audio.ndim != 2 or item.audio.numel() == 0:
        problem = (Reason.EMPTY, f"(channels, samples) is expected, got {tuple(item.audio.shape)}")
    elif not item.sample_rate or item.sample_rate < 1:
        problem = (Reason.GENERATOR_FAILED, f"sample rate {item.sample_rate!r}")
    elif not bool(torch.isfinite(item.audio).all()):
        problem = (Reason.NOT_FINITE, "the sample holds NaN or infinite values")
    if problem is None:
        return item
    return Generated(item.clip_id, item.sample, reason=problem[0], detail=problem[1])


def encoded(audio: torch.Tensor, sample_rate: int) -> tuple[bytes, str]:
    """``(channels, samples)`` as 24-bit FLAC, or as float WAV when it exceeds full scale (nothing is clipped).

    Returns the content of the file and its suffix.
    """
    import soundfile

    data = np.ascontiguousarray(audio.cpu().numpy().T, dtype=np.float32)
    loud = float(np.abs(data).max()) >= 1.0 or data.shape[1] > 8
    sink = io.BytesIO()
    kind = {"format": "WAV", "subtype": "FLOAT"} if loud else {"format": "FLAC", "subtype": "PCM_24"}
    soundfile.write(sink, data, sample_rate, **kind)
    return sink.getvalue(), ".wav" if loud else ".flac"


def describe(plan: RunPlan) -> dict[str, Any]:
    """What run.json says about the model: conditions, training sets, parameters, seconds per sample."""
    model = plan.source
    notes: dict[str, Any] = {"conditions": sorted(model.conditions), "training_sets": list(model.training_sets)}
    if model.parameters is not None:
        notes["parameters"] = {"count": int(model.parameters), "source": "measured"}
    if model.metric_networks:
        notes["metric_networks_used"] = dict(model.metric_networks)
    notes |= model.describe(plan.folder.external())
    timings = [line["timings"] for line in plan.folder.last_generated().values() if "timings" in line]
    if timings:
        totals = [sum(parts.values()) for parts in timings]
        names = sorted({name for parts in timings for name in parts})
        notes["seconds_per_sample"] = {
            "mean": float(np.mean(totals)),
            "n": len(totals),
            "parts": {name: float(np.mean([parts.get(name, 0.0) for parts in timings])) for name in names},
            "how": "batch of one, warm, without reading and writing files"
            + (", one thread for each clip" if several_clips_at_once(model, plan.options.device) else ""),
            "device": plan.options.device,
        }
        if len(totals) > 1:
            notes["seconds_per_sample"]["sd"] = float(np.std(totals, ddof=1))
    return notes
