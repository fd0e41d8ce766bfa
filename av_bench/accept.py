"""Acceptance: the first run on an installation that has the released files.

Nobody published what the released networks give on known inputs, so the report carries what they gave here: files with
their hashes, the outputs of every network on three rendered clips, and one sample of every MMAudio variant. Two reports
can be compared, and one can be sent in. A file that is absent is reported as absent; nothing stands in for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from av_bench import extractors, registry
from av_bench import weights as files
from av_bench.contracts import (
    DEFAULT_SEED,
    AvBenchError,
    Clip,
    ClipSet,
    Decoded,
    Extractor,
    GenerationJob,
    PairExtractor,
)
from av_bench.media.decode import decode
from av_bench.pipeline.needed import entries_for
from av_bench.weights.lock import LockEntry, load_lock

SECONDS = 8.0
CLIPS = 3
DIGITS = 4  # significant ones that count in a digest: other processors round differently behind them

Status = Literal["ok", "absent", "failed"]
Say = Callable[[str], Any]


@dataclass(frozen=True)
class Item:
    """One file, network or model: what became of it, and what it gave."""

    what: str
    status: Status
    detail: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that was tried."""

    files: tuple[Item, ...]
    networks: tuple[Item, ...]
    models: tuple[Item, ...]
    environment: Mapping[str, Any]

    @property
    def items(self) -> tuple[Item, ...]:
        """All of them."""
        return (*self.files, *self.networks, *self.models)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what is absent was not tried."""
        return all(item.status != "failed" for item in self.items)

    def as_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self) | {"passed": self.passed}, indent=1, sort_keys=True)


def accept(clips: ClipSet, out: Path, device: str = "cpu", say: Say = str) -> Report:
    """Check every file that is here, run every network whose files are here, sample every variant whose files are here.

    ``clips`` are the rendered clips; sample files go below ``out``; ``say`` is told each item as it is done.
    """
    from av_bench.results.record import environment

    clips = ClipSet(clips.name, clips.version, clips.clips[:CLIPS])
    found = tuple(_each(map(_file, load_lock().values()), say))
    networks = tuple(_each((_network(name, clips.clips, device) for name in _networks()), say))
    models = tuple(_each((_model(name, clips, out, device) for name in _models()), say))
    return Report(found, networks, models, environment(device))


def _each(items: Iterable[Item], say: Say) -> Iterator[Item]:
    for item in items:
        if item.status != "absent":
            say(f"{item.status:7} {item.what} {item.detail}".rstrip())
        yield item


def _file(entry: LockEntry) -> Item:
    """Every byte of a file against the lock."""
    if not entry.path.is_file():
        return Item(entry.name, "absent", f"av-bench weights pull {entry.name}")
    try:
        sha256 = files.check(entry, entry.path, fresh=True)
    except AvBenchError as error:
        return Item(entry.name, "failed", str(error))
    basis = "sha256" if entry.sha256 else "md5" if entry.md5 else "no published hash"
    return Item(entry.name, "ok", basis, {"sha256": sha256, "bytes": entry.path.stat().st_size})


def _networks() -> list[str]:
    """Extractors with weights of the lock file."""
    return [name for name in registry.names("extractors") if entries_for([name])]


def _models() -> list[str]:
    """Published MMAudio variants."""
    return [name for name in registry.names("models") if entries_for([name])]


def _lacking(name: str) -> str:
    lacking = [entry.name for entry in entries_for([name]) if not entry.path.is_file()]
    return f"lacks {', '.join(lacking)}" if lacking else ""


def _network(name: str, clips: tuple[Clip, ...], device: str) -> Item:
    """Load strictly, run on the clips, and say what came out."""
    lacking = _lacking(name)
    if lacking:
        return Item(name, "absent", lacking)
    try:
        outputs = _outputs(extractors.load(name, device=device), clips, device)
    except (AvBenchError, RuntimeError, ValueError, ImportError) as error:
        return Item(name, "failed", f"{type(error).__name__}: {error}")
    odd = [key for key, array in outputs.items() if not np.isfinite(array).all()]
    if odd:
        return Item(name, "failed", f"{', '.join(odd)} holds NaN or infinity")
    return Item(name, "ok", f"on {len(clips)} clips", {key: summary(array) for key, array in outputs.items()})


def _outputs(extractor: Extractor | PairExtractor, clips: tuple[Clip, ...], device: str) -> dict[str, Any]:
    """Outputs by name, one row per clip."""
    if isinstance(extractor, PairExtractor):
        video, audio = (extractors.load(name, device=device) for name in (extractor.video, extractor.audio))
        given = [_outputs(side, clips, device) for side in (video, audio)]
        rows = extractor.run(list(given[0][extractor.video_output]), list(given[1][extractor.audio_output]))
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    rows = extractor.run([extractor.prepare(_input(extractor, clip), SECONDS) for clip in clips])
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _input(extractor: Extractor, clip: Clip) -> Decoded | str:
    """A clip's text, or its file decoded for one extractor."""
    if extractor.modality == "text" or clip.video is None:
        return clip.text or ""
    requests = [extractor.video_request] if extractor.video_request is not None else []
    return decode(clip.video, requests, SECONDS)


def _model(name: str, clips: ClipSet, out: Path, device: str) -> Item:
    """One sample of the first clip."""
    import model_zoo

    lacking = _lacking(name)
    if lacking:
        return Item(name, "absent", lacking)
    one = ClipSet(clips.name, clips.version, clips.clips[:1])
    try:
        model = model_zoo.load(name)
        model.place(device)
        model.setup(one, SECONDS, DEFAULT_SEED)
        job = GenerationJob(one.clips, ((one.clips[0], 0),), DEFAULT_SEED, 1, device, out / name, _unused_place)
        (sample,) = list(model.produce(job))
    except (AvBenchError, RuntimeError, ValueError, ImportError) as error:
        return Item(name, "failed", f"{type(error).__name__}: {error}")
    if sample.audio is None:
        return Item(name, "failed", sample.detail or "no audio came")
    audio = sample.audio.cpu().numpy()
    if not np.isfinite(audio).all():
        return Item(name, "failed", "the sample holds NaN or infinity")
    seconds = audio.shape[1] / float(sample.sample_rate or 1)
    if abs(seconds - SECONDS) > 0.1:
        return Item(name, "failed", f"{seconds:.2f} s came, {SECONDS:g} s were asked for")
    given = summary(audio) | {"sample_rate": sample.sample_rate, "seconds": dict(sample.timings)}
    return Item(name, "ok", f"{seconds:.2f} s at {sample.sample_rate} Hz, peak {np.abs(audio).max():.3f}", given)


def _unused_place(clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
    raise RuntimeError(f"a model in this process wrote a file for {clip_id}~{k}{suffix} ({len(payload)} bytes)")


def summary(array: ArrayLike) -> dict[str, Any]:
    """Shape, mean, sd, and a digest of the values rounded to four significant digits of the largest."""
    values = np.asarray(array, dtype=np.float64)
    largest = float(np.abs(values).max()) if values.size else 0.0
    rounded = np.round(values / largest * 10**DIGITS).astype(np.int64) if largest else np.zeros(values.shape, np.int64)
    return {
        "shape": list(values.shape),
        "mean": float(f"{values.mean():.6g}"),
        "sd": float(f"{values.std():.6g}"),
        "digest": hashlib.sha256(rounded.tobytes()).hexdigest()[:16],
    }


def markdown(report: Report, table: str = "") -> str:
    """The report for people, ready to be sent in."""
    counts = {s: sum(item.status == s for item in report.items) for s in ("ok", "absent", "failed")}
    lines = [
        "# av-bench acceptance",
        "",
        f"{counts['ok']} ok, {counts['failed']} failed, {counts['absent']} absent (not tried). "
        + ("Nothing failed." if report.passed else "Something failed."),
    ]
    for title, items in (("Files", report.files), ("Networks", report.networks), ("Models", report.models)):
        lines += ["", f"## {title}", "", "| what | status | detail | outputs |", "|---|---|---|---|"]
        lines += [f"| {i.what} | {i.status} | {_cell(i.detail)} | {_cell(_told(i.given))} |" for i in items]
    if table:
        lines += ["", "## Table 1", "", table.rstrip()]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(report.environment["packages"].items()))
    lines += ["", "## Environment", "", packages, ""]
    return "\n".join(lines)


def _told(given: Mapping[str, Any]) -> str:
    """Digests of outputs, or the hash of a file."""
    if "sha256" in given:
        return f"sha256 {given['sha256'][:16]}..."
    if "digest" in given:
        return f"{tuple(given['shape'])} {given['digest']}"
    return "; ".join(f"{key} {tuple(value['shape'])} {value['digest']}" for key, value in given.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
