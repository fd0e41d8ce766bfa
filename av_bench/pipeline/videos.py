"""Videos to watch: each sample under the frames of its clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from av_bench.contracts import Clip, MediaError
from av_bench.features.sides import Sides
from av_bench.media.mux import mux
from av_bench.runtime.progress import Reporter


def write_videos(folder: Path, clips: Sequence[Clip], sides: Sides, seconds: float, reporter: Reporter) -> None:
    """One mp4 per scored sample whose clip has a video, named like the sample; those that are there are kept.

    Video frames that cannot be copied cost that mp4 only, with a message.
    """
    jobs = [(c, m) for c in clips if c.video is not None for m in sides.generated[c.id]]
    with reporter.stage("videos", len(jobs)) as stage:
        for clip, medium in jobs:
            target = folder / f"{medium.path.stem}.mp4"
            if clip.video is not None and not target.is_file():
                try:
                    mux(clip.video, medium.path, target, seconds)
                except MediaError as error:
                    reporter.say(f"no video to watch of {clip.id}: {error}")
            stage.advance()
