"""Try everything whose files are here: each file's hash, each network on three clips, one sample of each variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from av_bench import extractors, registry
from av_bench import weights as files
from av_bench.accept.known import Comparison, Known
from av_bench.accept.report import Item, Report
from av_bench.accept.sketch import summary
from av_bench.contracts import (
    DEFAULT_SEED,
    AvBenchError,
    Clip,
    ClipSet,
    Decoded,
    Extractor,
    Generated,
    GenerationJob,
    PairExtractor,
    UsageError,
    unknown_name,
)
from av_bench.media.decode import decode
from av_bench.pipeline.needed import entries_for
from av_bench.weights.lock import LockEntry, load_lock, not_released

SECONDS = 8.0
Say = Callable[[str], object]
Outputs = dict[str, Any]
"""Arrays by name, one row per clip."""


def accept(
    clips: ClipSet,
    out: Path,
    device: str = "cpu",
    say: Say = str,
    known: Sequence[Known] = (),
    steps: int | None = None,
    seconds: float = SECONDS,
    only: Sequence[str] = (),
) -> Report:
    """Check every file that is here, run every network and sample every variant whose files are here.

    ``clips`` are the rendered clips; sample files go below ``out``; ``say`` receives each item when it is done. Outputs
    are compared with those ``known``. ``steps`` of the sampler, by default each model's own, and ``seconds`` of a
    sample: fewer of both make a trial on a CPU affordable, which is then compared with such trials only. ``only`` these
    networks, and models with their options; UsageError for a name that is neither.
    """
    names = _chosen(_networks(), _models(), only)
    from av_bench.results.record import environment

    lock = load_lock().values()
    others = not_released(entry for entry in lock if entry.path.is_file())
    comparison = Comparison(known, device, others)
    found = tuple(_each(map(_file, lock), say))
    done: dict[str, Outputs] = {}
    tried = (_network(name, clips.clips, device, done) for name in _networks() if name in names)
    networks = tuple(_each(comparison.of(tried, "networks"), say))
    specs = [spec for spec in only if spec.partition(":")[0] in _models()] or [n for n in _models() if n in names]
    sampled = (_model(with_steps(spec, steps), clips, out, device, seconds) for spec in specs)
    models = tuple(_each(comparison.of(sampled, "models"), say))
    return Report(found, networks, models, environment(device), tuple(others))


def _chosen(networks: list[str], models: list[str], only: Sequence[str]) -> set[str]:
    known = [*networks, *models]
    names = [spec.partition(":")[0] for spec in only]
    for name in names:
        if name not in known:
            raise UsageError(f"--only {name}: {unknown_name('network or model', name, known)}")
    return set(names or known)


def with_steps(spec: str, steps: int | None) -> str:
    """A model's name and options with this number of sampler steps, or as it is."""
    return spec if steps is None else f"{spec}{',' if ':' in spec else ':'}steps={steps}"


def _each(items: Iterable[Item], say: Say) -> Iterator[Item]:
    for item in items:
        if item.status != "absent":
            say(f"{item.status:7} {item.what} {item.detail}{f'; {item.compared}' if item.compared else ''}".rstrip())
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


def _hashes(name: str) -> dict[str, str]:
    """sha256 of each file that a network or model was loaded from."""
    return {entry.name: files.file_sha256(entry.path) for entry in entries_for([name])}


def _network(name: str, clips: tuple[Clip, ...], device: str, done: dict[str, Outputs]) -> Item:
    """Load strictly, run on the clips, and say what came out. ``done`` gathers outputs, those of a pair's sides too."""
    lacking = _lacking(name)
    if lacking:
        return Item(name, "absent", lacking)
    try:
        outputs = _outputs(name, clips, device, done)
    except (AvBenchError, RuntimeError, ValueError, ImportError) as error:
        return Item(name, "failed", f"{type(error).__name__}: {error}")
    odd = [key for key, array in outputs.items() if not np.isfinite(array).all()]
    if odd:
        return Item(name, "failed", f"{', '.join(odd)} holds NaN or infinity")
    given = {key: summary(array) for key, array in outputs.items()}
    return Item(name, "ok", f"on {len(clips)} clip{'s' * (len(clips) > 1)}", given, _hashes(name))


def _outputs(name: str, clips: tuple[Clip, ...], device: str, done: dict[str, Outputs]) -> Outputs:
    """Outputs by name, one row per clip; what is ``done`` already is not computed again."""
    if name not in done:
        extractor = extractors.load(name, device=device)
        if isinstance(extractor, PairExtractor):
            video = _outputs(extractor.video, clips, device, done)[extractor.video_output]
            audio = _outputs(extractor.audio, clips, device, done)[extractor.audio_output]
            rows = extractor.run(list(video), list(audio))
        else:
            rows = extractor.run([extractor.prepare(_input(extractor, clip), SECONDS) for clip in clips])
        done[name] = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return done[name]


def _input(extractor: Extractor, clip: Clip) -> Decoded | str:
    """A clip's text, or its file decoded for one extractor."""
    if extractor.modality == "text" or clip.video is None:
        return clip.text or ""
    requests = [extractor.video_request] if extractor.video_request is not None else []
    return decode(clip.video, requests, SECONDS)


def _model(spec: str, clips: ClipSet, out: Path, device: str, seconds: float) -> Item:
    """One sample of the first clip; ``spec`` is a model's name with its options."""
    name, _, options = spec.partition(":")
    lacking = _lacking(name)
    if lacking:
        return Item(name, "absent", lacking)
    one = ClipSet(clips.name, clips.version, clips.clips[:1])
    try:
        sample = _sample(spec, one, out, device, seconds)
    except (AvBenchError, RuntimeError, ValueError, ImportError) as error:
        return Item(name, "failed", f"{type(error).__name__}: {error}")
    if sample.audio is None:
        return Item(name, "failed", sample.detail or "no audio came")
    audio = sample.audio.cpu().numpy()
    if not np.isfinite(audio).all():
        return Item(name, "failed", "the sample holds NaN or infinity")
    length = audio.shape[1] / float(sample.sample_rate or 1)
    if abs(length - seconds) > 0.1:
        return Item(name, "failed", f"{length:.2f} s came, {seconds:g} s were asked for")
    shown = f"{length:.2f} s at {sample.sample_rate} Hz, peak {np.abs(audio).max():.3f}"
    key = f"audio of {seconds:g} s{f', {options}' if options else ''}"
    return Item(name, "ok", shown, {key: summary(audio)}, _hashes(name))


def _sample(model: str, clips: ClipSet, out: Path, device: str, seconds: float) -> Generated:
    """A model's sample of the one clip."""
    import model_zoo

    source = model_zoo.load(model)
    source.place(device)
    source.setup(clips, seconds, DEFAULT_SEED)
    folder = out / model.partition(":")[0]
    job = GenerationJob(clips.clips, ((clips.clips[0], 0),), DEFAULT_SEED, 1, device, folder, _unused_place)
    (sample,) = list(source.produce(job))
    return sample


def _unused_place(clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
    raise RuntimeError(f"a model in this process wrote a file for {clip_id}~{k}{suffix} ({len(payload)} bytes)")
