"""The file contract between the harness and a generator in another environment.

In: ``request.json`` (one job) and ``items.jsonl`` (one line per clip and sample). Out: ``outputs.jsonl`` (one line per
clip and sample, appended as samples get ready) and ``result.json`` (written last). Answers come from foreign code, so
they are read strictly: a key that is missing, unknown or of the wrong type is named, and nothing is filled in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from av_bench.contracts import UsageError, unknown_name

CONTRACT_VERSION = 1
Task = Literal["v2a", "tv2a", "t2a"]
PARTS = ("features", "generation", "decoding")

Record = TypeVar("Record")


@dataclass(frozen=True)
class Request:
    """One job. ``seconds`` is the length to generate, ``timeout`` fields are seconds of wall time."""

    run_id: str
    model: Mapping[str, str | None]  # name, variant, weights_dir, revision
    task: Task
    seconds: float
    seed: int
    samples_per_item: int
    generation: Mapping[str, Any]  # steps, guidance, negative_prompt, extra
    device: str
    dtype: str
    output_dir: str
    cache_dir: str
    limits: Mapping[str, float | None]  # timeout_s (whole job), load_s, item_s
    warmup_items: int  # the first items of each process do not count in timings
    batch_size: int = 1
    network: bool = False
    contract_version: int = CONTRACT_VERSION


@dataclass(frozen=True)
class Item:
    """One sample to make. ``video`` is a copy without its sound; ``seed`` is ``clip_seed(seed, id, k)``."""

    id: str
    k: int
    seed: int
    video: str | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    start_s: float = 0.0
    text: str | None = None
    text_kind: Literal["label", "caption", "none"] = "none"
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The answer for one (id, k). ``path`` is relative to the output folder; ``seconds`` is split in PARTS."""

    id: str
    k: int
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    path: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    n_samples: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_gpu_bytes: int | None = None
    seed: int | None = None
    fingerprint: str = ""
    warm: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """The header of an answer: what made the samples, how many weights it has, how many rows it wrote."""

    fingerprint: Mapping[str, Any]
    counters: Mapping[str, int]
    exit_code: int
    parameters: int | None = None
    contract_version: int = CONTRACT_VERSION


def read_row(line: str, where: str) -> Row:
    """One line of ``outputs.jsonl``. UsageError names file, line and key."""
    row = _read(Row, line, where)
    if row.k < 0:
        raise UsageError(f"{where}: k is {row.k}, samples are counted from 0")
    if row.status == "ok" and (row.path is None or row.sample_rate is None):
        raise UsageError(f"{where}: status ok needs path and sample_rate")
    if row.status != "ok" and not row.reason:
        raise UsageError(f"{where}: status {row.status} needs a reason")
    for part, seconds in row.seconds.items():
        if part not in PARTS:
            raise UsageError(f"{where}: seconds: {unknown_name('part', part, list(PARTS))}")
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"{where}: seconds: {part} is {seconds!r}")
    return row


def read_result(path: Path) -> Result:
    """``result.json``. UsageError when it is missing or off."""
    if not path.is_file():
        raise UsageError(f"{path} is missing: the driver did not finish")
    result = _read(Result, path.read_text(encoding="utf8"), str(path))
    if result.contract_version != CONTRACT_VERSION:
        raise UsageError(f"{path}: contract_version {result.contract_version}, this harness reads {CONTRACT_VERSION}")
    if result.parameters is not None and result.parameters < 1:
        raise UsageError(f"{path}: parameters is {result.parameters}; leave it out when it is not known")
    return result


def write_lines(items: list[Item]) -> bytes:
    """``items.jsonl``, in ASCII: some readers take a line separator inside a caption for the end of the line."""
    return "".join(json.dumps(asdict(item)) + "\n" for item in items).encode()


def key_of(line: str) -> tuple[str, int] | None:
    """(id, k) of a line that may be off in everything else, None when it names no item."""
    try:
        data = json.loads(line)
        name, k = data["id"], data["k"]
    except (ValueError, TypeError, KeyError):
        return None
    return (name, k) if isinstance(name, str) and isinstance(k, int) else None


def _read(kind: type[Record], text: str, where: str) -> Record:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from error
    return checked(kind, data, where)


def checked(kind: type[Record], data: Any, where: str) -> Record:
    """A mapping as one of the dataclasses of this package; UsageError names the first key that is off."""
    if not isinstance(data, dict):
        raise UsageError(f"{where}: a mapping is expected, found {type(data).__name__}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: {unknown_name('key', str(key), list(known))}")
    for name, spec in known.items():
        required = spec.default is MISSING and spec.default_factory is MISSING
        if name not in data and required:
            raise UsageError(f"{where}: the key {name} is missing")
    return kind(**{key: _typed(hints[key], value, f"{where}: {key}") for key, value in data.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type of a field. bool is no number, int is a float, nothing else is converted."""
    origin = get_origin(hint)
    if origin is UnionType:
        if value is None and NoneType in get_args(hint):
            return None
        options = [t for t in get_args(hint) if t is not NoneType]
        return _typed(options[0], value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where} is {value!r}; allowed are {', '.join(map(str, get_args(hint)))}")
        return value
    if origin is tuple:
        _expect(list, value, where)
        return tuple(_typed(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(dict, value, where)
        inner = get_args(hint)[1]
        return {str(k): v if inner is Any else _typed(inner, v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        return checked(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(hint, value, where)
    return value


def _expect(kind: type, value: Any, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
        raise UsageError(f"{where}: {names.get(kind, 'a mapping')} is expected, found {value!r}")
