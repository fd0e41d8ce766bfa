"""The run folder: what was run, with what, on which clips, with which result.

``run.json``      spec, versions, environment, seconds per stage (changes from run to run)
``scores.json``   per metric: value, interval, n, direction, flavour, extractors; counts; absent metrics with reasons
``clips.parquet`` one row per clip and metric: id, group, metric, value (a missing number has no row)
``pseudo_values.parquet`` the same for metrics of the whole set (FD, IS, KAD): how far each clip moves them, see
                  ``av_bench.metrics.paired``; ``group`` is the unit that moves together
``ledger.jsonl``  append-only: every clip, every stage, ok or excluded with a reason code
``audio/``        what the generator made

``scores.json`` and both ``.parquet`` files are functions of spec and inputs alone: a run that was killed and started
again
ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from av_bench.contracts import Reason, UsageError
from av_bench.results.definition import conflicts
from av_bench.results.ledger import Ledger, entry, read_ledger
from av_bench.results.shapes import SCHEMA as SCHEMA
from av_bench.results.shapes import Info, Inputs, Scores, read_record, refuse_newer
from av_bench.results.values import PSEUDO, ClipValues, check_values, read_values
from av_bench.runtime.files import ABANDONED, lock, remove_parts, write_atomically

if TYPE_CHECKING:
    import pandas as pd

RESULTS = ("scores.json", "run.json", "clips.parquet")  # without one of these a run has not ended
SPLIT = Path("shards", "split.json")  # in a run folder that is cut into shards
_PACKAGES = ("av-bench", "torch", "numpy", "scipy", "av", "librosa", "pandas", "scikit-learn", "soundfile")
_INPUTS = "inputs.json"


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of a run. Its hash names the run."""

    model: str
    set: str
    set_version: str
    list_hash: str
    protocol: str
    protocol_version: str
    flavour: str
    seed: int
    samples_per_clip: int = 1
    samples: str | None = None  # a user's folder instead of a generator
    reference: str | None = None  # hash of the reference pack, if one was used
    dedup: str | None = None  # sha256 of the overlap file, when a clean subset is scored beside the full set
    definition: Mapping[str, Any] | None = None  # content of protocol and set (``av_bench.results.definition``)

    @property
    def digest(self) -> str:
        """First 10 hex digits of the sha256 of the spec."""
        import hashlib

        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]


def dumps(value: object) -> bytes:
    """Canonical JSON: sorted keys, no NaN (a missing number is absent, so NaN is a programming error)."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf8", "backslashreplace")  # half a surrogate stays a JSON escape


@dataclass
class RunFolder:
    """Handle on one run folder."""

    path: Path
    shared: Path | None = None  # the run folder whose samples this one's go to, when it is a shard of that
    _ledger: Ledger = field(init=False, repr=False)
    _inputs: Inputs | None = field(default=None, init=False, repr=False)
    _together: list[Mapping[str, object]] | None = field(default=None, init=False, repr=False)
    _generated: Mapping[tuple[str, int], dict[str, Any]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.path / "ledger.jsonl")

    @property
    def audio(self) -> Path:
        """Folder of generated files."""
        return (self.shared or self.path) / "audio"

    def external(self, name: str = "") -> Path:
        """Folder for files of the source's own; with a ``name``, of one part of the work that is done by itself.

        Without a name: the folder of the whole run, or else that of the first part.
        """
        whole = self.path / "external"
        if name:
            return whole / name / "job"
        parts = [*sorted(whole.glob("*/job")), *sorted((self.path / "shards").glob("*/external"))]
        return whole if not parts or (whole / "request.json").is_file() else parts[0]

    def open(self, spec: RunSpec, otherwise: str = "choose another --out or remove that folder") -> None:
        """Create the folder or take up an earlier run of the same spec; another spec's folder is refused.

        ``otherwise`` says what to do then.
        A folder of version 0.1 records no definition: it is taken up, and its spec gains one. What writers that were
        killed left half written is removed.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name in ("scores.json", "run.json"):
            refuse_newer(self.path / name)
        for folder in (self.path, self.path / "videos"):
            remove_parts(folder)
        remove_parts(self.audio, older_than=ABANDONED if self.shared else 0.0)
        self.refuse_other(spec, otherwise)
        write_atomically(self.path / "spec.json", dumps(asdict(spec)))

    def refuse_other(self, spec: RunSpec, otherwise: str) -> None:
        """UsageError when the folder is of another spec; ``otherwise`` says what to do then."""
        known = self.path / "spec.json"
        if not known.exists():
            return
        ours, theirs = asdict(spec), read_record(known, dict)
        differs = sorted(k for k in ours if k != "definition" and ours[k] != theirs.get(k))
        if not differs:
            differs = conflicts(spec.definition, theirs.get("definition"))
        if differs:
            named = ", ".join("list of clips (list_hash)" if key == "list_hash" else key for key in differs)
            raise UsageError(f"{self.path} was started with a different {named}; {otherwise}")

    def inputs(self) -> Inputs:
        """What an earlier start of the run was made from (``inputs.json``), empty at the first."""
        if self._inputs is None:
            path = self.path / _INPUTS
            self._inputs = read_record(path, Inputs) if path.is_file() else {}
        return self._inputs

    def refuse_to_lose(self, names: Sequence[str]) -> None:
        """UsageError when the folder holds metrics that would not be computed again."""
        path = self.path / "scores.json"
        if path.is_file():
            known = read_record(path, Scores)
            lost = [name for name in [*known["metrics"], *known["absent"]] if name not in names]
            if lost:
                raise UsageError(
                    f"{self.path} holds scores of {', '.join(lost)}, which would be lost: leave --metrics out, add to "
                    "them with --metrics +NAME, or choose another --out"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the lock goes with the process, however it ends."""
        with lock(self.path / ".lock") as mine:
            if not mine:
                raise UsageError(f"{self.path} is being written by another process; wait or choose --out")
            yield

    def log(self, clip: str, stage: str, *, reason: Reason | None = None, detail: str = "", **more: object) -> None:
        """Append one ledger line."""
        self.write_line(entry(clip, stage, reason, detail, more))

    def write_line(self, line: dict[str, Any]) -> None:
        """Append a line that is made already."""
        if line.get("stage") == "generate":
            self._generated = None
        if self._together is not None:
            self._together.append(line)
        else:
            self._ledger.write(line)

    @contextmanager
    def logged_together(self) -> Iterator[None]:
        """Lines logged inside are written at the end of the block, 1,000 at a time."""
        self._together = []
        try:
            yield
        finally:
            lines, self._together = self._together, None
            for start in range(0, len(lines), 1000):
                self._ledger.write(*lines[start : start + 1000])

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def last_generated(self) -> Mapping[tuple[str, int], dict[str, Any]]:
        """The latest ledger line about the generation of each (clip, k); read again only when there are new ones."""
        if self._generated is not None:
            return self._generated
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for _, line in read_ledger(self.path / "ledger.jsonl", "generate"):
            if isinstance(line.get("k"), int):
                found[line["clip"], line["k"]] = line
        self._generated = found
        return found

    def write_json(self, name: str, value: Mapping[str, object]) -> None:
        """Write one of the JSON files, whole or not at all; ``inputs.json`` only when it says something else."""
        if name == _INPUTS:
            if value == self.inputs():
                return
            self._inputs = cast(Inputs, dict(value))
        write_atomically(self.path / name, dumps(value))

    def write_clips(self, rows: list[dict[str, Any]], name: str = "clips.parquet") -> None:
        """``clips.parquet`` (or ``pseudo_values.parquet``): id, group, metric, value, sorted by metric and id."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = sorted(rows, key=itemgetter("metric", "id"))
        kinds = {"id": pa.string(), "group": pa.string(), "metric": pa.string(), "value": pa.float64()}
        columns = {key: pa.array([row[key] for row in rows], type=kind) for key, kind in kinds.items()}
        table = pa.table(columns)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(self.path / name, sink.getvalue())


@dataclass(frozen=True)
class Run:
    """A finished run, read back. ``scores`` and ``info`` are the two JSON files."""

    path: Path
    scores: Scores
    info: Info

    @property
    def name(self) -> str:
        """The row's name: the model, or the name the user gave."""
        return str(self.info["spec"].get("label") or self.info["spec"]["model"])

    def values(self) -> pd.DataFrame:
        """Per-clip values as a pandas frame: one row per clip id (with its group), one column per metric."""
        import pandas as pd

        frame = pd.read_parquet(self.path / "clips.parquet")
        return frame.pivot(index=["id", "group"], columns="metric", values="value")

    def per_clip(self) -> frozenset[str]:
        """Metrics that have a value for each clip, as FD and IS have not."""
        import pandas as pd

        return frozenset(pd.read_parquet(self.path / "clips.parquet", columns=["metric"])["metric"])

    def paired_values(self) -> dict[str, ClipValues]:
        """Values per clip of every metric that has them, own or pseudo. UsageError when the files are not right."""
        return read_values(self.path / PSEUDO, required=False) | read_values(self.path / "clips.parquet")


def by_clip(column: pd.Series[float]) -> dict[str, float]:
    """A column of ``Run.values`` by clip id, without the clips that have no value."""
    known = column.dropna()
    return {str(clip): float(value) for clip, value in zip(known.index.get_level_values("id"), known, strict=True)}


class Unfinished(UsageError):
    """A folder that is not a run folder, or one of a run that has not ended."""


def why_unfinished(path: Path, names: Sequence[str] = RESULTS) -> str | None:
    """Why a folder has no scores to read, and which command makes them; None when all files ``names`` are there."""
    missing = next((name for name in names if not (path / name).is_file()), None)
    if missing is None:
        return None
    if (path / SPLIT).is_file():
        return f"its shards are not merged yet; `av-bench merge {path}` does that"
    if (path.parent.parent / SPLIT).is_file() and path.parent.name == "shards":
        return f"it is one shard of {path.parent.parent}; only all shards together have scores (`av-bench merge`)"
    if not any((path / name).is_file() for name in ("spec.json", *RESULTS)):
        return "it is not a run folder"
    return f"{missing} is missing; run the same `av-bench run` command again to resume"


def read_run(path: Path | str) -> Run:
    """Read a run folder. UsageError says what is missing or not understood."""
    path = Path(path)
    if why := why_unfinished(path):
        raise Unfinished(f"{path} is not a finished run: {why}")
    scores, info = read_record(path / "scores.json", Scores), read_record(path / "run.json", Info)
    check_values(path, scores)
    return Run(path, scores, info)


def environment(device: str) -> dict[str, Any]:
    """Versions, device and git revision for ``run.json``."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "git": git_revision(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpus": os.cpu_count(),
    }


def git_revision() -> str | None:
    """Commit of the package's own checkout ("+dirty" with local changes), None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        args = ["git", "-C", str(root), "describe", "--always", "--dirty=+dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(args, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
