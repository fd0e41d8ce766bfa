"""The gate: tells regression from noise, and fails closed. One test per outcome, per rule and per bad input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from av_bench.cli.app import app
from av_bench.contracts import AvBenchError, UsageError
from av_bench.results import gate_report
from av_bench.results.gate import Verdict, gate, read_side
from av_bench.results.rules import Rules, read_rules
from av_bench.results.values import PSEUDO
from tests.runs import make_run

METRICS = ("FD-x", "KL-x", "F1")


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {check.name: str(check.outcome) for check in verdict.checks}


def rules_file(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


# --------------------------------------------------------------------------- outcomes


def test_same(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "new"), make_run(tmp_path / "base"))
    assert verdict.passed
    assert outcomes(verdict) == {"clips": "same", "FD-x": "same", "KL-x": "same", "F1": "same"}
    assert verdict.exit_code == 0


def test_regression(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "worse", shift=0.1), make_run(tmp_path / "base"))
    assert outcomes(verdict) == {"clips": "same"} | dict.fromkeys(METRICS, "regression")
    assert verdict.exit_code == 1


def test_improvement(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "better", shift=-0.1), make_run(tmp_path / "base"))
    assert verdict.passed
    assert outcomes(verdict) == {"clips": "same"} | dict.fromkeys(METRICS, "improvement")


def test_cannot_tell_says_how_many_clips_would(tmp_path: Path) -> None:
    new, base = (make_run(tmp_path / name, generation_seed=k, noise=0.4) for k, name in enumerate(("new", "base")))
    rules = rules_file(tmp_path, "metrics: {KL-x: {tolerance: 0.01}}")
    check = next(c for c in gate(new, base, rules).checks if c.name == "KL-x")
    assert (check.outcome, check.passed) == ("cannot tell", True)
    assert check.clips_needed is not None
    assert check.clips_needed > 40
    assert f"about {check.clips_needed} clips would tell" in check.detail
    strict = rules_file(tmp_path, "{cannot_tell: fail, metrics: {KL-x: {tolerance: 0.01}}}")
    assert not gate(new, base, strict).passed


def test_a_ruled_out_loss_is_same(tmp_path: Path) -> None:
    new, base = make_run(tmp_path / "new", generation_seed=2, noise=0.1), make_run(tmp_path / "base", noise=0.1)
    check = gate(new, base, rules_file(tmp_path, "metrics: {KL-x: {tolerance: 0.5}}")).checks[2]
    assert (check.name, check.outcome) == ("KL-x", "same")
    assert "a loss above 0.5 is ruled out" in check.detail


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"version": "2"}, "protocol version differs"),
        ({"flavour": "paper"}, "flavour differs (paper against strict)"),
        ({"set": {"name": "toy", "version": "1", "list_hash": "other"}}, "captions, labels or onsets of the 40 clips"),
        ({"n": 32, "set": {"name": "toy", "version": "1", "list_hash": "b"}}, "32 clips against 40"),
        ({"set": {"name": "toy", "version": "2", "list_hash": "abc"}}, "set version differs (2 against 1)"),
    ],
)
def test_not_comparable(tmp_path: Path, options: dict[str, object], why: str) -> None:
    verdict = gate(make_run(tmp_path / "new", **options), make_run(tmp_path / "base"))  # type: ignore[arg-type]
    assert outcomes(verdict) == {"comparable": "not comparable"}
    assert why in verdict.checks[0].detail
    assert verdict.exit_code == 2


def test_other_networks_are_named(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new")
    scores = json.loads((new / "scores.json").read_text())
    scores["metrics"]["KL-x"]["extractors"] = {"x": "x-2"}
    (new / "scores.json").write_text(json.dumps(scores))
    assert "the networks behind KL-x differ: x " in gate(new, base).checks[0].detail


def definition(seconds: float, splits: int = 10) -> dict[str, object]:
    metrics = {"FD-x": {"kind": "frechet"}, "IS": {"kind": "inception", "splits": splits}}
    return {"hash": str(seconds), "protocol": {"seconds": seconds, "metrics": metrics}, "set": {"kind": "folder"}}


def test_an_edited_definition_is_not_comparable_and_named(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", definition=definition(8.2))
    verdict = gate(make_run(tmp_path / "new", definition=definition(8.0, splits=5)), base)
    detail = verdict.checks[0].detail
    assert "protocol: seconds (8.0 against 8.2)" in detail
    assert "protocol: metrics.IS.splits (5 against 10)" in detail
    added = definition(8.2)
    added["protocol"]["metrics"]["KAD"] = {"kind": "kernel_distance"}  # type: ignore[index]
    assert gate(make_run(tmp_path / "more", definition=added), base).passed  # another column takes nothing away


def test_a_run_of_version_0_1_without_definition_is_read(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    (base / PSEUDO).unlink()
    verdict = gate(make_run(tmp_path / "new", definition=definition(8.0)), base)
    assert verdict.comparable
    assert any("version 0.1" in note for note in verdict.notes)
    found = {check.name: check for check in verdict.checks}
    assert found["KL-x"].outcome == "same"
    assert found["FD-x"].outcome == "same"  # equal values need no noise to be the same
    worse = {c.name: c for c in gate(make_run(tmp_path / "worse", shift=0.1), base).checks}
    assert (worse["FD-x"].outcome, worse["FD-x"].passed) == ("cannot tell", False)
    assert "no values of FD-x per clip" in worse["FD-x"].detail


def test_a_missing_metric_fails(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "new", drop=("F1",)), make_run(tmp_path / "base"))
    assert outcomes(verdict)["F1"] == "not comparable"
    assert verdict.exit_code == 1


def test_a_baseline_without_metrics_fails(tmp_path: Path) -> None:
    empty = make_run(tmp_path / "base", drop=METRICS)
    with pytest.raises(UsageError, match="no clip in common"):
        gate(make_run(tmp_path / "new"), empty)


def test_rounding_is_not_a_regression(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    assert outcomes(gate(make_run(tmp_path / "new", shift=5e-6), base))["KL-x"] == "same"  # every clip is worse
    assert outcomes(gate(make_run(tmp_path / "more", shift=1e-3), base))["KL-x"] == "regression"


# --------------------------------------------------------------------------- noise


def test_the_same_clips_are_paired_for_every_metric(tmp_path: Path) -> None:
    """A loss far below the spread over clips is seen, for FD too, and at 39 common clips as at 40."""
    base = make_run(tmp_path / "base", noise=0.01)
    for n in (40, 39):
        new = make_run(tmp_path / f"new{n}", shift=0.02, noise=0.01, generation_seed=2, n=n, excluded=40 - n)
        found = outcomes(gate(new, base, Rules(lost_clips=1)))
        assert [found[m] for m in METRICS] == ["regression"] * 3


def test_unchanged_models_pass(tmp_path: Path) -> None:
    """Twenty pairs of seeds of one model: at most 5 % of gates may fail, so more than 4 would be a mistake."""
    runs = [make_run(tmp_path / f"{k}", generation_seed=k, noise=0.3) for k in range(40)]
    alarms = [not gate(a, b).passed for a, b in zip(runs[::2], runs[1::2], strict=True)]
    assert sum(alarms) <= 4


def test_seeds_of_one_side_raise_the_bar(tmp_path: Path) -> None:
    """A loss within the spread of the baseline's seeds passes; against one of these seeds alone it would not."""
    for k, shift in enumerate((-0.1, 0.0, 0.1)):
        make_run(tmp_path / "base" / f"seed{k}", generation_seed=k, shift=shift, noise=0.01)
    new = make_run(tmp_path / "new", generation_seed=9, shift=0.05, noise=0.01)
    verdict = gate(new, tmp_path / "base")
    assert verdict.passed
    assert verdict.notes == (
        "a run of version 0.1 does not record its definitions: equal names and versions are believed",
    )
    assert not gate(new, tmp_path / "base" / "seed1").passed
    far = make_run(tmp_path / "far", generation_seed=9, shift=3.0, noise=0.01)
    assert outcomes(gate(far, sorted((tmp_path / "base").glob("seed*"))))["KL-x"] == "regression"
    found = next(c for c in verdict.checks if c.name == "KL-x").difference
    assert found is not None
    assert found.effect is not None
    assert found.effect.seeds == (1, 3)
    assert found.effect.seed_variance > 10 * found.effect.clip_variance


def test_one_seed_each_says_what_it_cannot_know(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "new"), make_run(tmp_path / "base"))
    assert "noise that all clips of a seed share is not seen" in verdict.notes[0]


def test_seeds_must_be_of_one_model_and_differ(tmp_path: Path) -> None:
    a = make_run(tmp_path / "s" / "seed1", model="a", generation_seed=1)
    b = make_run(tmp_path / "s" / "seed2", model="b", generation_seed=2)
    with pytest.raises(UsageError, match=r"different models \(a, b\)"):
        read_side(tmp_path / "s")
    with pytest.raises(UsageError, match="share a seed"):
        read_side([a, make_run(tmp_path / "again", model="a", generation_seed=1)])
    del b


def test_lost_clips_have_a_rule_of_their_own(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    new = make_run(tmp_path / "new", n=38, excluded=2)
    verdict = gate(new, base)
    assert outcomes(verdict)["clips"] == "regression"
    assert "2 lost, 0 may be (2 unreadable)" in verdict.checks[0].detail
    assert [outcomes(verdict)[m] for m in ("KL-x", "F1")] == ["same", "same"]  # the others are judged all the same
    for text, passes in (("lost_clips: 2", True), ("lost_clips: 0.05", True), ("lost_clips: 0.02", False)):
        assert gate(new, base, rules_file(tmp_path, text)).passed == passes


def test_metrics_of_the_whole_set_need_most_clips_in_common(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new", n=30, excluded=10, shift=0.1)
    check = next(c for c in gate(new, base).checks if c.name == "FD-x")
    assert check.outcome == "cannot tell"
    assert "30 of 40 clips" in check.detail
    assert "table --common" in check.detail


# --------------------------------------------------------------------------- rules


def test_tolerances(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base"), make_run(tmp_path / "new", shift=0.1)
    text = "metrics: {FD-x: {tolerance: 2}, KL-x: {ignore: true}, F1: {relative_tolerance: 0.2}}"
    verdict = gate(new, base, rules_file(tmp_path, text))
    assert verdict.passed
    assert outcomes(verdict) == {"clips": "same", "FD-x": "same", "F1": "same"}
    assert not gate(new, base, rules_file(tmp_path, "metrics: {FD-x: {relative_tolerance: 0.1}}")).passed
    limited = gate(new, base, rules_file(tmp_path, "metrics: {FD-x: {tolerance: 2, limit: 5.5}}"))
    assert outcomes(limited)["FD-x"] == "regression"
    assert "beyond the limit 5.5" in limited.checks[1].detail


def test_alpha_and_sides(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base", noise=0.3), make_run(tmp_path / "new", noise=0.3, generation_seed=2)
    usual = {c.name: c for c in gate(new, base).checks}
    assert len({usual[m].alpha for m in METRICS}) == 1
    assert 0.05 / 3 <= (usual["F1"].alpha or 0) < 0.03  # three metrics that do not move together share 0.05
    text = "{alpha: 0.1, sided: two, metrics: {F1: {alpha: 0.01, sided: one}}}"
    own = {c.name: c for c in gate(new, base, rules_file(tmp_path, text)).checks}
    assert [own[m].sides for m in METRICS] == [2, 2, 1]
    assert own["F1"].alpha == 0.01
    assert 0.05 <= (own["KL-x"].alpha or 0) < 0.08
    widths = [c["KL-x"].difference.high - c["KL-x"].difference.low for c in (usual, own)]  # type: ignore[union-attr,operator]
    assert widths[0] != widths[1]


def test_a_rule_that_could_not_be_applied_fails(tmp_path: Path) -> None:
    base, new = make_run(tmp_path / "base", drop=("KL-x",)), make_run(tmp_path / "new")
    for text, outcome, passes in (
        ("limit: 1.0", "regression", False),
        ("limit: 5", "same", True),
        ("tolerance: 1", "not comparable", False),
        ("ignore: true", None, True),
    ):
        verdict = gate(new, base, rules_file(tmp_path, f"metrics: {{KL-x: {{{text}}}}}"))
        assert outcomes(verdict).get("KL-x") == outcome
        assert verdict.passed == passes
    unknown = gate(new, base, rules_file(tmp_path, "metrics: {XL: {tolerance: 1}}"))
    assert outcomes(unknown)["XL"] == "not comparable"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {F1: {tolerence: 1}}", "Did you mean 'tolerance'"),
        ("metrics: {F1: {tolerance: -1}}", "at least 0"),
        ("metrics: {F1: {tolerance: true}}", "expected a number"),
        ("metrics: {F1: {limit: .nan}}", "finite"),
        ("metrics: {F1: {ignore: 1}}", "true or false"),
        ("metrics: {F1: {alpha: 5}}", "above 0 and below 0.5"),
        ("alpha: 0", "above 0"),
        ("sided: both", "sided"),
        ("cannot_tell: maybe", "cannot_tell"),
        ("lost: 3", "lost_clips"),
        ("[]", "expected keys and values"),
        ("metrics: {F1: {", "not YAML"),
    ],
)
def test_bad_rules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = rules_file(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        read_rules(path)
    assert "\n" not in str(caught.value)


def test_packs_that_do_not_say_their_networks_are_not_compared(tmp_path: Path) -> None:
    said = {"digest": "a", "source": "made here", "networks_stated": True}
    base, packed = make_run(tmp_path / "base"), make_run(tmp_path / "packed", reference=said)
    assert gate(packed, base).passed
    unsaid = make_run(tmp_path / "unsaid", reference=said | {"networks_stated": False})
    assert outcomes(gate(unsaid, base)) == {"comparable": "not comparable"}


# --------------------------------------------------------------------------- reports


def test_reports_say_the_same(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "new", shift=0.1, noise=0.1, generation_seed=2), make_run(tmp_path / "base"))
    suite = ElementTree.fromstring(gate_report.junit(verdict))
    names = [case.get("name") for case in suite]
    assert names == ["clips", *METRICS]
    assert len(set(names)) == len(names)
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert suite.get("failures") == str(len(failed))
    content = json.loads(gate_report.as_json(verdict))
    assert [c["name"] for c in content["checks"] if not c["passed"]] == failed
    for check in content["checks"][1:]:
        low, high = check["interval"]
        assert low < check["difference"] < high
        assert (check["p"] < check["alpha"]) == (check["outcome"] == "regression")
    text = gate_report.markdown(verdict)
    assert f"### Gate FAILED: {', '.join(map(str, failed))}" in text
    assert "**regression**" in text


def test_not_comparable_is_in_all_reports(tmp_path: Path) -> None:
    verdict = gate(make_run(tmp_path / "new", flavour="paper"), make_run(tmp_path / "base"))
    assert b'type="not comparable"' in gate_report.junit(verdict)
    assert "### Gate not comparable" in gate_report.markdown(verdict)
    assert json.loads(gate_report.as_json(verdict))["comparable"] is False


# --------------------------------------------------------------------------- command line


def state(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def run_cli(*arguments: object) -> tuple[int, str]:
    """Exit code as the program gives it, and the message of a refusal."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, AvBenchError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def without_clip_values(folder: Path) -> None:
    (folder / "clips.parquet").unlink()


def without_scores(folder: Path) -> None:
    (folder / "scores.json").unlink()


def nan_by_hand(folder: Path) -> None:
    text = (folder / "scores.json").read_text()
    value = json.loads(text)["metrics"]["FD-x"]["value"]
    (folder / "scores.json").write_text(text.replace(f'"value": {value}', '"value": NaN', 1))


def nan_in_details(folder: Path) -> None:
    text = (folder / "scores.json").read_text()
    (folder / "scores.json").write_text(text.replace('"sd": 0.1', '"sd": NaN', 1))


def null_value(folder: Path) -> None:
    scores = json.loads((folder / "scores.json").read_text())
    scores["metrics"]["FD-x"]["value"] = None
    (folder / "scores.json").write_text(json.dumps(scores))


def nan_of_a_clip(folder: Path) -> None:
    table = pq.read_table(folder / "clips.parquet").to_pandas()
    table.loc[0, "value"] = np.nan
    pq.write_table(pa.Table.from_pandas(table), folder / "clips.parquet")


def torn_values(folder: Path) -> None:
    (folder / "clips.parquet").write_bytes(b"PAR1 torn")


def only(count: int) -> Callable[[Path], None]:
    """Keeps values of the last clips only (of the first, where none is wanted in common)."""

    def spoil(folder: Path) -> None:
        scores = json.loads((folder / "scores.json").read_text())
        for name in ("clips.parquet", PSEUDO):
            table = pq.read_table(folder / name).to_pandas()
            keep = sorted(table["id"].unique())[:count]
            table = table[table["id"].isin(keep)]
            table.loc[:, "id"] = [i if count == 1 else f"other-{i}" for i in table["id"]]
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), folder / name)
            for metric, values in table.groupby("metric")["value"]:
                scores["metrics"][metric] |= {"value": values.mean(), "n": len(values)}
        (folder / "scores.json").write_text(json.dumps(scores))

    return spoil


@pytest.mark.parametrize("side", ["new", "base"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_clip_values, "clips.parquet is missing"),
        (without_scores, "scores.json is missing"),
        (nan_by_hand, "NaN"),
        (nan_in_details, "NaN"),
        (null_value, "expected a number"),
        (nan_of_a_clip, "not a number"),
        (torn_values, "cannot be read"),
        (only(5), "no clip in common"),
        (only(1), "only one clip in common"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, side: str
) -> None:
    folders = {name: make_run(tmp_path / name) for name in ("new", "base")}
    (folders["new"] / "gate.xml").write_text("of an earlier gate")
    spoil(folders[side])
    before = state(tmp_path)
    for command in (
        ("gate", folders["new"], "--against", folders["base"]),
        ("compare", folders["new"], folders["base"], "--out", tmp_path / "compare.md"),
    ):
        code, text = run_cli(*command)
        assert code == 2
        assert message in text
        assert "\n" not in text.strip()
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    [{"flavour": "paper"}, {"set": {"name": "toy", "version": "1", "list_hash": "other"}}, {"version": "2"}],
)
def test_other_lists_and_flavours_are_one_line_and_exit_2(tmp_path: Path, options: dict[str, object]) -> None:
    new, base = make_run(tmp_path / "new", **options), make_run(tmp_path / "base")  # type: ignore[arg-type]
    (new / "gate.xml").write_text("of an earlier gate")
    before = state(tmp_path)
    code, text = run_cli("gate", new, "--against", base)
    assert (code, "\n" in text.strip()) == (2, False)
    assert "cannot be compared" in text
    assert state(tmp_path) == before
    run_cli("gate", new, "--against", base, "--junit", tmp_path / "asked.xml")
    assert "not comparable" in (tmp_path / "asked.xml").read_text()  # a file that CI asked for says what happened


def test_the_command_writes_its_reports(tmp_path: Path) -> None:
    new, base = make_run(tmp_path / "new", shift=0.1), make_run(tmp_path / "base")
    code, text = run_cli("gate", new, "--against", base)
    assert code == 1
    assert "gate FAILED: FD-x, KL-x, F1" in text
    assert {"gate.xml", "gate.md", "gate.json"} <= {p.name for p in new.iterdir()}
    assert run_cli("gate", base, "--against", new)[0] == 0


def test_a_shell_may_expand_the_seeds(tmp_path: Path) -> None:
    seeds = [make_run(tmp_path / "base" / f"seed{k}", generation_seed=k, noise=0.1) for k in range(3)]
    new = make_run(tmp_path / "new", generation_seed=9, noise=0.1)
    code, text = run_cli("gate", new, "--against", *seeds, "--json", tmp_path / "gate.json")
    assert code == 0, text
    content = json.loads((tmp_path / "gate.json").read_text())
    assert content["checks"][1]["seeds"] == [1, 3]
    code, text = run_cli("gate", "--against", seeds[0], seeds[0])  # the option first takes one folder, as ever
    assert code == 0, text


# --------------------------------------------------------------------------- baselines


def test_update_makes_a_baseline_with_its_reason(tmp_path: Path) -> None:
    new, base = make_run(tmp_path / "new", shift=0.1), tmp_path / "baselines" / "toy"
    (new / "audio").mkdir()
    (new / "audio" / "a.wav").write_bytes(b"large")
    base.parent.mkdir()
    assert run_cli("gate", new, "--against", base, "--update", "--reason", "first one")[0] == 0
    assert {p.name for p in base.iterdir()} == {
        "run.json", "scores.json", "spec.json", "clips.parquet", PSEUDO, "HISTORY.md"
    }  # fmt: skip
    assert gate(new, base).passed
    better = make_run(tmp_path / "better")
    assert run_cli("gate", better, "--against", base, "--update", "--reason", "louder training data")[0] == 0
    history = (base / "HISTORY.md").read_text()
    assert history.index("louder training data") < history.index("first one")
    assert "| FD-x | 6.0000 | 5.0000 |" in history
    assert gate(better, base).passed
    assert [p.name for p in base.parent.iterdir()] == ["toy"]


def test_update_takes_seeds(tmp_path: Path) -> None:
    seeds = [make_run(tmp_path / "new" / f"seed{k}", generation_seed=k, noise=0.1) for k in range(3)]
    assert run_cli("gate", *seeds, "--against", tmp_path / "base", "--update", "--reason", "three seeds")[0] == 0
    assert len(read_side(tmp_path / "base")) == 3


@pytest.mark.parametrize(("reason", "message"), [("", "needs --reason"), ("  ", "needs --reason")])
def test_update_needs_a_reason(tmp_path: Path, reason: str, message: str) -> None:
    new, base = make_run(tmp_path / "new"), make_run(tmp_path / "base", shift=1)
    before = state(tmp_path)
    code, text = run_cli("gate", new, "--against", base, "--update", "--reason", reason)
    assert (code, message in text) == (2, True)
    assert state(tmp_path) == before


def test_update_replaces_baselines_only(tmp_path: Path) -> None:
    new, other = make_run(tmp_path / "new"), tmp_path / "pictures"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"x")
    before = state(tmp_path)
    for folder, message in ((other, "not a baseline"), (new, "the new run itself")):
        code, text = run_cli("gate", new, "--against", folder, "--update", "--reason", "why")
        assert (code, message in text) == (2, True)
    nan_by_hand(new)
    spoiled = state(tmp_path)
    assert run_cli("gate", new, "--against", tmp_path / "b", "--update", "--reason", "why")[0] == 2
    assert state(tmp_path) == spoiled
    assert before.keys() == spoiled.keys()
