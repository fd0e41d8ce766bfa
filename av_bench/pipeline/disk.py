"""What a run will write, and whether there is room: weights and packages to come, samples, features, videos to watch.

Estimates on the high side: sound as 24-bit PCM (FLAC takes about two thirds), features as their shapes say, a video to
watch as large as the clip's own file. A run that is resumed writes less.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import protocols
from av_bench.media.folder import media_files
from av_bench.media.suffixes import VIDEO_SUFFIXES
from av_bench.pipeline.measure import extractors_for
from av_bench.pipeline.needed import Missing, entries_for
from av_bench.pipeline.plan import RunOptions
from av_bench.runtime.files import home
from av_bench.weights.lock import folder as weights_folder
from av_bench.weights.lock import readable_size
from model_zoo.baselines import is_baseline

PACKAGES = 6_000_000_000  # bytes of the extra ``paper`` with torch and its matched trio (README)
RATE, BYTES = 48_000, 3  # of a sample, when the model does not say
FEATURES: Mapping[str, int] = {
    "panns": 4 * (2048 + 527),
    "passt": 4 * (768 + 527),
    "vggish": 4 * 8 * 128,
    "sfx": 4 * (5 * 512 + 78),
    "synchformer-video": 4 * 24 * 8 * 768,
    "synchformer-audio": 4 * 24 * 6 * 768,
    "nano-sync-video": 4 * 200 * 64,
    "nano-sync-audio": 4 * 200 * 64,
}
"""Bytes of one clip's features at 8 s, where they are more than an embedding."""
EMBEDDING = 4 * 1024
CONDITIONS = 4 * (64 * 1024 + 24 * 8 * 768)  # of MMAudio's published networks: CLIP and sync tokens of 8 s
_BOUNDS = ("oracle", "shuffled", "noise", "silence")
_LOOKED_AT = 200  # videos whose size is looked at


@dataclass(frozen=True)
class Writes:
    """One kind of file that a run writes: where, and about how many bytes."""

    what: str
    folder: Path
    size: int


def writes(options: RunOptions, missing: Sequence[Missing]) -> list[Writes]:
    """What a run with these options writes, with what it still lacks; nothing for what is there already."""
    definition = protocols.load_set(options.set)
    found = [
        Writes("weights", weights_folder(), sum(item.size for item in missing if item.kind == "weights")),
        Writes("packages", Path(sys.prefix), PACKAGES * any(item.kind == "package" for item in missing)),
    ]
    clips, video = _clips(definition, options), _mean_video(options.data)
    seconds = _seconds(definition, options)
    per_clip = options.samples_per_clip
    out = options.out or Path("runs")
    if options.model is not None and options.samples is None:
        found.append(Writes("samples", out, int(clips * per_clip * seconds * RATE * BYTES)))
        name = options.model.partition(":")[0]
        generates = name not in _BOUNDS
        if generates if options.videos is None else options.videos:
            found.append(Writes("videos to watch", out, clips * per_clip * video))
        if is_baseline(name):
            found.append(Writes("silent copies", home(), clips * video))
        elif entries_for([name]):
            found.append(Writes("conditions", options.store or home() / "store", clips * CONDITIONS))
    found.append(Writes("features", options.store or home() / "store", clips * _features(definition, options, seconds)))
    return [one for one in found if one.size]


def shortages(found: Sequence[Writes]) -> list[Missing]:
    """The disks that have less room than what is to be written on them."""
    disks: dict[int, list[Writes]] = {}
    for one in found:
        disks.setdefault(_there(one.folder).stat().st_dev, []).append(one)
    lacking = []
    for parts in disks.values():
        needed, place = sum(one.size for one in parts), _there(parts[0].folder)
        free = shutil.disk_usage(place).free
        if needed > free:
            detail = f"about {readable_size(needed)} are needed ({_listed(parts)}), {readable_size(free)} are free"
            advice = "AV_BENCH_HOME, --store and --out name other places; --no-videos saves the videos"
            lacking.append(Missing("disk", str(place), f"{detail}; {advice}"))
    return lacking


def describe(found: Sequence[Writes]) -> str:
    """One line: what will be written, at most, and what is free there."""
    if not found:
        return ""
    free = min(shutil.disk_usage(_there(one.folder)).free for one in found)
    total = readable_size(sum(one.size for one in found))
    return f"writes about {total} ({_listed(found)}); {readable_size(free)} are free"


def _listed(parts: Sequence[Writes]) -> str:
    return ", ".join(f"{one.what} {readable_size(one.size)}" for one in parts)


def _there(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    absolute = folder.absolute()
    return next((path for path in (absolute, *absolute.parents) if path.exists()), Path("/"))


def _clips(definition: protocols.SetDefinition, options: RunOptions) -> int:
    """Clips of the set: its count, that of its first list, or the videos in the folder."""
    if definition.kind == "list":
        count = next(iter(definition.lists.values())).count
    elif definition.count is not None:
        count = definition.count
    else:
        known = options.data is not None and options.data.is_dir()
        count = sum(1 for _ in media_files(options.data, VIDEO_SUFFIXES)) if known and options.data else 0
    return count if options.limit is None else min(count, options.limit)


def _seconds(definition: protocols.SetDefinition, options: RunOptions) -> float:
    try:
        return float(options.seconds or "")
    except ValueError:
        return protocols.load_protocol(options.protocol or definition.protocol).seconds


def _mean_video(data: Path | None) -> int:
    """Mean bytes of the first videos of a folder; a few hundred kB a clip when there is none to look at."""
    if data is None or not data.is_dir():
        return 700_000
    sizes = [path.stat().st_size for path in islice(media_files(data, VIDEO_SUFFIXES), _LOOKED_AT) if path.is_file()]
    return sum(sizes) // len(sizes) if sizes else 700_000


def _features(definition: protocols.SetDefinition, options: RunOptions, seconds: float) -> int:
    """Bytes of one clip's features: of a video once, of sound on both sides."""
    from av_bench.pipeline.choose import choose_protocol

    protocol, _ = choose_protocol(definition, options.protocol)
    names = extractors_for(protocol, options.metrics)
    both = 1 + definition.reference_audio
    return int(sum(FEATURES.get(n, EMBEDDING) * (1 if "video" in n else both) * max(seconds / 8.0, 1.0) for n in names))
