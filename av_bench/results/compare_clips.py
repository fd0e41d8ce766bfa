"""Two models clip by clip: per metric the difference, who wins how often, and the clips on which they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from av_bench.contracts import UsageError
from av_bench.metrics.paired import sign_test
from av_bench.results.compare import Difference, Joint, difference, join, read_sides, refuse_incomparable
from av_bench.results.gate import Paths, read_side, require_common_clips
from av_bench.results.record import Run

if TYPE_CHECKING:
    import pandas as pd

_MEDIA = ("videos/{}.mp4", "audio/{}.flac", "audio/{}.wav")


@dataclass(frozen=True)
class ClipPair:
    """One clip of both models; ``files`` are what there is to watch or listen to of A and of B."""

    id: str
    a: float
    b: float
    files: tuple[Path | None, Path | None]


@dataclass(frozen=True)
class MetricComparison:
    """A against B on one metric. ``wins`` and ``losses`` count clips on which A is better and worse.

    A metric of the whole set (FD, IS, KAD) has no winner on a clip: its counts are None and its clips are those that
    move the difference most (none for IS of few clips, whose values are those of its splits). The sign test takes clips
    one by one, whatever recording they come from.
    """

    difference: Difference
    verdict: str  # "A better", "B better", "no difference found", or why no verdict is possible
    wins: int | None
    losses: int | None
    sign_p: float | None
    most: tuple[ClipPair, ...]

    @property
    def win_rate(self) -> float | None:
        """Share of clips on which A is better, ties counted half."""
        if self.wins is None or self.losses is None:
            return None
        n = self.difference.clips
        return (self.wins + (n - self.wins - self.losses) / 2) / n


@dataclass(frozen=True)
class Comparison:
    """A against B on all metrics, at error rate ``alpha`` for all of them together."""

    a: str
    b: str
    alpha: float
    metrics: tuple[MetricComparison, ...]
    _values: dict[str, Joint]

    def frame(self) -> pd.DataFrame:
        """One row per metric: a, b, difference, low, high, clips, win_rate, sign_p, verdict."""
        import pandas as pd

        rows = []
        for m in self.metrics:
            d = m.difference
            row = {"metric": d.metric, "a": d.new, "b": d.base, "difference": d.value, "low": d.low, "high": d.high}
            row |= {"clips": d.clips, "win_rate": m.win_rate, "sign_p": m.sign_p, "verdict": m.verdict}
            rows.append(row)
        return pd.DataFrame(rows).set_index("metric")

    def clips(self) -> pd.DataFrame:
        """One row per metric and clip: id, a, b, difference (pseudo-values for metrics of the whole set)."""
        import pandas as pd

        parts = [
            pd.DataFrame({"metric": name, "id": joint.clips, "a": joint.new.mean(axis=0), "b": joint.base.mean(axis=0)})
            for name, joint in self._values.items()
        ]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["metric", "id", "a", "b"])
        frame["difference"] = frame["a"] - frame["b"]
        return frame


def compare_runs(a: Paths, b: Paths, *, alpha: float = 0.05, most: int = 5) -> Comparison:
    """Compare two runs, or runs of several seeds each. Raises UsageError when they are not comparable."""
    if not 0.0 < alpha < 0.5:
        raise UsageError(f"--alpha must lie between 0 and 0.5, got {alpha:g}")
    if most < 0:
        raise UsageError(f"--clips must be at least 0, got {most}")
    ours, theirs = read_side(a), read_side(b)
    refuse_incomparable(ours, theirs)
    values = read_sides(ours, theirs)
    require_common_clips(values, ours, theirs)
    every = [*ours, *theirs]
    names = [m for m in theirs[0].scores["protocol"]["metrics"] if all(m in run.scores["metrics"] for run in every)]
    joints = {name: joint for name in names if isinstance(joint := join(name, ours, theirs, values), Joint)}
    found = [
        _metric(difference(name, ours, theirs, values, alpha / len(names), 2), joints.get(name), ours, theirs, most)
        for name in names
    ]
    labels = _labels(ours, theirs)
    return Comparison(*labels, alpha, tuple(found), joints)


def _labels(a: Sequence[Run], b: Sequence[Run]) -> tuple[str, str]:
    names = a[0].name, b[0].name
    return names if names[0] != names[1] else (f"{names[0]} ({a[0].path})", f"{names[1]} ({b[0].path})")


def _metric(d: Difference, joint: Joint | None, a: Sequence[Run], b: Sequence[Run], most: int) -> MetricComparison:
    verdict = {"worse": "B better", "better": "A better", "same": "no difference found", "unknown": d.reason}[d.verdict]
    if joint is None:
        return MetricComparison(d, verdict, None, None, None, ())
    ours, theirs = joint.new.mean(axis=0), joint.base.mean(axis=0)
    order = np.argsort(-np.abs(ours - theirs - (d.value if joint.whole_set else 0.0)), kind="stable")[:most]
    pairs = [
        ClipPair(clip, float(ours[i]), float(theirs[i]), (media_of(a[0], clip), media_of(b[0], clip)))
        for i, clip in ((i, joint.clips[i]) for i in order)
    ]
    if joint.whole_set:
        alike = len(set(ours.tolist())) <= len(set(joint.units)) < len(ours)  # one value per split tells no clip apart
        return MetricComparison(d, verdict, None, None, None, () if alike else tuple(pairs))
    above, below, p = sign_test(ours - theirs)
    wins, losses = (above, below) if d.higher_is_better else (below, above)
    return MetricComparison(d, verdict, wins, losses, p, tuple(pairs))


def media_of(run: Run, clip: str) -> Path | None:
    """What a run folder holds of a clip: the video to watch, else the sample (the first of several)."""
    for stem in (clip, f"{clip}~0"):
        for pattern in _MEDIA:
            path = run.path / pattern.format(stem)
            if path.is_file():
                return path
    return None
