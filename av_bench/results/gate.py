"""A run against a baseline: pass or fail, with reasons.

Every metric is compared clip by clip with the baseline (``av_bench.results.compare``). It is a **regression** when the
loss exceeds the metric's tolerance beyond noise. The noise is that of clips and, with several seeds, of seeds; the
metrics share alpha (``av_bench.metrics.family``), so that a model that did not change fails the whole gate in at most
that share of runs (``benchmarks/gate.py`` measures it, ``docs/statistics.md`` shows it). What cannot be compared never
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from av_bench.contracts import UsageError, printable
from av_bench.results.compare import Difference, Joint, Values, difference, incomparable, join, read_sides
from av_bench.results.record import Run, read_run
from av_bench.results.rules import Rule, Rules, read_rules
from av_bench.results.shapes import Counts, Entry

SEEN = 0.8  # the loss that is named as visible is seen in this share of runs


class Outcome(StrEnum):
    """What a check found."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SAME = "same"
    CANNOT_TELL = "cannot tell"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Check:
    """One line of the verdict. ``alpha`` and ``sides`` say how it was tested, ``tolerance`` what it may lose."""

    name: str
    passed: bool
    outcome: Outcome
    detail: str
    difference: Difference | None = None
    alpha: float | None = None
    sides: int = 1
    tolerance: float = 0.0
    clips_needed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "detail", printable(self.detail))


@dataclass(frozen=True)
class Verdict:
    """All checks of a gate, and the notes that belong to them."""

    new: str
    base: str
    checks: tuple[Check, ...]
    alpha: float
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """True when no check failed."""
        return all(check.passed for check in self.checks)

    @property
    def comparable(self) -> bool:
        """False when a run cannot be read or the runs are of different things, so that no metric was judged."""
        return not any(check.name in ("readable", "comparable") for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 not comparable."""
        return 0 if self.passed else 1 if self.comparable else 2


Paths = Path | str | Sequence[Path | str]


def gate(new: Paths, against: Paths, rules: Path | str | Rules | None = None) -> Verdict:
    """Compare a run, or runs of several seeds, with a baseline of one or several seeds.

    A run that cannot be read is a failed check. Raises UsageError for runs that share fewer than two clips, and for
    rules that are not right.
    """
    found = rules if isinstance(rules, Rules) else read_rules(Path(rules)) if rules is not None else Rules()
    try:
        sides = read_side(new), read_side(against)
    except UsageError as error:
        check = Check("readable", False, Outcome.NOT_COMPARABLE, str(error))
        return Verdict(_written(new), _written(against), (check,), found.alpha)
    return judge(*sides, found)


def _written(paths: Paths) -> str:
    """A side as it was given."""
    return str(paths) if isinstance(paths, Path | str) else ", ".join(map(str, paths))


def judge(ours: Sequence[Run], theirs: Sequence[Run], found: Rules) -> Verdict:
    """:func:`gate` of runs that are read already: the new side, the baseline, the rules."""
    names = _names(ours), _names(theirs)
    problems = list(dict.fromkeys(p for run in [*ours, *theirs[1:]] for p in incomparable(run, theirs[0])))
    if problems:
        check = Check("comparable", False, Outcome.NOT_COMPARABLE, "; ".join(problems))
        return Verdict(*names, (check,), found.alpha)
    values = read_sides(ours, theirs)
    require_common_clips(values, ours, theirs)
    checks = [_coverage(ours, theirs, found), *_unknown(ours, theirs, found), *_metrics(ours, theirs, values, found)]
    return Verdict(*names, tuple(checks), found.alpha, _notes(ours, theirs))


def read_side(paths: Paths) -> list[Run]:
    """Runs of one side: one folder, several, or a folder that holds the runs of several seeds (``seed*``)."""
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    folders: list[Path] = []
    for path in map(Path, given):
        seeds = sorted(p for p in path.glob("seed*") if (p / "scores.json").is_file())
        folders += seeds if seeds and not (path / "scores.json").exists() else [path]
    if not folders:
        raise UsageError("no run folder given")
    runs = [read_run(path) for path in folders]
    specs = [(run.info["spec"].get("model"), run.info["spec"].get("samples")) for run in runs]
    seeds_of = [run.info["spec"].get("seed") for run in runs]
    if len(runs) > 1 and len({model for model, _ in specs}) > 1:
        models = ", ".join(sorted({str(model) for model, _ in specs}))
        raise UsageError(f"{folders[0]} and the runs beside it are of different models ({models}), not seeds of one")
    if len(runs) > 1 and len(set(zip(map(str, specs), seeds_of, strict=True))) < len(runs):
        raise UsageError(f"{folders[0]} and the runs beside it share a seed; give runs of different seeds")
    return runs


def require_common_clips(values: Values, new: Sequence[Run], base: Sequence[Run]) -> None:
    """UsageError when fewer than two clips have a value on both sides."""
    scored = [{clip for series in run.values() for clip in series.value} for side in values for run in side]
    common = set.intersection(*scored)
    if len(common) < 2:
        how = "no clip" if not common else "only one clip"
        raise UsageError(
            f"{new[0].path} and {base[0].path} have {how} in common; differences need two: score the same set"
        )


def _names(runs: Sequence[Run]) -> str:
    return str(runs[0].path) if len(runs) == 1 else f"{runs[0].path.parent} ({len(runs)} seeds)"


def _notes(new: Sequence[Run], base: Sequence[Run]) -> tuple[str, ...]:
    notes = []
    if len(new) == 1 and len(base) == 1:
        notes.append(
            "one seed on each side: noise that all clips of a seed share is not seen; "
            "`av-bench run --seeds 5` makes a baseline that shows it"
        )
    if any(not run.scores.get("definition") for run in (*new, *base)):
        notes.append("a run of version 0.1 does not record its definitions: equal names and versions are believed")
    return tuple(notes)


def _coverage(new: Sequence[Run], base: Sequence[Run], rules: Rules) -> Check:
    """Lost clips, by a rule of their own. Of several runs the one that scored least counts."""
    ours, theirs = (min((run.scores["counts"] for run in side), key=_scored) for side in (new, base))
    lost = max(0, theirs["scored"] - ours["scored"])
    allowed = rules.may_lose(theirs["scored"])
    detail = f"{ours['scored']} of {ours['expected']} clips scored, baseline {theirs['scored']} of {theirs['expected']}"
    if lost:
        detail += f"; {lost} lost, {allowed} may be"
        why = ", ".join(f"{n} {reason}" for reason, n in ours["excluded"].items())
        detail += f" ({why})" if why else ""
    failed = lost > allowed
    return Check("clips", not failed, Outcome.REGRESSION if failed else Outcome.SAME, detail)


def _scored(counts: Counts) -> int:
    return int(counts["scored"])


def _unknown(new: Sequence[Run], base: Sequence[Run], rules: Rules) -> list[Check]:
    known = {metric for run in (*new, *base) for metric in run.scores["metrics"]}
    detail = "a rule names a metric that no run has"
    return [Check(n, False, Outcome.NOT_COMPARABLE, detail) for n in sorted(set(rules.metrics) - known)]


def _metrics(new: Sequence[Run], base: Sequence[Run], values: Values, rules: Rules) -> list[Check]:
    have = [m for m in base[0].scores["protocol"]["metrics"] if all(m in run.scores["metrics"] for run in base)]
    wanted = [m for m in have if not rules.of(m).ignore]
    shared = _shared_level([m for m in wanted if rules.of(m).alpha is None], new, base, values, rules)
    checks = []
    for name in wanted:
        lacking = [run for run in new if name not in run.scores["metrics"]]
        if lacking:
            reason = lacking[0].scores["absent"].get(name, "the new run did not compute it")
            checks.append(Check(name, False, Outcome.NOT_COMPARABLE, f"absent: {reason}"))
            continue
        alpha, sides = rules.of(name).alpha or shared, rules.sides(name)
        found = difference(name, new, base, values, alpha, sides)
        checks.append(_judge(found, rules, alpha, sides))
    common = {m for m in new[0].scores["metrics"] if all(m in run.scores["metrics"] for run in new)}
    for name in sorted(set(rules.metrics) & common - set(have)):
        checks += _only_new(name, rules.of(name), new[0].scores["metrics"][name])
    return checks or [Check("metrics", False, Outcome.NOT_COMPARABLE, "the baseline holds no metric to compare with")]


def _shared_level(
    metrics: Sequence[str], new: Sequence[Run], base: Sequence[Run], values: Values, rules: Rules
) -> float:
    """Level of each of the metrics that share the gate's alpha."""
    from av_bench.metrics.family import Member, level_of_each

    members = []
    for name in metrics:
        joint = join(name, new, base, values)
        if isinstance(joint, Joint) and len(set(joint.units)) > 1:
            worse = -1.0 if base[0].scores["metrics"][name]["higher_is_better"] else 1.0
            members.append(Member(joint.new, joint.base, joint.units, worse, rules.sides(name)))
    return level_of_each(members, rules.alpha)


def _only_new(name: str, rule: Rule, entry: Entry) -> list[Check]:
    """A rule on a metric that the baseline lacks: its limit can be judged, a tolerance cannot."""
    if rule.ignore:
        return []
    value, up = float(entry["value"]), bool(entry["higher_is_better"])
    if rule.limit is None:
        detail = "a rule gives a tolerance, but the baseline lacks the metric"
        return [Check(name, False, Outcome.NOT_COMPARABLE, detail)]
    if _beyond(value, rule.limit, up):
        return [Check(name, False, Outcome.REGRESSION, f"{value:.4g} is beyond the limit {rule.limit:g}")]
    detail = f"{value:.4g} is within the limit {rule.limit:g}; the baseline lacks the metric"
    return [Check(name, True, Outcome.SAME, detail)]


def _beyond(value: float, limit: float, up: bool) -> bool:
    return value < limit if up else value > limit


def _judge(d: Difference, rules: Rules, alpha: float, sides: int) -> Check:
    rule = rules.of(d.metric)
    tolerance = rule.tolerated(d.base)

    def check(passed: bool, outcome: Outcome, detail: str, needed: int | None = None) -> Check:
        return Check(d.metric, passed, outcome, detail, d, alpha, sides, tolerance, needed)

    if rule.limit is not None and _beyond(d.new, rule.limit, d.higher_is_better):
        return check(False, Outcome.REGRESSION, f"{d.new:.4g} is beyond the limit {rule.limit:g}")
    if d.negligible:
        return check(True, Outcome.SAME, "equal to rounding")
    undecided = rules.cannot_tell == "pass"
    if d.effect is None:
        return check(undecided and d.worse_by <= tolerance, Outcome.CANNOT_TELL, d.reason)
    reach = d.effect.reach(alpha, sides)
    beyond = f"beyond noise (alpha {alpha:.2g}, {'one' if sides == 1 else 'two'}-sided)"
    if d.worse_by - reach > tolerance:
        return check(
            False,
            Outcome.REGRESSION,
            f"worse by more than {tolerance:.3g} {beyond}" if tolerance else f"worse {beyond}",
        )
    if d.worse_by + reach < -tolerance:
        return check(True, Outcome.IMPROVEMENT, f"better {beyond}")
    if tolerance and d.worse_by + reach > tolerance:
        needed = d.effect.clips_needed(alpha, sides, abs(tolerance - d.worse_by))
        how = f"about {needed} clips would tell" if needed else "more clips would not tell, more seeds would"
        return check(
            undecided,
            Outcome.CANNOT_TELL,
            f"a loss above {tolerance:.3g} is neither shown nor ruled out: {how}",
            needed,
        )
    if tolerance:
        return check(True, Outcome.SAME, f"a loss above {tolerance:.3g} is ruled out (alpha {alpha:.2g})")
    return check(True, Outcome.SAME, f"no loss {beyond}; a loss of {visible(d, alpha, sides):.3g} would be seen")


def visible(d: Difference, alpha: float, sides: int) -> float:
    """Loss that this comparison would call a regression in 80 % of runs, in the metric's unit."""
    from scipy import stats

    assert d.effect is not None
    return d.effect.reach(alpha, sides) + float(stats.norm.ppf(SEEN)) * d.effect.error
