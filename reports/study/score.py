"""Ratings in numbers: mean and spread as the paper prints them, intervals, differences, agreement of the raters.

Intervals resample participants and clips, both, and independently (the two-way bootstrap of crossed designs): a study
of 8 clips says little about other clips, however many people have rated them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.study.answers import Answers

REPLICATES = 2000
SEED = 14159265
LEVEL = 0.95


@dataclass(frozen=True)
class Rating:
    """One cell: mean and standard deviation over all ``n`` responses; the interval respects participants and clips."""

    mean: float
    std: float
    n: int
    low: float | None  # None with one participant or one clip
    high: float | None


@dataclass(frozen=True)
class Gap:
    """Difference of two methods' means, first - second, resampled together."""

    first: str
    second: str
    question: str
    value: float
    low: float | None
    high: float | None


def ratings(answers: Answers) -> dict[str, dict[str, Rating]]:
    """Method -> question -> rating."""
    found: dict[str, dict[str, Rating]] = {method: {} for method in answers.methods}
    for question in answers.questions:
        given = answers.ratings[question]
        point = np.array([np.nanmean(given[:, :, m]) for m in range(len(answers.methods))])
        low, high = interval(two_way_means(given), point, min(given.shape[:2]))
        for m, method in enumerate(answers.methods):
            values = given[:, :, m][np.isfinite(given[:, :, m])]
            if len(values):
                std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
                found[method][question] = Rating(
                    float(values.mean()), std, len(values), _known(low[m]), _known(high[m])
                )
    return found


def gaps(answers: Answers) -> list[Gap]:
    """All pairs of methods on all questions."""
    found = []
    for question in answers.questions:
        given = answers.ratings[question]
        means = two_way_means(given)
        point = np.nanmean(given.reshape(-1, given.shape[2]), axis=0)
        for i, first in enumerate(answers.methods):
            for j in range(i + 1, len(answers.methods)):
                value = point[i : i + 1] - point[j : j + 1]
                low, high = interval(means[:, i : i + 1] - means[:, j : j + 1], value, min(given.shape[:2]))
                ends = (_known(low[0]), _known(high[0]))
                found.append(Gap(first, answers.methods[j], question, float(value[0]), *ends))
    return found


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def two_way_means(given: NDArray[np.float64], replicates: int = REPLICATES, seed: int = SEED) -> NDArray[np.float64]:
    """``(participants, clips, methods)`` -> means of each method in resampled studies, ``(replicates, methods)``.

    A replicate draws as many participants and as many clips, both with replacement; a rating counts as often as its
    participant times its clip. NaN where a replicate holds no rating of a method.
    """
    people, clips, methods = given.shape
    random = np.random.default_rng(seed)
    there = np.isfinite(given)
    values = np.where(there, given, 0.0)
    w_people = random.multinomial(people, np.full(people, 1 / people), size=replicates).astype(float)
    w_clips = random.multinomial(clips, np.full(clips, 1 / clips), size=replicates).astype(float)
    sums = np.empty((replicates, methods))
    counts = np.empty((replicates, methods))
    for m in range(methods):
        sums[:, m] = np.einsum("rp,pc,rc->r", w_people, values[:, :, m], w_clips, optimize=True)
        counts[:, m] = np.einsum("rp,pc,rc->r", w_people, there[:, :, m].astype(float), w_clips, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)


def interval(
    means: NDArray[np.float64], point: NDArray[np.float64], smaller: int, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``point`` +- t x standard deviation of the replicates; NaN where ``smaller`` is 1.

    t is that of ``smaller`` - 1 degrees of freedom: the number of participants or of clips, whichever is smaller.
    Percentiles would promise too much with the eight clips of the paper (93 % in simulation in place of 95 %).
    """
    from scipy.stats import t

    if smaller < 2:
        return np.full_like(point, np.nan), np.full_like(point, np.nan)
    half = t.ppf(0.5 + level / 2, smaller - 1) * np.nanstd(means, axis=0, ddof=1)
    return np.asarray(point - half), np.asarray(point + half)


def krippendorff_alpha(given: NDArray[np.float64]) -> float | None:
    """Agreement of raters ``(participants, items)`` on an interval scale: 1 complete, 0 as by chance.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011). Items with one rating say nothing of
    agreement and are left out; None when no item has two ratings or all ratings are equal.
    """
    columns = [given[np.isfinite(given[:, i]), i] for i in range(given.shape[1])]
    units = [c for c in columns if len(c) > 1]
    if not units:
        return None
    everything = np.concatenate(units)
    n = len(everything)
    within = sum(_squared_differences(unit) / (len(unit) - 1) for unit in units)
    total = _squared_differences(everything) / (n - 1)
    return None if total == 0 else float(1 - within / total)


def _squared_differences(values: NDArray[np.float64]) -> float:
    """Sum of squared differences over all ordered pairs."""
    return float(2 * (len(values) * (values**2).sum() - values.sum() ** 2))


def summary(answers: Answers) -> dict[str, Any]:
    """Everything as plain data, for a file and for the layouts of tables A1 and A2."""
    flat = {q: given.reshape(len(answers.participants), -1) for q, given in answers.ratings.items()}
    return {
        "kind": "study",
        "study": answers.study,
        "participants": len(answers.participants),
        "clips": list(answers.clips),
        "responses": answers.responses,
        "matched": answers.matched,
        "excluded": answers.excluded,
        "ratings": {m: {q: asdict(r) for q, r in of.items()} for m, of in ratings(answers).items()},
        "gaps": [asdict(gap) for gap in gaps(answers)],
        "agreement": {q: krippendorff_alpha(given) for q, given in flat.items()},
        "interval": f"{LEVEL:.0%}, t x deviation of a two-way bootstrap, {REPLICATES} replicates, seed {SEED}",
    }


def markdown(data: dict[str, Any]) -> str:
    """The scored study for people."""
    questions = list(data["agreement"])
    lines = [f"| method | {' | '.join(f'{q} ↑' for q in questions)} |", "|---|" + "---:|" * len(questions)]
    for method, of in data["ratings"].items():
        cells = [f"{r['mean']:.2f} ± {r['std']:.2f}{_ends(r)}" if (r := of.get(q)) else "" for q in questions]
        name = method.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"- mean ± standard deviation over responses, in brackets the interval ({data['interval']})"]
    agreement = ", ".join(f"{q} {'-' if a is None else f'{a:.2f}'}" for q, a in data["agreement"].items())
    lines.append(
        f"- {data['responses']} samples rated by {data['participants']} participants on {len(data['clips'])} clips"
    )
    lines.append(f"- agreement of raters (Krippendorff's alpha, interval scale): {agreement}")
    played = "as they are" if data["matched"] is None else f"brought to {data['matched']:g} LUFS"
    lines.append(f"- samples were played {played}")
    lines += [f"- left out: {person} ({reason})" for person, reason in data["excluded"].items()]
    return "\n".join(lines) + "\n"


def _ends(rating: dict[str, Any]) -> str:
    return "" if rating["low"] is None else f" [{rating['low']:.2f}, {rating['high']:.2f}]"
