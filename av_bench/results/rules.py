"""What a gate tolerates: the rules file, checked strictly.

    alpha: 0.05            # how often an unchanged model may fail the whole gate
    sided: one             # one: only losses are looked for; two: a change in either direction, at the same alpha
    cannot_tell: pass      # or fail: what an undecided metric does to the gate
    lost_clips: 0          # clips of the baseline that the new run may lack: a number, or a share below 1
    metrics:
      FD-nano: {tolerance: 0.5, relative_tolerance: 0.005, limit: 80}
      AP: {ignore: true}
      F1: {alpha: 0.01, sided: two}

A tolerance is in the metric's unit, a relative one a share of the baseline's value; the larger counts. ``limit`` is a
value that must not be passed, whatever the baseline says. A metric with an ``alpha`` of its own is tested at that one;
the others share the gate's in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from av_bench.contracts import UsageError
from av_bench.registry import miss

ALPHA = 0.05
SIDED = ("one", "two")
ON_DOUBT = ("pass", "fail")


@dataclass(frozen=True)
class Rule:
    """What one metric may lose."""

    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    limit: float | None = None
    alpha: float | None = None
    sided: str | None = None
    ignore: bool = False

    def tolerated(self, base: float) -> float:
        """Largest loss that is no regression, in the metric's unit."""
        return max(self.tolerance, self.relative_tolerance * abs(base))


@dataclass(frozen=True)
class Rules:
    """Rules of a gate."""

    alpha: float = ALPHA
    sided: str = "one"
    cannot_tell: str = "pass"
    lost_clips: float = 0
    metrics: Mapping[str, Rule] = field(default_factory=dict)

    def of(self, metric: str) -> Rule:
        """The metric's own rule, or one that tolerates nothing."""
        return self.metrics.get(metric, Rule())

    def level(self, metric: str, metrics: int) -> tuple[float, int]:
        """Error rate of one metric, and on how many sides, when ``metrics`` share the gate's alpha."""
        rule = self.of(metric)
        alpha = rule.alpha if rule.alpha is not None else self.alpha / max(1, metrics)
        return alpha, 1 if (rule.sided or self.sided) == "one" else 2

    def may_lose(self, scored: int) -> int:
        """Clips of the baseline's ``scored`` ones that may be lost."""
        return int(self.lost_clips * scored) if self.lost_clips < 1 else int(self.lost_clips)


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file. UsageError names what is unknown or out of range, and the nearest known key."""
    where = f"--rules {path}"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{where}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not data:
        raise UsageError(f"{where}: a mapping with keys such as alpha and metrics is expected")
    _known_keys(data, Rules, where)
    metrics = data.get("metrics") or {}
    if not isinstance(metrics, dict):
        raise UsageError(f"{where}: metrics must be a mapping of metric names, found {metrics!r}")
    rules = {str(name): _rule(options, f"{where}, metric {name}") for name, options in metrics.items()}
    found = Rules(**{**data, "metrics": rules})
    _require_probability(found.alpha, f"{where}: alpha")
    _require_one_of(found.sided, SIDED, f"{where}: sided")
    _require_one_of(found.cannot_tell, ON_DOUBT, f"{where}: cannot_tell")
    _require_number(found.lost_clips, f"{where}: lost_clips", least=0.0)
    return found


def _rule(options: Any, where: str) -> Rule:
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise UsageError(f"{where}: a mapping such as {{tolerance: 0.1}} is expected, found {options!r}")
    _known_keys(options, Rule, where)
    rule = Rule(**options)
    _require_number(rule.tolerance, f"{where}: tolerance", least=0.0)
    _require_number(rule.relative_tolerance, f"{where}: relative_tolerance", least=0.0)
    if rule.limit is not None:
        _require_number(rule.limit, f"{where}: limit")
    if rule.alpha is not None:
        _require_probability(rule.alpha, f"{where}: alpha")
    if rule.sided is not None:
        _require_one_of(rule.sided, SIDED, f"{where}: sided")
    if not isinstance(rule.ignore, bool):
        raise UsageError(f"{where}: ignore must be true or false, found {rule.ignore!r}")
    return rule


def _known_keys(data: Mapping[Any, Any], kind: type[Rule] | type[Rules], where: str) -> None:
    known = [f.name for f in fields(kind)]
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: {miss('keys', str(key), known)}")


def _require_number(value: Any, where: str, least: float = -math.inf) -> None:
    if not (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= least):
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise UsageError(f"{where} must be a number{bound}, found {value!r} (YAML reads 1e-2 as text: write 0.01)")


def _require_probability(value: Any, where: str) -> None:
    _require_number(value, where)
    if not 0.0 < value < 0.5:
        raise UsageError(f"{where} must lie between 0 and 0.5, found {value!r}")


def _require_one_of(value: Any, known: tuple[str, ...], where: str) -> None:
    if value not in known:
        raise UsageError(f"{where} must be {' or '.join(known)}, found {value!r}")
