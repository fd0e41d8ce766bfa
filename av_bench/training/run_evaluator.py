"""Metrics during training: what a training loop is handed so that it needs to know nothing of the pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import protocols
from av_bench.contracts import ClipSet, MetricError, SampleSource
from av_bench.pipeline.choose import choose_protocol
from av_bench.pipeline.measure import measure
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.run import run


@dataclass
class RunEvaluator:
    """Scores a generator as ``av-bench run`` would; one run folder per call below ``folder``, without its audio.

    ``options`` say which set, how many clips, which device and metrics; model and folder are filled in here.
    """

    options: RunOptions
    folder: Path
    calls: int = 0

    def check(self) -> None:
        """What a first call would be refused for: MissingRequirement when the weights of a network are not there."""
        protocol = choose_protocol(protocols.load_set(self.options.set), self.options.protocol)[0]
        measure(protocol, self.options.metrics, self.options.device, self.options.flavour)

    def __call__(self, generator: SampleSource, clips: ClipSet) -> Mapping[str, float]:
        """Metric name -> value on ``clips``, which must be the set's (its first ones, with a limit).

        MetricError when there is not one value; the run folder says what became of every clip.
        """
        self.calls += 1
        while (self.folder / f"{self.calls:04d}" / "scores.json").exists():
            self.calls += 1  # complete records, of before training was started again
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
        if not result.scores["metrics"]:
            reasons = "; ".join(f"{name}: {why}" for name, why in result.scores["absent"].items())
            raise MetricError(f"{out}: no metric could be computed ({reasons})")
        return {name: float(entry["value"]) for name, entry in result.scores["metrics"].items()}
