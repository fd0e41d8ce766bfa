"""Shapes of the files of a run folder, and the one reader that checks them.

Keys that are not listed are left as they are: what newer versions add does not make a run unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

from av_bench.contracts import Flavour, UsageError, printable
from av_bench.rows import LARGEST_TABLE
from av_bench.schema import FiniteFloat, NonNegativeInt, build, load_json

SCHEMA = 1

Shape = TypeVar("Shape")


class Named(TypedDict):
    """The set of a run."""

    name: str
    version: str
    list_hash: str


class Measured(TypedDict):
    """The protocol of a run: its columns in order."""

    name: str
    version: str
    metrics: list[str]
    seconds: NotRequired[FiniteFloat]
    remark: NotRequired[str]
    notes: NotRequired[list[str]]


class Counts(TypedDict):
    """Clips of the set, clips scored, and the others by reason code."""

    expected: NonNegativeInt
    scored: NonNegativeInt
    excluded: dict[str, NonNegativeInt]
    flagged: dict[str, NonNegativeInt]


class Entry(TypedDict):
    """One metric. A truth value is not a number."""

    value: FiniteFloat
    n: NonNegativeInt
    higher_is_better: bool
    unit: str
    extractors: dict[str, str]
    notes: list[str]
    details: dict[str, Any]
    flavour: NotRequired[Flavour]
    interval: NotRequired[list[FiniteFloat] | None]


class Against(TypedDict):
    """A clean subset's difference to the full set."""

    difference: FiniteFloat
    interval: NotRequired[list[FiniteFloat]]


class CleanEntry(TypedDict):
    """One metric on a clean subset."""

    value: FiniteFloat
    against_full: NotRequired[Against]


class Clean(TypedDict):
    """Scores of the clips that an audit did not find in the training data."""

    scored: NonNegativeInt
    left_out: NonNegativeInt
    metrics: dict[str, CleanEntry]


class Pack(TypedDict):
    """The reference pack of a run."""

    digest: str
    networks_stated: bool
    source: NotRequired[str]


class Scores(TypedDict):
    """``scores.json``."""

    schema: int
    set: Named
    protocol: Measured
    flavour: str
    counts: Counts
    scored_hash: str
    metrics: dict[str, Entry]
    absent: dict[str, str]
    warnings: list[str]
    definition: NotRequired[dict[str, Any] | None]
    reference: NotRequired[Pack | None]
    clean: NotRequired[Clean]


class Timing(TypedDict):
    """Seconds that a sample takes."""

    mean: FiniteFloat
    n: NonNegativeInt
    sd: NotRequired[FiniteFloat]
    how: NotRequired[str]
    device: NotRequired[str]


class Parameters(TypedDict):
    """Weights of a model."""

    count: NonNegativeInt
    source: NotRequired[str]


class Described(TypedDict):
    """What is known of the generator."""

    training_sets: NotRequired[list[str]]
    parameters: NotRequired[Parameters]
    seconds_per_sample: NotRequired[Timing]
    paper: NotRequired[list[dict[str, str]]]
    metric_networks_used: NotRequired[dict[str, str]]
    problems: NotRequired[list[str]]


class SpecOf(TypedDict):
    """What a run was asked to do, as far as it is read back."""

    model: str
    label: NotRequired[str | None]
    set: NotRequired[str]
    protocol: NotRequired[str]
    protocol_version: NotRequired[str]
    seed: NotRequired[int]
    samples: NotRequired[str | None]
    samples_per_clip: NotRequired[NonNegativeInt]


class Request(TypedDict):
    """Where the clips of a run came from, as its user said."""

    set: NotRequired[str]
    data: NotRequired[str | None]
    table: NotRequired[str | None]
    lists: NotRequired[str | None]
    limit: NotRequired[int | None]


class ScoredFrom(TypedDict):
    """What the scores of a run depend on, and the files that hold them, as digests (``pipeline.unchanged``)."""

    inputs: str
    files: dict[str, str]


class Info(TypedDict):
    """``run.json``."""

    spec: SpecOf
    schema: NotRequired[int]
    request: NotRequired[Request]
    generator: NotRequired[Described]
    extractors: NotRequired[dict[str, str]]  # name -> fingerprint
    scored_from: NotRequired[ScoredFrom]


class Inputs(TypedDict):
    """``inputs.json``: what earlier starts were made from."""

    media: NotRequired[dict[str, list[str]]]
    samples: NotRequired[dict[str, str]]
    generator: NotRequired[str]


def read_record(path: Path, kind: type[Shape]) -> Shape:
    """A JSON file of a run folder, checked, with printable texts. UsageError says what is wrong and what to do."""
    try:
        return build(kind, _printable(_checked_schema(load_json(path, LARGEST_TABLE), path)), str(path))
    except UsageError as error:
        raise UsageError(f"{error}; remove that file and start the run again, or take a copy that is whole") from error


def refuse_newer(path: Path) -> None:
    """UsageError when a file was written by a newer version, whose records must not be replaced by older ones."""
    if path.is_file():
        _checked_schema(load_json(path, LARGEST_TABLE), path)


def _checked_schema(content: object, path: Path) -> object:
    found = content.get("schema", SCHEMA) if isinstance(content, Mapping) else SCHEMA
    if found != SCHEMA or isinstance(found, bool):
        raise UsageError(f"{path} has schema {found!r}, this version reads {SCHEMA}: use the version that wrote it")
    return content


def _printable(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    return value
