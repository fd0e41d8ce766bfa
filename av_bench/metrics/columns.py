"""Metrics as columns of a table: which features each needs, what it refuses, its value and its interval.

The maths is in ``av_bench.metrics``; here it meets clips, sides and flavours. A protocol names columns and gives their
options (``protocols/*.yaml``), for example ``FD-nano: {kind: frechet, extractor: nano-tagger, output: embedding}``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from av_bench import metrics
from av_bench.contracts import Clip, Metric, MetricError, MetricInputs, Need, Score, UsageError
from av_bench.metrics import intervals
from av_bench.metrics.frechet_influence import frechet_effects, frechet_infinity_effects
from av_bench.metrics.inception_influence import inception_effects
from av_bench.metrics.set_scores import by_clip, set_score

BOOTSTRAP_SEED = 20241219
MANY = 2000  # recordings from which a mean is normal enough, and a bootstrap only slow


class PerClipMetric(Metric):
    """A column that is the mean of per-clip values; the interval resamples source recordings."""

    scale: float = 1.0  # factor on the values, e.g. 100 for cosines

    @abstractmethod
    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """``(n,)`` unscaled values, one per clip; NaN marks a clip for which the value is undefined."""

    def details(self, inputs: MetricInputs) -> dict[str, object]:
        """More numbers about the same inputs."""
        del inputs
        return {}

    def remarks(self, inputs: MetricInputs) -> tuple[str, ...]:
        """The note that belongs to the value."""
        del inputs
        return ()

    def compute(self, inputs: MetricInputs) -> Score:
        """Mean over the clips for which the value is defined."""
        values = self.values(inputs) * self.scale
        defined = np.isfinite(values)
        if not defined.any():
            raise MetricError(f"{self.name} is undefined for each of the {len(values)} clips")
        clips = [clip for clip, ok in zip(inputs.clips, defined, strict=True) if ok]
        kept = values[defined]
        notes: tuple[str, ...] = ()
        if not defined.all():
            notes = (f"undefined for {int((~defined).sum())} of {len(values)} clips",)
        notes += self.remarks(inputs)
        mean, interval = mean_with_interval(kept, clips)
        per_clip = {clip.id: float(v) for clip, v in zip(clips, kept, strict=True)}
        return Score(mean, len(kept), interval, per_clip, self.details(inputs), notes)


def mean_with_interval(values: NDArray[np.float64], clips: Sequence[Clip]) -> tuple[float, tuple[float, float] | None]:
    """Mean of per-clip values and its interval: by cluster bootstrap, or from the standard error of many clusters.

    None with fewer than two source recordings.
    """
    clusters = [clip.cluster for clip in clips]
    count = len(set(clusters))
    if count < 2:
        return float(np.mean(values)), None
    if count >= MANY:
        found = intervals.cluster_normal_mean(values, clusters)
    else:
        found = intervals.cluster_bootstrap_mean(values, clusters, seed=BOOTSTRAP_SEED)
    return float(np.mean(values)), (float(found.low), float(found.high))


def flat_rows(inputs: MetricInputs, need: Need) -> tuple[NDArray[Any], list[int]]:
    """Rows ``(rows, d)`` and how many each clip has; a clip with several rows (patches) contributes them all."""
    arrays = [np.atleast_2d(a) for a in inputs.arrays[need]]
    return np.concatenate(arrays), [len(a) for a in arrays]


class Frechet(Metric):
    """Frechet distance between Gaussian fits of the two sides' embeddings."""

    minimum = 2
    accepts_statistics: ClassVar[bool] = True

    def __init__(self, name: str, extractor: str, output: str = "embedding") -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        super().__init__(name, (self.reference, self.generated))

    def compute(self, inputs: MetricInputs) -> Score:
        """Value with the interval of its influence values (``metrics.frechet_influence``)."""
        if self.reference in inputs.statistics:
            return self._from_statistics(inputs)
        reference, rows_reference = flat_rows(inputs, self.reference)
        generated, rows_generated = flat_rows(inputs, self.generated)
        found = frechet_effects(reference, generated)
        effects = by_clip(found.reference, rows_reference) + by_clip(found.generated, rows_generated)
        rows, width = generated.shape
        notes: tuple[str, ...] = ()
        if rows < 2 * width:
            notes = (f"biased upwards: {rows} rows for {width} dimensions (n < 2 d)",)
        details = {"rows": rows, "dimensions": width}
        return set_score(found.value, inputs.clips, effects, least=0.0, details=details, notes=notes)

    def _from_statistics(self, inputs: MetricInputs) -> Score:
        """The reference is a file of statistics: the point estimate, without an interval."""
        gaussian = inputs.statistics[self.reference]
        generated, _ = flat_rows(inputs, self.generated)
        ours = metrics.GaussianStatistics.from_rows(generated)
        value = metrics.frechet_from_statistics(gaussian.mean, gaussian.covariance, ours.mean, ours.covariance)
        rows, width = generated.shape
        notes = [f"reference from statistics of {gaussian.n} rows: no interval"]
        if gaussian.n != rows:
            notes.append(f"the sides differ in rows ({gaussian.n} and {rows}); FD depends on both")
        details = {"rows": rows, "dimensions": width, "reference_rows": gaussian.n}
        return Score(value, len(inputs.clips), details=details, notes=tuple(notes))


class FrechetInfinity(Frechet):
    """Frechet distance extrapolated to infinitely many rows, as a row of its own, never in place of FD."""

    minimum = 32
    accepts_statistics = False

    def compute(self, inputs: MetricInputs) -> Score:
        """The intercept of FD over 1/n."""
        reference, rows_reference = flat_rows(inputs, self.reference)
        generated, rows_generated = flat_rows(inputs, self.generated)
        found = frechet_infinity_effects(reference, generated, seed=BOOTSTRAP_SEED)
        effects = by_clip(found.reference, rows_reference) + by_clip(found.generated, rows_generated)
        details = {"rows": len(generated), "r_squared": found.fit.r_squared}
        return set_score(found.fit.value, inputs.clips, effects, details=details)


class KLDivergence(PerClipMetric):
    """KL(reference, generated) of the two sides' class distributions, softmax over raw logits."""

    unit = "nats"

    def __init__(self, name: str, extractor: str, output: str = "logits") -> None:
        self.reference = Need(extractor, output, "reference")
        self.generated = Need(extractor, output, "generated")
        super().__init__(name, (self.reference, self.generated))

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip, in nats."""
        return metrics.kl_divergence(inputs.stacked(self.reference), inputs.stacked(self.generated))


class InceptionScore(Metric):
    """Inception Score of the generated side's class distributions."""

    higher_is_better = True

    def __init__(self, name: str, extractor: str, output: str = "logits", splits: int = 10) -> None:
        self.generated = Need(extractor, output, "generated")
        self.splits = splits
        super().__init__(name, (self.generated,))

    def validate(self, inputs: MetricInputs) -> None:
        """With one row per split the score is 1 whatever the logits are."""
        if len(inputs.clips) <= self.splits:
            raise MetricError(
                f"{self.name} in {self.splits} splits needs more than {self.splits} clips, "
                f"this set has {len(inputs.clips)} scored"
            )

    def compute(self, inputs: MetricInputs) -> Score:
        """Mean over the splits; their standard deviation is a detail."""
        logits = inputs.stacked(self.generated)
        found = inception_effects(logits, self.splits)
        units = [f"split {i}" for i in found.split] if found.by_split else None
        details = {"std_over_splits": found.std, "splits": self.splits}
        notes: tuple[str, ...] = ()
        rows, classes = len(logits) / self.splits, logits.shape[1]
        if rows < 2 * classes:
            notes = (f"biased downwards: {rows:.3g} clips per split for {classes} classes; compare equal n only",)
        return set_score(found.value, inputs.clips, found.effects, units=units, least=1.0, details=details, notes=notes)


class Cosine(PerClipMetric):
    """Mean cosine of two embeddings (IB-score, CLAP score). ``first``, ``second``: [extractor, output, side]."""

    higher_is_better = True

    def __init__(self, name: str, first: Sequence[str], second: Sequence[str], scale: float = 1.0) -> None:
        self.first, self.second = _need(name, first), _need(name, second)
        self.scale = scale
        needs = (self.first, self.second)
        super().__init__(name, needs, tuple(need.side for need in needs if need.side in ("text", "video")))

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip, unscaled."""
        return metrics.cosine_similarity(inputs.stacked(self.first), inputs.stacked(self.second))


def _need(name: str, parts: Sequence[str]) -> Need:
    if len(parts) != 3 or parts[2] not in ("reference", "generated", "video", "text"):
        raise UsageError(f"metric {name}: [extractor, output, side] is expected, found {list(parts)!r}")
    return Need(parts[0], parts[1], parts[2])  # type: ignore[arg-type]


class DeSync(PerClipMetric):
    """Mean absolute audio-video offset in seconds, from the 21-class logits of two crops."""

    unit = "s"

    def __init__(self, name: str, extractor: str, output: str = "logits") -> None:
        self.logits = Need(extractor, output, "generated")
        super().__init__(name, (self.logits,), ("video",))

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip, mean over crops of |offset of the winning class|."""
        return metrics.desync(inputs.stacked(self.logits))

    def details(self, inputs: MetricInputs) -> dict[str, object]:
        """Signed histogram over the 21 classes, softmax-expected |offset|, share of crops within one class of 0.

        The last is the part that does not move with the version of the video decoder.
        """
        logits = inputs.stacked(self.logits)
        grid = metrics.offset_grid()
        classes, counts = np.unique(np.argmax(logits, axis=-1), return_counts=True)
        return {
            "signed_histogram": {f"{grid[c]:.1f}": int(k) for c, k in zip(classes, counts, strict=True)},
            "expected": float(np.mean(metrics.expected_offset(logits))),
            "within_one_class": float(np.mean(np.abs(np.argmax(logits, axis=-1) - len(grid) // 2) <= 1)),
        }


class _Onset(PerClipMetric):
    """Onset scores of the generated audio against the clip's onset times."""

    higher_is_better = True
    which: ClassVar[Literal["accuracy", "average_precision", "f1"]]

    def __init__(self, name: str, extractor: str = "onsets", output: str = "detections") -> None:
        self.detections = Need(extractor, output, "generated")
        super().__init__(name, (self.detections,), ("onsets",))

    def values(self, inputs: MetricInputs) -> NDArray[np.float64]:
        """Per clip; NaN where the score is undefined."""
        values = np.full(len(inputs.clips), np.nan)
        for i, (clip, found) in enumerate(zip(inputs.clips, inputs.arrays[self.detections], strict=True)):
            onsets = np.asarray(_heard(clip, inputs), dtype=np.float64)
            times, confidence, loudness = found.T
            scores = metrics.match_onsets(times, confidence, onsets, inputs.flavour, loudness=loudness)
            value = scores._asdict()[self.which]
            values[i] = np.nan if value is None else value
        return values

    def remarks(self, inputs: MetricInputs) -> tuple[str, ...]:
        """Labels after the window: their sound is cut off, so they are not misses."""
        late = sum(len(clip.onsets or ()) - len(_heard(clip, inputs)) for clip in inputs.clips)
        return (f"{late} labels after {inputs.seconds:g} s were ignored",) if late else ()


def _heard(clip: Clip, inputs: MetricInputs) -> tuple[float, ...]:
    """Onset labels inside the scored window. The paper flavour has an own way of stopping at 8 s and is given all."""
    seconds = inputs.seconds if inputs.flavour == "strict" else None
    return tuple(t for t in clip.onsets or () if seconds is None or t < seconds)


class OnsetAccuracy(_Onset):
    """Share of the labelled onsets that were hit."""

    which = "accuracy"


class OnsetAP(_Onset):
    """Average precision of the detections, ranked by confidence."""

    which = "average_precision"


class OnsetF1(_Onset):
    """F1 of the matched detections."""

    which = "f1"
