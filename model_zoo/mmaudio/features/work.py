"""Media in, feature shards out: any number of workers, restartable at any moment.

The work is cut into units before anything is decoded: texts first, then crops in order, a fixed number per shard. A
worker takes a unit by locking its name, writes the shard under a hidden name and renames it. Whatever a killed worker
had started but unfinished is done again by the next worker; workers on several machines share the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from av_bench.contracts import Clip, MediaError, Reason, UsageError
from av_bench.runtime.files import lock
from model_zoo.mmaudio.features.crop_plan import CropPlan, read_plan, write_plan
from model_zoo.mmaudio.features.shard_file import WRITER, Sample, ShardFile, read_index, shard_folders

if TYPE_CHECKING:
    from av_bench.media.decode import DecodedMedia


class Encoder(Protocol):
    """What extraction asks of a codec and a conditioner, taken together (``extract.MediaFeatures``)."""

    window: float
    fingerprint: str

    def text(self, text: str) -> torch.Tensor:
        """Features (Lt, Dt) of a text."""

    def read(self, path: Path, video: bool) -> DecodedMedia:
        """Decode one file, with the frames that ``video`` needs."""

    def latents(self, media: DecodedMedia, start: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and standard deviation (N, C) of the crop that begins at ``start`` seconds."""

    def video(self, media: DecodedMedia) -> tuple[torch.Tensor, torch.Tensor]:
        """Visual (Lc, Dc) and synchronisation (Ls, Ds) features of the first seconds."""


def partition(seconds: float, step: float, most: int = 5) -> list[float]:
    """Start times of the crops of a recording of ``seconds``: ``min(most, seconds // step)``, evenly spread.

    The first begins at 0, the last ends at the recording's end; crops of ``step`` seconds never overlap. A recording
    shorter than ``step`` has none, one shorter than two steps has one at 0.
    """
    count = min(most, math.floor(seconds / step))
    if count <= 1:
        return [0.0] * count
    gap = (seconds - step) / (count - 1)
    return [number * gap for number in range(count)]


@dataclass(frozen=True)
class Crop:
    """Crop ``number`` of the clip at place ``clip`` of the list, from ``start`` seconds."""

    clip: int
    number: int
    start: float


def crops_of(clips: Sequence[Clip], plan: CropPlan, window: float) -> tuple[list[Crop], list[dict[str, str]]]:
    """All crops in order of clips, and what cannot be used with its reason. Reads durations from file headers.

    A header may be off (an Opus file's includes what the decoder drops at the start, an mp3's can be an estimate), so
    it decides how many crops there are and ``start_in`` where they lie.
    """
    crops: list[Crop] = []
    excluded: list[dict[str, str]] = []
    step = plan.step(window)
    for place, clip in enumerate(clips):
        path = clip.reference_audio
        try:
            if path is None:
                raise MediaError(clip.id, Reason.MISSING_FILE, "the clip names no file")
            if plan.video:
                crops.append(Crop(place, 0, 0.0))  # its length is seen when it is decoded
                continue
            seconds = duration(path)
            starts = partition(seconds, step, plan.most)
            if not starts:
                raise MediaError(path, Reason.TOO_SHORT_AUDIO, f"{seconds:.2f} s; rule {plan.rule} wants {step:g} s")
            crops += [Crop(place, number, start) for number, start in enumerate(starts)]
        except MediaError as error:
            excluded.append({"id": clip.id, "reason": error.reason.value, "detail": error.detail})
    return crops, excluded


def duration(path: Path) -> float:
    """Seconds of sound that the file's header declares. MediaError when it says nothing or cannot be read."""
    import av

    from av_bench.media.headers import decoder_message, open_recording

    if not path.is_file():
        raise MediaError(path, Reason.MISSING_FILE, "no such file")
    try:
        with open_recording(path) as container:
            if not container.streams.audio:
                raise MediaError(path, Reason.NO_AUDIO, "the file has no audio stream")
            stream = container.streams.audio[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            if container.duration is not None:
                return float(container.duration / av.time_base)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(path, Reason.UNREADABLE, f"decoder says: {decoder_message(error)}") from error
    raise MediaError(path, Reason.UNREADABLE, "the header declares no duration")


def start_in(media: DecodedMedia, crop: Crop, planned: int, step: float) -> float:
    """Where crop number ``crop.number`` of ``planned`` starts in the recording as it was decoded.

    As planned when the header states the right length. MediaError when fewer crops fit than were planned.
    """
    if planned == 1:
        return crop.start
    seconds = media.audio_seconds
    starts = partition(seconds, step, planned)
    if crop.number >= len(starts):
        detail = f"{seconds:.2f} s were decoded, too few for {planned} crops in steps of {step:g} s"
        raise MediaError(media.path, Reason.TOO_SHORT_AUDIO, detail)
    return starts[crop.number]


@dataclass(frozen=True)
class Work:
    """The frozen list of units of one feature folder."""

    clips: Sequence[Clip]
    plan: CropPlan
    crops: list[Crop]
    texts: list[str]
    excluded: list[dict[str, str]]
    key: str  # of clips, plan and networks together

    @cached_property
    def planned(self) -> Counter[int]:
        """Number of crops of each clip, by its place in the list."""
        return Counter(crop.clip for crop in self.crops)

    @property
    def units(self) -> list[str]:
        """Names of all shards, texts first."""
        texts = [f"text-{k:06d}" for k in range(math.ceil(len(self.texts) / self.plan.shard_size))]
        return texts + [f"{k:06d}" for k in range(math.ceil(len(self.crops) / self.plan.shard_size))]


def prepare(root: Path, clips: Sequence[Clip], plan: CropPlan, encoder: Encoder) -> Work:
    """Make the list of units, or read the one that another worker made.

    UsageError when the folder was started with different clips, another plan, other networks or by a ``ShardWriter``.
    """
    listed = [[c.id, c.text, str(c.reference_audio)] for c in clips]
    named = {"clips": listed, "plan": asdict(plan), "encoder": encoder.fingerprint, "window": encoder.window}
    key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    content = read_plan(root)
    if content is not None:
        if content["key"] != key:
            raise UsageError(f"{root} was started with different clips, settings or networks; choose another folder")
        crops = [Crop(*row) for row in content["crops"]]
        return Work(clips, plan, crops, content["texts"], content["excluded"], key)
    if (root / WRITER).exists() and shard_folders(root):
        raise UsageError(f"{root} holds features that came from elsewhere (ShardWriter); choose another folder")
    strange = [shard.name for shard in shard_folders(root) if read_index(shard).get("key", key) != key]
    if strange:
        some = ", ".join(strange[:3])
        raise UsageError(f"{root} holds shards of other clips, settings or networks ({some}); choose another folder")
    crops, excluded = crops_of(clips, plan, encoder.window)
    texts = sorted({"", *(clip.text for clip in clips if clip.text is not None)})
    work = Work(clips, plan, crops, texts, excluded, key)
    rows = [[c.clip, c.number, c.start] for c in crops]
    write_plan(root, {"key": key, "crops": rows, "texts": texts, "excluded": excluded, "units": work.units})
    return work


def extract(root: Path | str, clips: Sequence[Clip], plan: CropPlan, encoder: Encoder) -> Iterator[str]:
    """Do every unit that is neither done nor in another worker's hands; yields the name of each one finished.

    When it ends, the folder is complete unless other workers are still busy. Clips that cannot be used are listed with
    their reasons in the shard they would have been in, those refused beforehand in ``.plan.json``.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    work = prepare(root, clips, plan, encoder)
    for name in work.units:
        if (root / name).exists():
            continue
        with lock(root / f".{name}.lock") as mine:
            if not mine or (root / name).exists():
                continue
            shard = ShardFile(root, name, plan.dtype, key=work.key)
            try:
                _fill(shard, name, work, encoder)
                shard.close()
            except BaseException:
                shard.abandon()
                raise
        yield name


def unfinished(root: Path | str, work: Work) -> list[str]:
    """Units that no worker has finished."""
    return [name for name in work.units if not (Path(root) / name).exists()]


def progress_line(root: Path | str, work: Work) -> str:
    """How many samples there are so far, how many have a text, and what was left out for which reason."""
    indices = [read_index(shard) for shard in shard_folders(Path(root))]
    labels = [label for index in indices for label in index["label"]]
    reasons = Counter(row["reason"] for rows in (work.excluded, *(i["excluded"] for i in indices)) for row in rows)
    left = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "nothing"
    with_text = sum(label is not None for label in labels)
    return f"{len(labels)} samples of {len(work.clips)} recordings, {with_text} with a text; left out: {left}"


def _fill(shard: ShardFile, name: str, work: Work, encoder: Encoder) -> None:
    size = work.plan.shard_size
    number = int(name.rpartition("-")[2])
    if name.startswith("text-"):
        for text in work.texts[number * size : (number + 1) * size]:
            shard.add_text(text, encoder.text(text))
        return
    media: tuple[int, DecodedMedia] | None = None
    for crop in work.crops[number * size : (number + 1) * size]:
        clip = work.clips[crop.clip]
        try:
            if media is None or media[0] != crop.clip:  # crops of one recording follow each other: decode it once
                assert clip.reference_audio is not None
                media = (crop.clip, encoder.read(clip.reference_audio, work.plan.video))
            start = start_in(media[1], crop, work.planned[crop.clip], work.plan.step(encoder.window))
            mean, std = encoder.latents(media[1], start)
            seen, synced = encoder.video(media[1]) if work.plan.video else (None, None)
        except MediaError as error:
            shard.exclude(f"{clip.id}#{crop.number}", error.reason.value, error.detail)
            continue
        shard.add(Sample(clip.id, mean, std, seen, synced, clip.text, crop=crop.number))
