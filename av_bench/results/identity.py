"""What two runs must share to be compared, and in which fields they differ when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from av_bench.results.record import Run


def incomparable(new: Run, base: Run) -> list[str]:
    """Why two runs cannot be compared, one text per reason; empty when they can. Seeds and models may differ."""
    problems = _clip_list(new, base) + _definition(new, base)
    if new.scores["flavour"] != base.scores["flavour"]:
        problems.append(f"flavour differs ({new.scores['flavour']} against {base.scores['flavour']})")
    packs = [unstated_pack(run) for run in (new, base)]
    if packs[0] != packs[1]:
        problems.append("the reference packs differ, and do not both say which networks they came from")
    for metric in sorted(set(new.scores["metrics"]) & set(base.scores["metrics"])):
        ours, theirs = (run.scores["metrics"][metric]["extractors"] for run in (new, base))
        if ours != theirs:
            names = [n for n in sorted(set(ours) | set(theirs)) if ours.get(n) != theirs.get(n)]
            problems.append(f"the networks behind {metric} differ: {', '.join(names)} (weights, front end or device)")
    return problems


def definition_key(run: Run) -> str:
    """What tells a run's protocol and set apart from others of the same name; empty for runs of version 0.1."""
    return str(run.scores.get("definition", {}).get("hash", ""))


def unstated_pack(run: Run) -> str | None:
    """Digest of a reference pack that does not say which networks made it, None for every other real side."""
    pack = run.scores.get("reference")
    return None if pack is None or pack["networks_stated"] else str(pack["digest"])


def changed_fields(new: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested mappings differ, with both values where these are short."""
    changed = []
    for key in sorted(set(new) | set(base)):
        ours, theirs = new.get(key), base.get(key)
        if ours == theirs:
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            changed += changed_fields(ours, theirs, f"{prefix}{key}.")
        elif len(text := f"{prefix}{key} ({_short(ours)} against {_short(theirs)})") <= 100:
            changed.append(text)
        else:
            changed.append(f"{prefix}{key}")
    return changed


def _short(value: Any) -> str:
    return "absent" if value is None else str(value)


def _clip_list(new: Run, base: Run) -> list[str]:
    problems = []
    for what, group, key in (("set", "set", "name"), ("set version", "set", "version")):
        ours, theirs = new.scores[group][key], base.scores[group][key]
        if ours != theirs:
            problems.append(f"{what} differs ({ours} against {theirs})")
    if new.scores["set"]["list_hash"] != base.scores["set"]["list_hash"]:
        counts = [run.scores["counts"]["expected"] for run in (new, base)]
        if counts[0] != counts[1]:
            problems.append(f"list of clips differs: {counts[0]} clips against {counts[1]}")
        else:
            problems.append(f"list of clips differs: ids, captions, labels or onsets of the {counts[0]} clips")
    return problems


def _definition(new: Run, base: Run) -> list[str]:
    problems = []
    for what, key in (("protocol", "name"), ("protocol version", "version")):
        ours, theirs = new.scores["protocol"][key], base.scores["protocol"][key]
        if ours != theirs:
            problems.append(f"{what} differs ({ours} against {theirs})")
    if problems or not definition_key(new) or not definition_key(base) or definition_key(new) == definition_key(base):
        return problems
    ours, theirs = new.scores["definition"], base.scores["definition"]
    fields = [f"{part}: {text}" for part in ("protocol", "set") for text in changed_fields(ours[part], theirs[part])]
    if not fields:
        return problems
    return [*problems, f"the definitions differ under the same name and version: {'; '.join(fields)}"]
