"""The strict reader: unknown keys, types, ranges and documents that are not what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from av_bench import schema
from av_bench.contracts import UsageError
from av_bench.schema import (
    SET_BY_LOADER,
    NonNegativeFloat,
    NumberAsText,
    PositiveFloat,
    PositiveInt,
    Range,
    Sha256,
    build,
    build_arguments,
)


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Record:
    name: str
    seconds: PositiveFloat = 8.0
    least: NonNegativeFloat = 0.0
    count: PositiveInt | None = None
    version: Annotated[str, NumberAsText()] = "1"
    sha256: Sha256 | None = None
    on: bool = False
    share: Annotated[float, Range(above=0, below=1)] = 0.5
    pair: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    inners: Mapping[str, Inner] = field(default_factory=dict)
    file: Path | None = None
    source: str = field(default="here", metadata=SET_BY_LOADER)


def record(**content: Any) -> Record:
    return build(Record, {"name": "x", **content}, "doc")


def test_values_arrive_as_their_types() -> None:
    made = record(
        seconds=2, count=3, version=2, words=["a"], pair=[1, 2.5], inner={"kind": "b"}, inners={"k": {}}, file="a/b"
    )
    assert (made.seconds, type(made.seconds)) == (2.0, float)
    assert (made.count, made.version, made.words, made.pair) == (3, "2", ("a",), (1.0, 2.5))
    assert (made.inner, made.inners, made.file) == (Inner("b"), {"k": Inner("a")}, Path("a/b"))
    assert record(seconds="1e-4").seconds == 1e-4  # YAML 1.1 reads it as text
    assert record(least=0).least == 0
    assert record(count=None).count is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"second": 8}, "doc: unknown key 'second'. Did you mean 'seconds'?"),
        ({"inner": {"knd": "a"}}, "doc: inner: unknown key 'knd'. Did you mean 'kind'?"),
        ({"inners": {"k": {"knd": "a"}}}, "doc: inners.k: unknown key 'knd'"),
        ({"source": "me"}, "doc: unknown key 'source'"),
        ({"seconds": "eight"}, "doc: seconds: expected a number, got 'eight'"),
        ({"seconds": 0}, "doc: seconds: must be above 0, got 0"),
        ({"seconds": -3}, "must be above 0"),
        ({"seconds": float("nan")}, "must be above 0, got nan"),
        ({"seconds": float("inf")}, "must be above 0, got inf"),
        ({"seconds": True}, "expected a number, got True"),
        ({"least": -1}, "must be at least 0"),
        ({"count": 0}, "must be at least 1"),
        ({"count": True}, "expected a whole number, got True"),
        ({"count": 2.0}, "expected a whole number, got 2.0"),
        ({"count": "2"}, "expected a whole number, got '2'"),
        ({"version": 1.5}, "expected text, got 1.5"),
        ({"version": True}, "expected text, got True"),
        ({"name": 3}, "doc: name: expected text, got 3"),
        ({"on": 1}, "expected true or false, got 1"),
        ({"on": "yes"}, "expected true or false, got 'yes'"),
        ({"share": 1}, "must be above 0 and below 1, got 1"),
        ({"sha256": "A" * 64}, "expected 64 hex digits"),
        ({"sha256": "a" * 65}, "expected 64 hex digits"),
        ({"pair": [1]}, "doc: pair: expected 2 values, got 1"),
        ({"pair": [1, "b"]}, "doc: pair[1]: expected a number"),
        ({"words": "ab"}, "doc: words: expected a list, got 'ab'"),
        ({"inner": "a"}, "doc: inner: expected keys and values, got 'a'"),
        ({"inner": {"kind": "c"}}, "doc: inner: kind: expected one of a, b, got 'c'"),
        ({"inners": {1: {}}}, "the key 1 is not text"),
    ],
)
def test_what_is_off_is_named_with_its_place(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        record(**content)
    assert message in str(caught.value)


def test_a_key_that_must_be_there() -> None:
    with pytest.raises(UsageError, match="doc: the key 'name' is missing"):
        build(Record, {}, "doc")


def test_arguments_of_a_function_are_checked_against_its_hints() -> None:
    def metric(name: str, extractor: str, splits: PositiveInt = 10) -> None:
        del name, extractor, splits

    assert build_arguments(metric, {"extractor": "x"}, "m", skip=1) == {"extractor": "x"}
    for given, message in (
        ({}, "the option extractor is missing"),
        ({"extractor": "x", "split": 1}, "unknown option 'split'. Did you mean 'splits'"),
        ({"extractor": "x", "splits": 0}, "splits: must be at least 1"),
        ({"extractor": "x", "name": "n"}, "unknown option 'name'"),
    ):
        with pytest.raises(UsageError, match=message):
            build_arguments(metric, given, "m", skip=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "duplicate key 'a'"),
        ("a: {b: 1, b: 2}\n", "duplicate key 'b'"),
        ("a: &x 1\nb: *x\n", "aliases are not read"),
        ("a: [1\n", "not YAML"),
        ("a: " + "[" * 70 + "]" * 70, "nested more than 64 levels"),
        ("[1]: 2\n", "a key is not text"),
    ],
)
def test_yaml_that_says_two_things_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        schema.parse_yaml(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_date_in_yaml_is_text() -> None:
    assert schema.parse_yaml("day: 2024-12-19\n", "f") == {"day": "2024-12-19"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ("{", "not JSON"),
        ("[" * 70 + "]" * 70, "nested more than 64 levels"),
    ],
)
def test_json_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schema.parse_json(text, "file.json")


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with pytest.raises(UsageError, match=r"a\.yaml: no such file"):
        schema.load_yaml(file)
    with pytest.raises(UsageError, match="not a file"):
        schema.load_yaml(tmp_path)
    file.write_bytes(b"a: \xff\n")
    with pytest.raises(UsageError, match=r"not UTF-8 text \(byte 3\)"):
        schema.load_yaml(file)
    file.write_bytes(b"\xef\xbb\xbfname: x\n")  # a byte order mark is no part of the first key
    assert schema.read_yaml(file, Record) == Record("x")
    with pytest.raises(UsageError, match="11 bytes; a file of this kind has at most 5"):
        schema.load_json(file, 5)


def test_groups_are_laid_over_and_the_rest_replaced() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert schema.merge(base, {"a": {"y": [3]}, "b": {"z": 1}}) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}
