"""The shards of a run: how a list is cut, which shard a process is, and what each leaves behind.

``RUN/shards/split.json``   into how many shards the run is cut, and the task numbers of the array that started it
``RUN/shards/3-of-8/``      one shard: ``shard.json`` (code, paths, request), ``spec.json``, ``inputs.json``,
                            ``ledger.jsonl``, ``owner.json`` (who works on it), and at the end ``clips.jsonl`` (what
                            became of each clip) and ``manifest.json``, which comes last and makes it complete
``RUN/audio/``              the samples of all shards

Nothing but atomic renames is asked of the file system: no lock reaches another machine, and no clock is compared.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError
from av_bench.results.record import SPLIT, dumps, environment
from av_bench.results.shapes import read_record
from av_bench.runtime.files import write_atomically

TASK, COUNT, MIN, STEP = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP"))
SLURM = "slurm"  # the word for a shard that the array's environment names


@dataclass(frozen=True)
class Split:
    """Into how many shards a run is cut. Shard i is task ``first + i * step`` of the array that started it."""

    of: int
    first: int = 0
    step: int = 1

    def task(self, number: int) -> int:
        """The number of a shard in the array."""
        return self.first + number * self.step


@dataclass(frozen=True)
class Shard:
    """One shard of a run, counted from 0."""

    number: int
    of: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number}-of-{self.of}"

    def has(self, clip_id: str) -> bool:
        """Whether a clip (or a unit of clips that begins with it) is one of this shard's."""
        return shard_of(clip_id, self.of) == self.number


def shard_of(clip_id: str, shards: int) -> int:
    """The shard of a clip: a function of its id alone, so that it stays when the list grows."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") % shards


def choose_shard(asked: str, run: Path, variables: Mapping[str, str] | None = None) -> tuple[Shard, Split]:
    """The shard that ``i/n`` or ``slurm`` means for a run folder.

    A job array that runs only the missing tasks again has other numbers of tasks in its environment, so the split
    that the run folder remembers is what counts. UsageError when both do not fit.
    """
    variables = os.environ if variables is None else variables
    known = read_split(run)
    if asked == SLURM:
        return _from_array(known, run, variables)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", asked)
    if match is None:
        raise UsageError(f"--shard is {asked!r}; i/n (from 0: 0/8 to 7/8) or slurm is expected")
    number, of = int(match[1]), int(match[2])
    if of < 1:
        raise UsageError(f"--shard {asked}: a run is cut into at least one shard (0/1)")
    if number >= of:
        raise UsageError(f"--shard {asked}: shards count from 0, so the last of {of} is {of - 1}/{of}")
    if known is not None and known.of != of:
        raise UsageError(f"--shard {asked}: {run} is cut into {known.of} shards; give i/{known.of} or another --out")
    return Shard(number, of), known or Split(of)


def _from_array(known: Split | None, run: Path, variables: Mapping[str, str]) -> tuple[Shard, Split]:
    numbers = {name: _number(variables, name) for name in (TASK, COUNT, MIN, STEP)}
    task, count = numbers[TASK], numbers[COUNT]
    if task is None or not count:
        raise UsageError(f"--shard slurm: {TASK} and {COUNT} are not set; this is not a task of a job array. Give i/n")
    split = known or Split(count, numbers[MIN] or 0, numbers[STEP] or 1)
    number, rest = divmod(task - split.first, split.step)
    if rest or not 0 <= number < split.of:
        last = split.task(split.of - 1)
        steps = f" in steps of {split.step}" if split.step != 1 else ""
        where = f"{run} is cut into" if known else "this array has"
        gap = "Number the array without gaps"
        advice = "Use these numbers, or choose another --out to divide it again" if known else gap
        raise UsageError(
            f"--shard slurm: task {task} is none of the {split.of} that {where}: {split.first} to {last}{steps}. "
            f"{advice}, or give --shard i/n"
        )
    return Shard(number, split.of), split


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    if text and not text.isdecimal():
        raise UsageError(f"{name} is {text!r}; a number is expected")
    return int(text) if text else None


def read_split(run: Path) -> Split | None:
    """How a run is cut, None when it is not. UsageError for a file that is none of ours."""
    path = run / SPLIT
    if not path.is_file():
        return None
    found = read_record(path, dict)
    try:
        split = Split(int(found["of"]), int(found["first"]), int(found["step"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not whole ({error}); remove {path.parent} and run the shards again") from error
    if split.of < 1 or split.step < 1:
        raise UsageError(f"{path}: {split.of} shards in steps of {split.step} make no sense")
    return split


def keep_split(run: Path, split: Split) -> None:
    """Remember how a run is cut. UsageError when others cut it in another way meanwhile."""
    path = run / SPLIT
    if not path.is_file():
        write_atomically(path, dumps(asdict(split)))
    known = read_split(run)
    if known is not None and known != split:
        raise UsageError(f"{run} is cut into {known.of} shards already, not {split.of}; choose another --out")


def own(folder: Path) -> str:
    """Say that this process works on a shard; returns the word by which ``still_ours`` knows it."""
    token = uuid.uuid4().hex
    owner = {"token": token, "host": socket.gethostname(), "pid": os.getpid()}
    write_atomically(folder / "owner.json", dumps(owner))
    return token


def refuse_taken_over(folder: Path, token: str) -> None:
    """UsageError when the same shard was started again by another process, which may be on another machine."""
    owner = read_record(folder / "owner.json", dict)
    if owner.get("token") != token:
        raise UsageError(
            f"{folder} was started a second time, on {owner.get('host')} (process {owner.get('pid')}); that process "
            "finishes it, this one stops"
        )


def code() -> dict[str, str]:
    """The code that computes: versions of packages, and the revision of a checkout."""
    found = environment("cpu")
    return {**found["packages"], **({"git": found["git"]} if found["git"] else {})}


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, with both values: ``torch 2.13.0 (here 2.12.0)``."""
    keys = sorted({*ours, *theirs})
    return [f"{key} {theirs.get(key)} (here {ours.get(key)})" for key in keys if ours.get(key) != theirs.get(key)]


def array_of(tasks: list[int]) -> str:
    """Numbers for ``sbatch --array``: 3,17,20-23."""
    parts: list[str] = []
    start = previous = tasks[0]
    for task in [*tasks[1:], None]:
        if task is not None and task == previous + 1:
            previous = task
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        if task is not None:
            start = previous = task
    return ",".join(parts)
