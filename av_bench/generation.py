"""Generate samples into the run folder, or find a user's own, and keep account of every (clip, k)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import model_zoo
from av_bench.contracts import Clip, Generated, MediaError, Reason
from av_bench.features import BATCH, Medium
from av_bench.progress import Reporter
from av_bench.store import write_atomically

if TYPE_CHECKING:
    from av_bench.pipeline import Plan


@dataclass
class Samples:
    """The generated side: one Medium per (clip, k); those without a file carry their problem."""

    media: list[Medium] = field(default_factory=list)


def generator(model: str | None, samples: Path | None) -> Any:
    """The generator a run asks for."""
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


def generate(plan: Plan, clips: Sequence[Clip], reporter: Reporter) -> None:
    """Fill ``<run>/audio``. Finished files are kept; batches are fixed by the list."""
    if plan.options.samples is not None:
        return
    per_clip, folder = plan.options.samples_per_clip, plan.folder.audio
    folder.mkdir(exist_ok=True)
    with reporter.stage("generate", len(clips)) as stage:
        for start in range(0, len(clips), BATCH):
            batch = clips[start : start + BATCH]
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
        if path.suffix == ".wav":
            plan.folder.log(
                item.clip_id, "generate", reason=Reason.CLIPPED, detail="above full scale: kept as float wav", **more
            )
        else:
            plan.folder.log(item.clip_id, "generate", **more)


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
    for clip in clips:
        for k in range(per_clip):
            stem = sample_stem(clip.id, k, per_clip)
            path = existing(plan.folder.audio, stem)
            medium = Medium(clip.id, path or plan.folder.audio / f"{stem}.flac", k)
            if path is None:
                medium.problem = MediaError(
                    clip.id, Reason.GENERATOR_FAILED, "the generator gave no sample (see ledger)"
                )
            samples.media.append(medium)
    return samples
