"""How well each automatic metric agrees with the ratings: over models, and over samples clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import UsageError
from av_bench.results.record import Run, by_clip
from reports.study.answers import Answers

if TYPE_CHECKING:
    import pandas as pd

REPLICATES = 1000
SEED = 14159265


@dataclass(frozen=True)
class Agreement:
    """One metric against one question. Positive: a better value of the metric goes with a better rating.

    ``models``: rank correlation of the models' values with their mean ratings (needs three models). ``samples``: rank
    correlation over samples of the per-clip values with the mean ratings; ``accuracy``: share of pairs of samples of
    one clip that the metric orders as the raters do (ties of the metric count half, ties of the raters do not count).
    Intervals resample clips.
    """

    metric: str
    question: str
    models: float | None
    samples: float | None
    samples_interval: tuple[float, float] | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    pairs: int


def agreements(answers: Answers, runs: Sequence[Run]) -> list[Agreement]:
    """All metrics of the runs against all questions. UsageError when a method of the study has no run."""
    by_name = {run.name: run for run in runs}
    lacking = [m for m in answers.methods if m not in by_name]
    if lacking:
        raise UsageError(f"study agree: no run is named {lacking[0]!r}; the runs are {', '.join(by_name)}")
    chosen = [by_name[m] for m in answers.methods]
    metrics = [m for m in chosen[0].scores["metrics"] if all(m in run.scores["metrics"] for run in chosen)]
    frames = [run.values() for run in chosen]
    found = []
    for metric in metrics:
        sign = 1.0 if chosen[0].scores["metrics"][metric]["higher_is_better"] else -1.0
        totals = sign * np.array([run.scores["metrics"][metric]["value"] for run in chosen])
        values = _per_clip(answers, frames, metric)
        for question in answers.questions:
            rated = _mean_ratings(answers.ratings[question])
            found.append(_agreement(metric, question, totals, None if values is None else sign * values, rated))
    return found


def _per_clip(answers: Answers, frames: Sequence[pd.DataFrame], metric: str) -> NDArray[np.float64] | None:
    """Values ``(clips, methods)``, NaN where there is none; None for metrics of whole sets."""
    values = np.full((len(answers.clips), len(answers.methods)), np.nan)
    for m, frame in enumerate(frames):
        if metric not in frame:
            return None
        column = by_clip(frame[metric])
        for c, clip in enumerate(answers.clips):
            values[c, m] = column.get(clip, np.nan)
    return values if np.isfinite(values).any() else None


def _mean_ratings(given: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(participants, clips, methods)`` -> mean over those who rated, ``(clips, methods)``."""
    counts = np.isfinite(given).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts > 0, np.nansum(given, axis=0) / np.maximum(counts, 1), np.nan))


def _agreement(
    metric: str,
    question: str,
    totals: NDArray[np.float64],
    values: NDArray[np.float64] | None,
    rated: NDArray[np.float64],
) -> Agreement:
    over_models = _spearman(totals, np.nanmean(rated, axis=0)) if len(totals) > 2 else None
    if values is None:
        return Agreement(metric, question, over_models, None, None, None, None, 0)
    clips = np.arange(len(values))
    samples, (accuracy, pairs) = _over_samples(values, rated, clips), _accuracy(values, rated, clips)
    random = np.random.default_rng(SEED)
    draws = [random.integers(0, len(values), len(values)) for _ in range(REPLICATES)] if len(values) > 1 else []
    first = _interval([_over_samples(values, rated, draw) for draw in draws])
    second = _interval([_accuracy(values, rated, draw)[0] for draw in draws])
    return Agreement(metric, question, over_models, samples, first, accuracy, second, pairs)


def _interval(found: list[float | None]) -> tuple[float, float] | None:
    known = [value for value in found if value is not None]
    if len(known) < 0.5 * REPLICATES:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _over_samples(values: NDArray[np.float64], rated: NDArray[np.float64], clips: NDArray[np.int64]) -> float | None:
    a, b = values[clips].ravel(), rated[clips].ravel()
    both = np.isfinite(a) & np.isfinite(b)
    return _spearman(a[both], b[both])


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Rank correlation; None when one side is constant."""
    from scipy.stats import rankdata

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _accuracy(
    values: NDArray[np.float64], rated: NDArray[np.float64], clips: NDArray[np.int64]
) -> tuple[float | None, int]:
    """Share of rightly ordered pairs within clips, and how many pairs there are."""
    right, pairs = 0.0, 0
    for i, j in combinations(range(values.shape[1]), 2):
        metric = values[clips, i] - values[clips, j]
        raters = rated[clips, i] - rated[clips, j]
        counted = np.isfinite(metric) & np.isfinite(raters) & (raters != 0)
        agree = np.sign(metric[counted]) * np.sign(raters[counted])
        right += float((agree > 0).sum() + 0.5 * (agree == 0).sum())
        pairs += int(counted.sum())
    return (right / pairs if pairs else None), pairs


def markdown(found: Sequence[Agreement]) -> str:
    """A line per metric and question."""
    lines = [
        "| metric | question | models ρ | samples ρ | pairs ordered alike | pairs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for a in found:
        samples, accuracy = _cell(a.samples, a.samples_interval), _cell(a.accuracy, a.accuracy_interval)
        models = "" if a.models is None else f"{a.models:+.2f}"
        lines.append(f"| {a.metric} | {a.question} | {models} | {samples} | {accuracy} | {a.pairs or ''} |")
    lines += ["", "- ρ: rank correlation (Spearman), positive where a better value goes with a better rating"]
    lines.append("- in brackets 95 % intervals over resampled clips; guessing orders half of the pairs alike")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:+.2f}" + ("" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]")
