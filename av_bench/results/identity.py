"""What two runs must share to be compared, and in which fields they differ when they do not."""

from __future__ import annotations

from av_bench.results.definition import conflicts
from av_bench.results.record import Run


def incomparable(new: Run, base: Run) -> list[str]:
    """Why two runs cannot be compared, one text per reason; empty when they can. Seeds and models may differ."""
    problems = _clip_list(new, base) + _definition(new, base)
    problems += _differs("flavour", new.scores["flavour"], base.scores["flavour"])
    packs = [unstated_pack(run) for run in (new, base)]
    if packs[0] != packs[1]:
        problems.append("the reference packs differ, and do not both say which networks they came from")
    for metric in sorted(set(new.scores["metrics"]) & set(base.scores["metrics"])):
        ours, theirs = (run.scores["metrics"][metric]["extractors"] for run in (new, base))
        if ours != theirs:
            names = [n for n in sorted(set(ours) | set(theirs)) if ours.get(n) != theirs.get(n)]
            problems.append(f"the networks behind {metric} differ: {', '.join(names)} (weights, front end or device)")
    return problems


def unstated_pack(run: Run) -> str | None:
    """Digest of a reference pack that does not say which networks made it, None for every other reference."""
    pack = run.scores.get("reference")
    return None if pack is None or pack["networks_stated"] else str(pack["digest"])


def _differs(what: str, ours: str, theirs: str) -> list[str]:
    return [] if ours == theirs else [f"{what} differs ({ours} against {theirs})"]


def _clip_list(new: Run, base: Run) -> list[str]:
    ours, theirs = new.scores["set"], base.scores["set"]
    problems = _differs("set", ours["name"], theirs["name"])
    problems += _differs("set version", ours["version"], theirs["version"])
    if ours["list_hash"] != theirs["list_hash"]:
        counts = [run.scores["counts"]["expected"] for run in (new, base)]
        if counts[0] != counts[1]:
            problems.append(f"list of clips differs: {counts[0]} clips against {counts[1]}")
        else:
            problems.append(f"list of clips differs: ids, captions, labels or onsets of the {counts[0]} clips")
    return problems


def _definition(new: Run, base: Run) -> list[str]:
    ours, theirs = new.scores["protocol"], base.scores["protocol"]
    problems = _differs("protocol", ours["name"], theirs["name"])
    problems += _differs("protocol version", ours["version"], theirs["version"])
    if not problems:
        fields = conflicts(new.scores.get("definition"), base.scores.get("definition"))
        if fields:
            problems.append(f"the definitions differ under the same name and version: {'; '.join(fields)}")
    return problems
