"""A run against a committed baseline: pass or fail, with reasons, in a form that CI reads.

A metric regresses when the new run is worse by more than its tolerance *and* the interval of the difference excludes
zero. The intervals are at level 1 - 0.05 / m for m metrics, so that a gate over many metrics raises a false alarm in
at most 5 % of the unchanged runs. Whatever cannot be compared fails the gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from av_bench.contracts import UsageError
from av_bench.results.compare import Difference, differences, incomparable
from av_bench.results.record import Run, read_run

FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Rule:
    """What a metric may lose: ``tolerance`` in its unit; ``limit`` is an absolute bound; ``ignore`` leaves it out."""

    tolerance: float = 0.0
    limit: float | None = None
    ignore: bool = False


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    name: str
    passed: bool
    verdict: str
    detail: str
    difference: Difference | None = None


@dataclass(frozen=True)
class Verdict:
    """All checks of a gate."""

    new: str
    base: str
    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """True when no check failed."""
        return all(check.passed for check in self.checks)


def gate(new: Path | str, against: Path | str, rules: Path | str | None = None) -> Verdict:
    """Compare a run with a baseline. Anything missing or not comparable is a failed check, never a pass."""
    rule_of = read_rules(Path(rules)) if rules is not None else {}
    try:
        ours, theirs = read_run(new), read_run(against)
    except UsageError as error:
        return Verdict(str(new), str(against), (Check("runs", False, "unreadable", str(error)),))
    checks = [Check("comparable", False, "not comparable", problem) for problem in incomparable(ours, theirs)]
    if not checks:
        known = set(theirs.scores["metrics"]) | set(ours.scores["metrics"])
        unknown = sorted(set(rule_of) - known)
        checks += [Check(n, False, "unknown", "a rule names a metric that neither run has") for n in unknown]
        checks.append(_coverage(ours, theirs))
        checks += _metrics(ours, theirs, rule_of)
    return Verdict(str(new), str(against), tuple(checks))


def read_rules(path: Path) -> dict[str, Rule]:
    """``metrics: {NAME: {tolerance: 0.1, limit: 5, ignore: false}}``."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--rules {path}: cannot be read: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("metrics"), dict):
        raise UsageError(f"--rules {path}: a mapping with the key metrics is expected")
    rules = {}
    for name, options in data["metrics"].items():
        try:
            rules[str(name)] = Rule(**(options or {}))
        except TypeError as error:
            raise UsageError(f"--rules {path}, metric {name}: {error}; known keys: tolerance, limit, ignore") from error
        _check_rule(rules[str(name)], f"--rules {path}, metric {name}")
    return rules


def _check_rule(rule: Rule, where: str) -> None:
    if not _number(rule.tolerance) or rule.tolerance < 0:
        raise UsageError(f"{where}: tolerance must be a number of at least 0, found {rule.tolerance!r}")
    if rule.limit is not None and not _number(rule.limit):
        raise UsageError(f"{where}: limit must be a number, found {rule.limit!r} (YAML reads 1e-2 as text: write 0.01)")
    if not isinstance(rule.ignore, bool):
        raise UsageError(f"{where}: ignore must be true or false, found {rule.ignore!r}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _coverage(new: Run, base: Run) -> Check:
    ours, theirs = new.scores["counts"], base.scores["counts"]
    detail = f"{ours['scored']} of {ours['expected']} clips scored, baseline {theirs['scored']} of {theirs['expected']}"
    passed = ours["scored"] >= theirs["scored"]
    return Check("coverage", passed, "same" if passed else "clips lost", detail)


def _metrics(new: Run, base: Run, rules: dict[str, Rule]) -> list[Check]:
    wanted = [m for m in base.scores["metrics"] if not rules.get(m, Rule()).ignore]
    level = 1 - FALSE_ALARMS / max(1, len(wanted))
    found = {d.metric: d for d in differences(new, base, level, wanted)}
    checks = []
    for name in [m for m in base.scores["protocol"]["metrics"] if m in wanted]:
        if name not in found:
            reason = new.scores["absent"].get(name, "the new run did not compute it")
            checks.append(Check(name, False, "missing", reason))
        else:
            checks.append(_judge(found[name], rules.get(name, Rule()), level))
    for name in sorted(set(rules) & set(new.scores["metrics"]) - set(base.scores["metrics"])):
        checks += _only_new(name, rules[name], new.scores["metrics"][name])
    if not checks:
        checks.append(Check("metrics", False, "missing", "the baseline holds no metric to compare with"))
    return checks


def _only_new(name: str, rule: Rule, entry: Mapping[str, Any]) -> list[Check]:
    """A rule on a metric that the baseline lacks: its limit can be judged, a tolerance cannot."""
    if rule.ignore:
        return []
    value, up = float(entry["value"]), bool(entry["higher_is_better"])
    if rule.limit is None:
        return [Check(name, False, "missing", "a rule gives a tolerance, but the baseline lacks the metric")]
    if value < rule.limit if up else value > rule.limit:
        return [Check(name, False, "beyond limit", f"{value:.4g} is beyond the limit {rule.limit:g}")]
    return [Check(name, True, "within limit", f"{value:.4g}; the baseline lacks the metric, judged by the limit alone")]


def _judge(difference: Difference, rule: Rule, level: float) -> Check:
    if rule.limit is not None:
        beyond = difference.new < rule.limit if difference.higher_is_better else difference.new > rule.limit
        if beyond:
            detail = f"{difference.new:.4g} is beyond the limit {rule.limit:g}"
            return Check(difference.metric, False, "beyond limit", detail, difference)
    verdict = difference.verdict
    if verdict == "unknown":
        passed = difference.worse_by <= rule.tolerance
        detail = "no interval (too few clips): judged by the tolerance alone"
        return Check(difference.metric, passed, "worse" if not passed else "same", detail, difference)
    passed = verdict != "worse" or difference.worse_by <= rule.tolerance
    detail = {
        "same": f"within noise at level {level:.3f}",
        "better": f"better beyond noise at level {level:.3f}",
        "worse": f"worse beyond noise at level {level:.3f}" + (", within the tolerance" if passed else ""),
    }[verdict]
    label = {"same": "same", "better": "better", "worse": "regression" if not passed else "tolerated"}[verdict]
    return Check(difference.metric, passed, label, detail, difference)


def markdown(verdict: Verdict) -> str:
    """Summary for a CI page."""
    head = "passed" if verdict.passed else "FAILED"
    lines = [f"### Gate {head}", "", f"`{verdict.new}` against `{verdict.base}`", ""]
    lines += ["| check | baseline | new | difference (interval) | verdict | why |", "|---|---:|---:|---:|---|---|"]
    for check in verdict.checks:
        base, new, interval = cells(check)
        mark = check.verdict if check.passed else f"**{check.verdict}**"
        detail = check.detail.replace("|", "\\|")
        lines.append(f"| {check.name} | {base} | {new} | {interval} | {mark} | {detail} |")
    return "\n".join(lines) + "\n"


def cells(check: Check) -> tuple[str, str, str]:
    """Baseline, new and difference of a check as text; empty for checks without numbers."""
    d = check.difference
    if d is None:
        return "", "", ""
    interval = f"{d.value:+.4f}" if d.low is None else f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
    return f"{d.base:.4f}", f"{d.new:.4f}", interval


def junit(verdict: Verdict) -> bytes:
    """JUnit XML: one test case per check."""
    failures = sum(not check.passed for check in verdict.checks)
    attributes = {"name": "av-bench gate", "tests": str(len(verdict.checks)), "failures": str(failures)}
    suite = ElementTree.Element("testsuite", attributes)
    for check in verdict.checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "av_bench.gate", "name": check.name})
        text = f"{check.verdict}: {check.detail}. " + " ".join(filter(None, cells(check)))
        if not check.passed:
            ElementTree.SubElement(case, "failure", {"message": check.detail, "type": check.verdict}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suite)
    payload: Any = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return bytes(payload)
