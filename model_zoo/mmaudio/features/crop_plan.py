"""What an extraction is to make: how recordings are cut, and the list of all shards, which lies beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from av_bench.contracts import UsageError
from av_bench.runtime.files import write_atomically
from model_zoo.mmaudio.features.shard_file import DTYPES, digest_of

FILE = ".plan.json"
CODE_SECONDS = 8.1  # the published code asks for this much sound per crop


@dataclass(frozen=True)
class CropPlan:
    """How to cut recordings, and how many crops go into a shard.

    ``rule``: ``paper`` (section 3.5.1: under 16 s one crop, else up to five of 8 s that don't overlap) or ``code`` (the
    published code counts in steps of 8.1 s, so a recording needs at least 8.1 s). ``video``: the first seconds only,
    with visual features; the paper takes VGGSound so.
    """

    rule: Literal["paper", "code"] = "paper"
    most: int = 5
    video: bool = False
    shard_size: int = 4096
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        if self.rule not in ("paper", "code"):
            raise UsageError(f"extraction: unknown rule {self.rule!r}; choose paper or code")
        if self.dtype not in DTYPES:
            raise UsageError(f"extraction: unknown storage type {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        for what, number in (("crops of a recording", self.most), ("samples per shard", self.shard_size)):
            if number < 1:
                raise UsageError(f"extraction: {what} must be at least 1, got {number}")

    def step(self, window: float) -> float:
        """Seconds that the rule counts a crop of ``window`` seconds as."""
        return CODE_SECONDS if self.rule == "code" else window


def write_plan(root: Path, content: Mapping[str, Any]) -> None:
    """Store the list of units of a feature folder; workers that race write the same bytes."""
    sealed = {**content, "digest": digest_of(dict(content))}
    write_atomically(root / FILE, json.dumps(sealed, allow_nan=False).encode())


def read_plan(root: Path) -> dict[str, Any] | None:
    """What ``write_plan`` stored, None where there is no plan. UsageError when the file is damaged."""
    path = root / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("digest") != digest_of(content):
        raise UsageError(
            f"{path} is damaged, or of an earlier version; remove this file and run the extraction again with the same "
            "arguments: it lists the shards again and makes only what is missing"
        )
    return content


def check_complete(root: Path) -> None:
    """UsageError when shards of an extraction into ``root`` are missing; folders without a plan are not judged."""
    content = read_plan(root)
    if content is None:
        return
    missing = [name for name in content["units"] if not (root / name).exists()]
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{root}: {len(missing)} of {len(content['units'])} shards are missing ({first}); the extraction is not "
            "complete. Wait for its workers, or run the same command to resume the extraction"
        )
