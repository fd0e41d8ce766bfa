"""Answers of outside models: a row or a result that is off is named by its key, and nothing is filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from av_bench.contracts import UsageError
from model_zoo.external.contract import CONTRACT_VERSION, key_of, read_result, read_row

ROW = {"id": "a", "k": 0, "status": "ok", "path": "a.wav", "sample_rate": 16_000}
RESULT = {"fingerprint": {}, "counters": {"ok": 1}, "exit_code": 0}


def row(**change: Any) -> str:
    return json.dumps({k: v for k, v in {**ROW, **change}.items() if v != "left out"})


def test_an_honest_row_is_read() -> None:
    read = read_row(row(seconds={"generation": 0.5}, warm=True), "outputs.jsonl")
    assert (read.id, read.k, read.path, read.sample_rate) == ("a", 0, "a.wav", 16_000)
    assert (read.seconds, read.warm) == ({"generation": 0.5}, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": -1}, "k is -1, samples are counted from 0"),
        ({"k": "0"}, "k: expected a whole number"),
        ({"path": "left out"}, "status ok needs path and sample_rate"),
        ({"sample_rate": None}, "status ok needs path and sample_rate"),
        ({"status": "failed"}, "status failed needs a reason"),
        ({"status": "done"}, "expected one of ok, failed, skipped"),
        ({"seconds": {"sampling": 1.0}}, "unknown part 'sampling'"),
        ({"seconds": {"generation": -0.1}}, "seconds: generation is -0.1"),
        ({"rate": 16_000}, "unknown key 'rate'"),
        ({"id": "left out"}, "the key 'id' is missing"),
    ],
)
def test_a_row_that_is_off_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_row(row(**change), "outputs.jsonl")
    assert str(caught.value).startswith("outputs.jsonl: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract_version": CONTRACT_VERSION + 1}, "this harness reads"),
        ({"parameters": 0}, "parameters is 0; leave it out when it is not known"),
        ({"counters": {"ok": "1"}}, "counters.ok: expected a whole number"),
    ],
)
def test_a_result_that_is_off_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with pytest.raises(UsageError, match="the driver did not finish"):
        read_result(file)
    file.write_text(json.dumps(RESULT))
    assert read_result(file).counters == {"ok": 1}
    file.write_text(json.dumps(RESULT | change))
    with pytest.raises(UsageError) as caught:
        read_result(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (row(), ("a", 0)),
        (row(status="nonsense"), ("a", 0)),  # off in everything else
        ("not json", None),
        ("[1, 2]", None),
        (row(k="0"), None),
        (row(id="left out"), None),
    ],
)
def test_the_item_of_a_line_is_known_whatever_else_is_off(line: str, key: tuple[str, int] | None) -> None:
    assert key_of(line) == key
