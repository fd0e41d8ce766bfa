"""Generation jobs outside a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from av_bench.contracts import Clip, GenerationJob


def job_for(clips: Sequence[Clip], samples: int = 1, seed: int = 0, folder: Path | None = None) -> GenerationJob:
    """Everything is still to be made; finished files go into ``folder``/audio."""
    folder = Path(tempfile.mkdtemp()) if folder is None else folder

    def place(clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = folder / "audio" / f"{clip_id}~{k}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
        return path

    todo = tuple((clip, k) for clip in clips for k in range(samples))
    return GenerationJob(tuple(clips), todo, seed, samples, "cpu", folder / "external", place)
