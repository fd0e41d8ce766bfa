"""The gate: tells regression from noise, and fails closed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from av_bench.contracts import UsageError
from av_bench.results import gate
from tests.runs import make_run


def verdicts(verdict: gate.Verdict) -> dict[str, str]:
    return {check.name: check.verdict for check in verdict.checks}


def test_the_same_run_passes(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new")
    verdict = gate.gate(new, base)
    assert verdict.passed
    assert verdicts(verdict) == {"coverage": "same", "FD-x": "same", "KL-x": "same", "F1": "same"}


def test_a_regression_fails_and_an_improvement_passes(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    worse = gate.gate(make_run(tmp_path / "worse", shift=0.1), base)
    assert not worse.passed
    assert verdicts(worse) == {"coverage": "same", "FD-x": "regression", "KL-x": "regression", "F1": "regression"}
    better = gate.gate(make_run(tmp_path / "better", shift=-0.1), base)
    assert better.passed
    assert verdicts(better)["KL-x"] == "better"


def test_rounding_is_not_a_regression(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    assert verdicts(gate.gate(make_run(tmp_path / "new", shift=5e-6), base))["KL-x"] == "same"  # every clip is worse
    assert verdicts(gate.gate(make_run(tmp_path / "more", shift=1e-3), base))["KL-x"] == "regression"


def test_noise_is_not_a_regression(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    alarms = [
        not gate.gate(make_run(tmp_path / f"new{seed}", seed=seed), base).passed for seed in range(1, 21)
    ]  # runs of other random numbers from the same distribution: the family-wise level is 5 %
    assert sum(alarms) <= 3


def test_rules(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new", shift=0.1)
    rules = tmp_path / "gate.yaml"
    rules.write_text("metrics: {FD-x: {tolerance: 2}, KL-x: {ignore: true}, F1: {tolerance: 0.2}}")
    verdict = gate.gate(new, base, rules)
    assert verdict.passed
    assert verdicts(verdict) == {"coverage": "same", "FD-x": "tolerated", "F1": "tolerated"}
    rules.write_text("metrics: {FD-x: {tolerance: 2, limit: 5.5}, KL-x: {ignore: true}, F1: {tolerance: 0.2}}")
    assert verdicts(gate.gate(new, base, rules))["FD-x"] == "beyond limit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {F1: {tolerence: 1}}", "known keys"),
        ("metrics: {F1: {tolerance: -1}}", "at least 0"),
        ("[]", "a mapping with the key metrics"),
        ("metrics: {F1: {", "cannot be read"),
    ],
)
def test_bad_rules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        gate.gate(make_run(tmp_path / "a"), make_run(tmp_path / "b"), tmp_path / "gate.yaml")


def _without_scores(folder: Path) -> None:
    (folder / "scores.json").unlink()


def _null_value(folder: Path) -> None:
    scores = json.loads((folder / "scores.json").read_text())
    scores["metrics"]["FD-x"]["value"] = None
    (folder / "scores.json").write_text(json.dumps(scores))


def _nan_value(folder: Path) -> None:
    text = (folder / "scores.json").read_text()
    value = json.loads(text)["metrics"]["FD-x"]["value"]
    (folder / "scores.json").write_text(text.replace(f'"value": {value}', '"value": NaN', 1))


@pytest.mark.parametrize("spoil", [_without_scores, _null_value, _nan_value])
@pytest.mark.parametrize("side", ["new", "base"])
def test_broken_runs_fail_the_gate(tmp_path: Path, spoil: object, side: str) -> None:
    folders = {name: make_run(tmp_path / name) for name in ("new", "base")}
    spoil(folders[side])  # type: ignore[operator]
    assert not gate.gate(folders["new"], folders["base"]).passed


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"version": "2"}, "protocol version differs"),
        ({"flavour": "paper"}, "flavour differs"),
        ({"set": {"name": "toy", "version": "1", "list_hash": "other"}}, "list of clips differs"),
    ],
)
def test_incomparable_runs_fail_the_gate(tmp_path: Path, options: dict[str, object], why: str) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new", **options)  # type: ignore[arg-type]
    verdict = gate.gate(new, base)
    assert not verdict.passed
    assert why in verdict.checks[0].detail


def test_a_missing_metric_and_lost_clips_fail(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    verdict = gate.gate(make_run(tmp_path / "new", drop=("F1",), n=36, excluded=4), base)
    found = verdicts(verdict)
    assert found["F1"] == "missing"
    assert found["coverage"] == "clips lost"
    assert not verdict.passed


def test_reports_for_ci(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new", shift=0.1)
    verdict = gate.gate(new, base)
    suite = ElementTree.fromstring(gate.junit(verdict))
    assert suite.get("failures") == "3"
    assert {case.get("name") for case in suite} == {"coverage", "FD-x", "KL-x", "F1"}
    text = gate.markdown(verdict)
    assert "### Gate FAILED" in text
    assert "**regression**" in text


def test_a_rule_that_could_not_be_applied_fails(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base", drop=("KL-x",)), make_run(tmp_path / "new")
    for text, verdict in (
        ("limit: 1.0", "beyond limit"),
        ("limit: 5", "within limit"),
        ("tolerance: 1", "missing"),
    ):
        rules = tmp_path / "rules.yaml"
        rules.write_text(f"metrics: {{KL-x: {{{text}}}}}")
        assert verdicts(gate.gate(new, base, rules))["KL-x"] == verdict
        assert gate.gate(new, base, rules).passed == (verdict == "within limit")


def test_a_baseline_without_metrics_fails(tmp_path: Path) -> None:
    empty = make_run(tmp_path / "base", drop=("FD-x", "KL-x", "F1"))
    verdict = gate.gate(make_run(tmp_path / "new"), empty)
    assert not verdict.passed
    assert verdicts(verdict)["metrics"] == "missing"


@pytest.mark.parametrize("text", ["limit: 1e-2", "limit: .nan", "ignore: 1", "tolerance: true"])
def test_rules_are_numbers(tmp_path: Path, text: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"metrics: {{KL-x: {{{text}}}}}")
    with pytest.raises(UsageError, match=r"metric KL-x: (limit|ignore|tolerance) must be"):
        gate.read_rules(rules)


def test_packs_that_do_not_say_their_networks_are_not_compared(tmp_path: Path) -> None:
    said = {"digest": "a", "source": "made here", "networks_stated": True}
    base, packed = make_run(tmp_path / "base"), make_run(tmp_path / "packed", reference=said)
    assert gate.gate(packed, base).passed
    unsaid = make_run(tmp_path / "unsaid", reference=said | {"networks_stated": False})
    assert verdicts(gate.gate(unsaid, base)) == {"comparable": "not comparable"}
