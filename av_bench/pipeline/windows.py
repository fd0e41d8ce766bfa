"""How many seconds of each clip are scored: the protocol's, another number, the shortest clip's, or each clip's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import protocols
from av_bench.contracts import Clip, ClipSet, MediaError, SampleSource, UsageError
from av_bench.media.decode import decode
from av_bench.runtime.cores import default_workers
from av_bench.runtime.prefetch import prefetch_map

_TICKS = 25  # lengths are cut to whole frames at 25 per second, as the length of a video is judged


def with_seconds(protocol: protocols.Protocol, asked: str | None) -> protocols.Protocol:
    """The protocol at ``--seconds N``: under a name of its own, so that its rows never mix with the original's."""
    if asked is None or asked in ("shortest", "whole"):
        return protocol
    try:
        seconds = float(asked)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 3600:
        raise UsageError(f"--seconds is {asked!r}; a number of seconds, shortest or whole is expected")
    return protocol if seconds == protocol.seconds else _named(protocol, seconds, f"{seconds:g}s")


def fit(
    protocol: protocols.Protocol, asked: str | None, clips: ClipSet, source: SampleSource, workers: int | None
) -> tuple[protocols.Protocol, dict[str, float]]:
    """The protocol and the seconds of each clip, where these depend on the media (``shortest``, ``whole``).

    A clip's length is that of its shortest part: sound, picture, and sample where the samples are files already. Clips
    whose media cannot be read do not count; they are excluded later, with the reason.
    """
    whole = asked == "whole" or (asked is None and protocol.window == "whole")
    if not whole and asked != "shortest":
        return protocol, {}
    samples = source.files_of()
    lengths = {}
    jobs = [(clip, samples.get(clip.id, ())) for clip in clips.clips]
    for clip, length in zip(clips.clips, prefetch_map(_length, jobs, workers or default_workers(), 32), strict=True):
        if length is not None:
            lengths[clip.id] = length
    if not lengths:
        raise UsageError(f"--seconds {asked or 'whole'}: no clip of {clips.name} has media that can be read")
    if asked == "shortest":
        shortest = min(lengths.values())
        return _named(protocol, shortest, f"{shortest:g}s"), {}
    longest = max(lengths.values())
    named = protocol if protocol.window == "whole" else _named(protocol, longest, "whole")
    return replace(named, seconds=longest, window="whole"), lengths


def _named(protocol: protocols.Protocol, seconds: float, suffix: str) -> protocols.Protocol:
    return replace(protocol, name=f"{protocol.name}@{suffix}", seconds=seconds)


def _length(job: tuple[Clip, Iterable[Path]]) -> float | None:
    clip, samples = job
    ends = []
    for path in dict.fromkeys([p for p in (clip.video, clip.audio, *samples) if p is not None]):
        try:
            media = decode(path, window=0.0)
        except MediaError:
            return None
        if media.audio is not None:
            ends.append(media.audio_seconds)
        if media.video_seconds is not None and path == clip.video:
            ends.append(media.video_seconds)
    return max(1, int(min(ends) * _TICKS + 1e-6)) / _TICKS if ends else None


def too_short(lengths: Mapping[str, float], least: float) -> list[str]:
    """Clips that a network cannot take."""
    return sorted(clip_id for clip_id, seconds in lengths.items() if seconds < least)
