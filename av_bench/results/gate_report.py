"""A verdict for machines and for pages: Markdown, JUnit XML and JSON."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from av_bench.results.gate import Check, Verdict


def headline(verdict: Verdict) -> str:
    """``passed``, ``FAILED`` or ``not comparable``, with the failed checks' names."""
    if not verdict.comparable:
        return "not comparable"
    failed = [check.name for check in verdict.checks if not check.passed]
    return f"FAILED: {', '.join(failed)}" if failed else "passed"


def cells(check: Check) -> tuple[str, str, str]:
    """Baseline, new and difference of a check as text; empty for checks without numbers."""
    d = check.difference
    if d is None:
        return "", "", ""
    interval = f"{d.value:+.4f}" if d.low is None else f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
    return f"{d.base:.4f}", f"{d.new:.4f}", interval


def markdown(verdict: Verdict) -> str:
    """Summary for a CI page."""
    lines = [f"### Gate {headline(verdict)}", "", f"`{verdict.new}` against `{verdict.base}`", ""]
    lines += ["| check | baseline | new | difference (interval) | clips | outcome | why |"]
    lines += ["|---|---:|---:|---:|---:|---|---|"]
    for check in verdict.checks:
        base, new, interval = cells(check)
        mark = str(check.outcome) if check.passed else f"**{check.outcome}**"
        clips = check.difference.clips if check.difference is not None else ""
        lines.append(f"| {_md(check.name)} | {base} | {new} | {interval} | {clips} | {mark} | {_md(check.detail)} |")
    lines += ["", f"An unchanged model fails this gate in at most {verdict.alpha:.0%} of runs."]
    lines += [f"Note: {_md(note)}." for note in verdict.notes]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def junit(verdict: Verdict) -> bytes:
    """JUnit XML: one test case per check, each with a name of its own."""
    failures = sum(not check.passed for check in verdict.checks)
    attributes = {"name": "av-bench gate", "tests": str(len(verdict.checks)), "failures": str(failures)}
    suite = ElementTree.Element("testsuite", attributes)
    for check in verdict.checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "av_bench.gate", "name": check.name})
        text = f"{check.outcome}: {check.detail}. " + " ".join(filter(None, cells(check)))
        if not check.passed:
            attributes = {"message": check.detail, "type": str(check.outcome)}
            ElementTree.SubElement(case, "failure", attributes).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suite)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def as_json(verdict: Verdict) -> bytes:
    """Everything in one JSON document."""
    content = {
        "new": verdict.new,
        "base": verdict.base,
        "passed": verdict.passed,
        "comparable": verdict.comparable,
        "alpha": verdict.alpha,
        "notes": list(verdict.notes),
        "checks": [_check(check) for check in verdict.checks],
    }
    return (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _check(check: Check) -> dict[str, object]:
    content: dict[str, object] = {
        "name": check.name,
        "passed": check.passed,
        "outcome": str(check.outcome),
        "detail": check.detail,
    }
    if check.clips_needed is not None:
        content["clips_needed"] = check.clips_needed
    d = check.difference
    if d is None:
        return content
    content |= {"base": d.base, "new": d.new, "difference": d.value, "worse_by": d.worse_by, "clips": d.clips}
    content |= {"tolerance": check.tolerance, "alpha": check.alpha, "sides": check.sides}
    if d.effect is not None and check.alpha is not None:
        direction = -1.0 if d.higher_is_better else 1.0
        content |= {
            "interval": [d.low, d.high],
            "error": d.effect.error,
            "error_of_clips": d.effect.clip_variance**0.5,
            "error_of_seeds": d.effect.seed_variance**0.5,
            "p": d.effect.p_value(direction, check.sides),
            "units": d.effect.units,
            "seeds": list(d.effect.seeds),
        }
    return content
