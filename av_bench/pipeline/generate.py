"""Generate samples into the run folder, or find a user's own, and keep account of every (clip, k)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import model_zoo
from av_bench.contracts import Clip, Generated, MediaError, Reason
from av_bench.features.extraction import BATCH
from av_bench.features.sides import Medium, Samples
from av_bench.runtime.files import write_atomically
from av_bench.runtime.progress import Reporter, Stage

if TYPE_CHECKING:
    from av_bench.pipeline.plan import Plan


def generator(model: str | None, samples: Path | None) -> Any:
    """The generator a run asks for: a model, a folder of samples, or a baseline's published samples."""
    if samples is not None and model is not None:
        from model_zoo.load import load_samples

        return load_samples(model, samples)
    if samples is not None:
        from model_zoo.samples import Samples as FolderOfSamples

        return FolderOfSamples(samples)
    return model_zoo.load(str(model))


def sample_stem(clip_id: str, sample: int, per_clip: int) -> str:
    """File stem of one sample."""
    return clip_id if per_clip == 1 else f"{clip_id}~{sample}"


def existing(folder: Path, stem: str) -> Path | None:
    """A finished file of the run folder."""
    return next((p for p in (folder / f"{stem}.flac", folder / f"{stem}.wav") if p.is_file()), None)


def has_sample(plan: Plan, clip_id: str) -> bool:
    """Whether the run folder holds a sample of a clip."""
    per_clip = plan.options.samples_per_clip
    return any(existing(plan.folder.audio, sample_stem(clip_id, k, per_clip)) for k in range(per_clip))


def generate(plan: Plan, clips: Sequence[Clip], reporter: Reporter) -> None:
    """Fill ``<run>/audio``. Finished files are kept; batches are fixed by the list."""
    if plan.options.samples is not None:
        return
    per_clip, folder = plan.options.samples_per_clip, plan.folder.audio
    folder.mkdir(exist_ok=True)
    if hasattr(plan.generator, "produce"):
        with reporter.stage("generate", len(clips) * per_clip) as stage:
            _generate_elsewhere(plan, clips, stage)
        return
    size = getattr(plan.generator, "chunk", BATCH)  # a call is done again when one of its files is missing
    with reporter.stage("generate", len(clips)) as stage:
        for start in range(0, len(clips), size):
            batch = clips[start : start + size]
            stems = {(c.id, k): sample_stem(c.id, k, per_clip) for c in batch for k in range(per_clip)}
            if any(existing(folder, stem) is None for stem in stems.values()):
                _generate_batch(plan, batch, stems)
            stage.advance(len(batch))


def _generate_batch(plan: Plan, batch: Sequence[Clip], stems: dict[tuple[str, int], str]) -> None:
    folder = plan.folder.audio
    started = time.perf_counter()
    for item in plan.generator.generate(batch, plan.options.seed, plan.options.samples_per_clip):
        stem = stems[(item.clip_id, item.sample)]
        seconds, started = time.perf_counter() - started, time.perf_counter()
        if existing(folder, stem) is not None:
            continue
        item = checked(item)
        if item.audio is None:
            plan.folder.log(
                item.clip_id,
                "generate",
                reason=item.reason or Reason.GENERATOR_FAILED,
                detail=item.detail,
                k=item.sample,
            )
            continue
        path = write_audio(folder / stem, item.audio, int(item.sample_rate or 0))
        more: dict[str, Any] = {"seconds": round(seconds, 4), "file": path.name, "k": item.sample}
        if item.timings:
            more["timings"] = dict(item.timings)
        if path.suffix == ".wav":
            plan.folder.log(
                item.clip_id, "generate", reason=Reason.CLIPPED, detail="above full scale: kept as float wav", **more
            )
        else:
            plan.folder.log(item.clip_id, "generate", **more)


def _generate_elsewhere(plan: Plan, clips: Sequence[Clip], stage: Stage) -> None:
    """Samples of a generator in another environment: the whole rest of the list at once, files kept as they come."""
    per_clip, folder = plan.options.samples_per_clip, plan.folder.audio
    every = [(c, k) for c in clips for k in range(per_clip)]
    todo = [(c, k) for c, k in every if existing(folder, sample_stem(c.id, k, per_clip)) is None]
    stage.advance(len(every) - len(todo))
    job = plan.folder.path / "external"

    def place(clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = folder / f"{sample_stem(clip_id, k, per_clip)}{suffix}"
        write_atomically(path, payload)
        return path

    if todo:
        for item in plan.generator.produce(todo, plan.options.seed, per_clip, job, plan.options.device, place):
            more: dict[str, Any] = {"k": item.sample}
            if item.path is None:
                stale = existing(folder, sample_stem(item.clip_id, item.sample, per_clip))
                if stale is not None:
                    stale.unlink()
                reason = item.reason or Reason.GENERATOR_FAILED
                plan.folder.log(item.clip_id, "generate", reason=reason, detail=item.detail, **more)
            else:
                more |= {"file": item.path.name} | ({"timings": dict(item.timings)} if item.timings else {})
                plan.folder.log(item.clip_id, "generate", **more)
            stage.advance()
    plan.generator.finish(clips, plan.options.seed, per_clip, job)


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


def write_audio(stem: Path, audio: torch.Tensor, sample_rate: int) -> Path:
    """Write ``(channels, samples)`` as 24-bit FLAC, or as float WAV when it exceeds full scale (nothing is clipped)."""
    import io

    import soundfile

    data = np.ascontiguousarray(audio.cpu().numpy().T, dtype=np.float32)
    loud = float(np.abs(data).max()) >= 1.0 or data.shape[1] > 8
    path = stem.with_name(stem.name + (".wav" if loud else ".flac"))
    sink = io.BytesIO()
    kind = {"format": "WAV", "subtype": "FLOAT"} if loud else {"format": "FLAC", "subtype": "PCM_24"}
    soundfile.write(sink, data, sample_rate, **kind)
    write_atomically(path, sink.getvalue())
    return path


def collect(plan: Plan, clips: Sequence[Clip]) -> Samples:
    """The file of every (clip, k); what is missing carries the reason."""
    per_clip = plan.options.samples_per_clip
    samples = Samples()
    if plan.options.samples is not None:
        for item in plan.generator.generate(clips, plan.options.seed, per_clip):
            medium = Medium(item.clip_id, item.path or Path(item.clip_id), item.sample)
            if item.path is None:
                medium.problem = MediaError(item.clip_id, item.reason or Reason.MISSING_SAMPLE, item.detail)
            samples.media.append(medium)
        return samples
    words = _last_words(plan)
    for clip in clips:
        for k in range(per_clip):
            stem = sample_stem(clip.id, k, per_clip)
            path = existing(plan.folder.audio, stem)
            medium = Medium(clip.id, path or plan.folder.audio / f"{stem}.flac", k)
            if path is None:
                line = words.get((clip.id, k), {})
                reason = Reason(line.get("reason", Reason.GENERATOR_FAILED))
                detail = line.get("detail", "the generator gave no sample (see ledger)")
                medium.problem = MediaError(clip.id, reason, detail)
            samples.media.append(medium)
    if hasattr(plan.generator, "flags"):
        there = {(m.id, m.sample): m for m in samples.media if m.problem is None}
        for key, flag in plan.generator.flags({key: m.path for key, m in there.items()}).items():
            there[key].flags.append(flag)
    return samples


def _last_words(plan: Plan) -> dict[tuple[str, int], dict[str, Any]]:
    """The latest line of the ledger about the generation of each (clip, k)."""
    path = plan.folder.path / "ledger.jsonl"
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn by a kill; what it was about has been done again
        if line["stage"] == "generate" and "k" in line:
            found[line["clip"], line["k"]] = line
    return found


def describe(plan: Plan) -> dict[str, Any]:
    """What run.json says about the generator: conditions, training sets, parameters, seconds per sample."""
    model = plan.generator
    said: dict[str, Any] = {"conditions": sorted(model.conditions), "training_sets": list(model.training_sets)}
    if getattr(model, "parameters", None) is not None:
        said["parameters"] = {"count": int(model.parameters), "source": "measured"}
    if hasattr(model, "describe"):
        said |= model.describe(plan.folder.path / "external")
    timings = [line["timings"] for line in _last_words(plan).values() if "timings" in line]
    if timings:
        totals = [sum(parts.values()) for parts in timings]
        names = sorted({name for parts in timings for name in parts})
        said["seconds_per_sample"] = {
            "mean": float(np.mean(totals)),
            "n": len(totals),
            "parts": {name: float(np.mean([parts.get(name, 0.0) for parts in timings])) for name in names},
            "how": "batch of one, warm, without reading and writing files",
            "device": plan.options.device,
        }
        if len(totals) > 1:
            said["seconds_per_sample"]["sd"] = float(np.std(totals, ddof=1))
    return said
