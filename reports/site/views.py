"""What the pages show, gathered from run folders and media."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import Clip
from av_bench.results.ledger import read_ledger
from av_bench.results.record import Run, by_clip
from reports import spectrograms
from reports.advice import what_to_do
from reports.site.choose import Choice

REAL = "real"
Detect = Callable[[NDArray[np.float32], int], Sequence[float]]


class Media(Protocol):
    """Where sounds come from (``av_bench.pipeline.clip_media.ClipMedia``)."""

    seconds: float

    def clip(self, clip_id: str) -> Clip: ...
    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None: ...
    def link(self, name: str, clip_id: str) -> Path | None: ...
    def write(self, name: str, clip_id: str, target: Path) -> Path | None: ...


@dataclass(frozen=True)
class Metric:
    """A metric with a value per clip."""

    name: str
    higher_is_better: bool
    unit: str


@dataclass(frozen=True)
class Sound:
    """One sound of a clip: what plays it, its spectrogram, and onsets detected in it (s)."""

    key: str
    name: str
    file: str | None
    strip: str | None
    detected: tuple[float, ...] = ()


@dataclass(frozen=True)
class Value:
    """A number of one clip with its place among the models (1 is best)."""

    number: float
    rank: int | None


@dataclass(frozen=True)
class ClipView:
    """One clip of the clips page. ``values``: model key -> metric -> value."""

    anchor: str
    id: str
    text: str
    label: str
    why: str
    onsets: tuple[float, ...]
    sounds: tuple[Sound, ...]
    values: dict[str, dict[str, Value]]
    reasons: tuple[str, ...]
    picture: bool


@dataclass(frozen=True)
class Failure:
    """A clip that was left out of a run, or flagged in it."""

    model: str
    clip: str
    stage: str
    reason: str
    detail: str
    todo: str
    excluded: bool


@dataclass
class Model:
    """One run of the report."""

    key: str  # m0, m1 ...
    name: str
    run: Run
    values: dict[str, dict[str, float]] = field(default_factory=dict)  # metric -> clip -> value


def models(runs: Sequence[Run]) -> list[Model]:
    """The runs with their per-clip values; two of one name are distinguished by their folders."""
    names = [run.name for run in runs]
    found = []
    for i, run in enumerate(runs):
        name = run.name if names.count(run.name) == 1 else f"{run.name} ({run.path.name})"
        frame = run.values()
        values = {str(metric): by_clip(frame[metric]) for metric in frame.columns}
        found.append(Model(f"m{i}", name, run, values))
    return found


def metrics(found: Sequence[Model]) -> list[Metric]:
    """Metrics with a value per clip, in the protocols' order."""
    known: dict[str, Metric] = {}
    for model in found:
        for name in model.run.scores["protocol"]["metrics"]:
            entry = model.run.scores["metrics"].get(name)
            if name in model.values and entry is not None:
                known.setdefault(name, Metric(name, bool(entry["higher_is_better"]), entry["unit"]))
    return list(known.values())


def failures(found: Sequence[Model]) -> list[Failure]:
    """What the ledgers say of clips that are left out or flagged, once each."""
    lines = []
    for model in found:
        for _, line in read_ledger(model.run.path / "ledger.jsonl"):
            if line.get("status") in ("excluded", "flagged"):
                reason, detail = str(line.get("reason", "")), str(line.get("detail", ""))
                about = (str(line.get("clip", "")), str(line.get("stage", "")), reason, detail, what_to_do(reason))
                lines.append(Failure(model.name, *about, line["status"] == "excluded"))
    return sorted(dict.fromkeys(lines), key=lambda f: (not f.excluded, f.model, f.reason, f.clip))


def clip_view(
    number: int,
    choice: Choice,
    found: Sequence[Model],
    asked: Sequence[Metric],
    media: Media,
    out: Path,
    detect: Detect,
    reasons: Sequence[str],
    link: bool,
) -> ClipView:
    """Everything the clips page shows of one clip; its media and pictures are written into ``out``/media."""
    anchor = f"c{number:04d}"
    clip = media.clip(choice.clip)
    waves = {REAL: media.waveform(REAL, clip.id, spectrograms.RATE)}
    waves |= {m.key: media.waveform(str(m.run.path), clip.id, spectrograms.RATE) for m in found}
    strips = {key: spectrograms.strip(wave) for key, wave in waves.items() if wave is not None}
    loudest = max((s.loudest for s in strips.values()), default=0.0)
    sounds = []
    for key, name, source in [(REAL, "real", REAL), *((m.key, m.name, str(m.run.path)) for m in found)]:
        wave = waves[key]
        if wave is None:
            continue
        target = out / "media" / f"{anchor}-{key}"
        file = _linked(media, source, clip.id) if link else _name(media.write(source, clip.id, target))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".png").write_bytes(spectrograms.png(strips[key], loudest))
        detected = tuple(round(float(t), 3) for t in detect(wave, spectrograms.RATE))
        sounds.append(Sound(key, name, file, f"media/{anchor}-{key}.png", detected))
    onsets = tuple(t for t in clip.onsets or () if t < media.seconds)
    values = _values(clip.id, found, asked)
    about = (anchor, clip.id, clip.text or "", clip.label or "", choice.why, onsets, tuple(sounds), values)
    return ClipView(*about, tuple(reasons), clip.video is not None)


def _name(path: Path | None) -> str | None:
    return None if path is None else f"media/{path.name}"


def _linked(media: Media, source: str, clip_id: str) -> str | None:
    path = media.link(source, clip_id)
    return None if path is None else path.resolve().as_uri()


def _values(clip_id: str, found: Sequence[Model], asked: Sequence[Metric]) -> dict[str, dict[str, Value]]:
    table: dict[str, dict[str, Value]] = {m.key: {} for m in found}
    for metric in asked:
        numbers = {m.key: m.values.get(metric.name, {}).get(clip_id) for m in found}
        there = sorted({n for n in numbers.values() if n is not None}, reverse=metric.higher_is_better)
        for key, number in numbers.items():
            if number is not None:
                rank = there.index(number) + 1 if len(found) > 1 else None
                table[key][metric.name] = Value(number, rank)
    return table
