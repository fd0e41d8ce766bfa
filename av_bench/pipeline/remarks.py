"""Remarks on a run's files that are printed under the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from av_bench.contracts import Clip, ClipSet
from av_bench.features.sides import Sides
from av_bench.pipeline.needed import entries_for
from av_bench.weights.lock import not_released

FAR_ABOVE = 10.0  # full scale is 1; decoded AAC or MP3 of loud music passes it by a little


def far_above_full_scale(sides: Sides, scored: Sequence[Clip]) -> list[str]:
    """A warning for each side with files far above full scale: their unit is another one, or they are broken."""
    found = []
    for side, what in (("generated", "samples"), ("reference", "reference files")):
        media = [(m.level, c.id) for c in scored for m in sides.media(c.id, side) if m.level >= FAR_ABOVE]
        if media:
            level, clip_id = max(media)
            found.append(
                f"{len(media)} {what} peak far above full scale, e.g. {clip_id} at {level:g}: integers written as "
                "floats? They are scored as they are"
            )
    return found


def left_out(clips: ClipSet) -> list[str]:
    """Files in the set's folder that may be recordings but are not clips."""
    if not clips.left_out:
        return []
    name, why = clips.left_out[0]
    count = len(clips.left_out)
    return [f"set {clips.name}: {count} files of its folder are left out, e.g. {name} ({why}); the ledger has all"]


def not_the_released_weights(names: Iterable[str]) -> list[str]:
    """A warning when extractors or the model of these names are loaded from other files than the released ones."""
    found = not_released(entries_for(names))
    if not found:
        return []
    return [
        f"weights of {', '.join(found)}: the lock file of AV_BENCH_WEIGHTS_LOCK pins other files than the released "
        "ones; numbers of these networks are not those of the published networks of this name"
    ]
