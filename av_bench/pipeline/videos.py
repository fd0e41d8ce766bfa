"""Videos to watch: each sample under the frames of its clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from av_bench.contracts import Clip, MediaError
from av_bench.features.sides import Sides
from av_bench.media.mux import mux
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter


class _Job(NamedTuple):
    clip_id: str
    picture: Path
    sound: Path
    target: Path


def write_videos(
    folder: Path, clips: Sequence[Clip], sides: Sides, seconds: float, workers: int, reporter: Reporter
) -> None:
    """One mp4 per scored sample whose clip has a video, named like the sample; those that are there are kept.

    ``workers`` threads write them. Video frames that cannot be copied cost that mp4 only, with a message.
    """
    jobs = [
        _Job(clip.id, clip.video, medium.path, folder / f"{medium.path.stem}.mp4")
        for clip in clips
        if clip.video is not None
        for medium in sides.generated[clip.id]
    ]
    lacking = [job for job in jobs if not job.target.is_file()]

    def write(job: _Job) -> MediaError | None:
        try:
            mux(job.picture, job.sound, job.target, seconds)
        except MediaError as error:
            return error
        return None

    with reporter.stage("videos", len(jobs)) as stage:
        stage.advance(len(jobs) - len(lacking))
        for job, error in zip(lacking, prefetch_map(write, lacking, workers, 2 * workers), strict=True):
            if error is not None:
                reporter.say(f"no video to watch of {job.clip_id}: {error}")
            stage.advance()
