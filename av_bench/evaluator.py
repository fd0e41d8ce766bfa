"""Metrics during training: what a training loop is handed so that it needs to know nothing of the pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from av_bench.contracts import ClipSet, Generator
from av_bench.pipeline import RunOptions, run


@dataclass
class RunEvaluator:
    """Scores a generator as ``av-bench run`` would; one run folder per call below ``folder``, without its audio.

    ``options`` say which set, how many clips, which device and metrics; model and folder are filled in here.
    """

    options: RunOptions
    folder: Path
    calls: int = 0

    def __call__(self, generator: Generator, clips: ClipSet) -> Mapping[str, float]:
        """Metric name -> value on ``clips``, which must be the set's (its first ones, with a limit)."""
        self.calls += 1
        out = self.folder / f"{self.calls:04d}"
        if out.exists():
            shutil.rmtree(out)  # left by a run that was killed
        options = replace(
            self.options,
            model=generator.name,
            out=out,
            limit=len(clips.clips),
            videos=False,
            min_coverage=0.0,
            quiet=True,
        )
        result = run(options, generator)
        shutil.rmtree(out / "audio", ignore_errors=True)
        return {name: float(entry["value"]) for name, entry in result.scores["metrics"].items()}
