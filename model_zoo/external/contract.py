"""The file contract between the harness and a generator in another environment.

In: ``request.json`` (one job) and ``items.jsonl`` (one line per clip and sample). Out: ``outputs.jsonl`` (one line per
clip and sample, appended as samples get ready) and ``result.json`` (written last). Answers come from foreign code, so
they are read strictly: a key that is missing, unknown or of the wrong type is named, and nothing is filled in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from av_bench.contracts import UsageError, unknown_name
from av_bench.schema import build, parse_json

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
    text: str | None = None
    text_kind: Literal["label", "caption", "none"] = "none"
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputRow:
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


def read_row(line: str, where: str) -> OutputRow:
    """One line of ``outputs.jsonl``. UsageError names file, line and key."""
    row = _read(OutputRow, line, where)
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
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (name, k) if isinstance(name, str) and isinstance(k, int) else None


def _read(kind: type[Record], text: str, where: str) -> Record:
    return build(kind, parse_json(text, where), where)
