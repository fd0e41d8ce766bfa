"""Is a set ready to be scored? Coverage, files that cannot be read, and lengths, before a night is spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import protocols
from av_bench.contracts import Clip, MediaError
from av_bench.media.decode import decode
from av_bench.media.folder import list_folder
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.pipeline.choose import choose_protocol
from av_bench.runtime.cores import default_workers
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

NEAREST = 20  # faults for which the nearest file name is looked for


@dataclass(frozen=True)
class Fault:
    """One clip that could not be scored, and why."""

    clip: str
    reason: str
    detail: str


@dataclass(frozen=True)
class SetReport:
    """What was found: clips expected and usable, faults, lengths of the usable ones, files that no clip uses."""

    set: str
    version: str
    protocol: str
    seconds: float
    expected: int
    faults: tuple[Fault, ...]
    lengths: tuple[float, ...]
    unused: tuple[str, ...]

    @property
    def usable(self) -> int:
        """Clips that can be scored."""
        return self.expected - len(self.faults)

    @property
    def coverage(self) -> float:
        """Share of the clips that can be scored."""
        return self.usable / self.expected

    def lines(self, shown: int = 5) -> Iterator[str]:
        """The report in words, with the first few clips of each reason."""
        yield f"set {self.set} (version {self.version}), protocol {self.protocol}, {self.seconds:g} s"
        yield f"{self.usable} of {self.expected} clips can be scored ({100 * self.coverage:.1f} %)"
        for reason, count in sorted(Counter(fault.reason for fault in self.faults).items()):
            few = [fault for fault in self.faults if fault.reason == reason][:shown]
            yield f"  {count} {reason}:"
            yield from (f"    {fault.clip}: {fault.detail}" for fault in few)
            if count > shown:
                yield f"    and {count - shown} more"
        if self.lengths:
            low, high = min(self.lengths), max(self.lengths)
            yield f"lengths: {low:.2f} to {high:.2f} s, median {sorted(self.lengths)[len(self.lengths) // 2]:.2f} s"
        if self.unused:
            more = f" and {len(self.unused) - shown} more" if len(self.unused) > shown else ""
            yield f"{len(self.unused)} files belong to no clip: {', '.join(self.unused[:shown])}{more}"
        if self.faults and self.coverage >= 0.01:
            share = f"{int(100 * self.coverage) / 100:g}"
            yield f"score what is there with --min-coverage {share}; compare only runs on the same clips (docs/sets.md)"


def check_set(name: str, request: SetRequest, reporter: Reporter, protocol_name: str | None = None) -> SetReport:
    """Decode every file of a set once. Raises UsageError and MissingRequirement as a run would."""
    definition = protocols.load_set(name)
    protocol, _ = choose_protocol(definition, protocol_name)
    clip_set = read_clips(definition, replace(request, say=reporter.say_once))
    clips = clip_set.clips
    faults: list[Fault] = []
    lengths: list[float] = []
    jobs = [(clip, definition.reference_audio, protocol.seconds) for clip in clips]
    unused = _unused(request.data, clips)
    with reporter.stage("check", len(clips)) as stage:
        for clip, found in zip(
            clips, prefetch_map(_examine, jobs, request.workers or default_workers(), 32), strict=True
        ):
            if isinstance(found, Fault):
                faults.append(_with_nearest(found, clip, unused) if len(faults) < NEAREST else found)
            else:
                lengths.append(found)
            stage.advance()
    return SetReport(
        definition.name,
        clip_set.version,
        protocol.name,
        protocol.seconds,
        len(clips),
        tuple(faults),
        tuple(lengths),
        unused,
    )


def _examine(job: tuple[Clip, bool, float]) -> Fault | float:
    """Length of a clip's shortest part in seconds, or what is wrong with it."""
    clip, has_audio, seconds = job
    ends: list[float] = []
    for path in dict.fromkeys([p for p in (clip.video, clip.audio) if p is not None]):
        try:
            media = decode(path, window=0.0)
        except MediaError as error:
            return Fault(clip.id, error.reason.value, error.detail)
        if path == clip.video and media.video_seconds is None:
            return Fault(clip.id, "no-video", f"{path.name} has no picture")
        if path == clip.video and media.video_seconds is not None:
            ends.append(media.video_seconds)
        if has_audio and path == clip.reference_audio:
            if media.audio is None:
                return Fault(clip.id, "no-audio", f"{path.name} has no sound")
            ends.append(media.audio_seconds)
    if not ends:
        return Fault(clip.id, "missing-file", "the clip has neither video nor audio")
    if min(ends) < seconds - 0.02:
        return Fault(clip.id, "too-short", f"{int(100 * min(ends)) / 100:.2f} s, {seconds:g} s are scored")
    return min(ends)


def _unused(folder: Path | None, clips: tuple[Clip, ...]) -> tuple[str, ...]:
    """What lies directly in the folder, may be a recording, and is used by no clip."""
    if folder is None:
        return ()
    used = {p.resolve() for clip in clips for p in (clip.video, clip.audio) if p is not None}
    found = list_folder(folder, AUDIO_SUFFIXES | VIDEO_SUFFIXES)
    there = sorted([*found.used, *(item.path for item in found.left_out)])
    return tuple(p.name for p in there if p.resolve() not in used)


def _with_nearest(fault: Fault, clip: Clip, unused: tuple[str, ...]) -> Fault:
    """A missing file with the unused file whose name is nearest."""
    if fault.reason != "missing-file" or not unused:
        return fault
    near = get_close_matches(clip.id, [Path(name).stem for name in unused], n=1, cutoff=0.7)
    name = next((n for n in unused if near and Path(n).stem == near[0]), None)
    return fault if name is None else Fault(fault.clip, fault.reason, f"{fault.detail} (the nearest file is {name})")
