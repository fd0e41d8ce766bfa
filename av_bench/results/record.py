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
import math
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
from typing import Any

from av_bench.contracts import Reason, UsageError
from av_bench.results.definition import conflicts
from av_bench.runtime.files import lock, write_atomically
from av_bench.schema import load_json

SCHEMA = 1
PSEUDO = "pseudo_values.parquet"
_PACKAGES = ("av-bench", "torch", "numpy", "scipy", "av", "librosa", "pandas", "scikit-learn", "soundfile")


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
    reference: str | None = None  # hash of a reference pack that stands for the real side
    dedup: str | None = None  # sha256 of the overlap file, when a clean subset is scored beside the full set
    definition: Mapping[str, Any] | None = None  # content of protocol and set (``av_bench.results.definition``)

    @property
    def digest(self) -> str:
        """First 10 hex digits of the sha256 of the spec."""
        import hashlib

        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]


def dumps(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no NaN (a missing number is absent, so NaN is a programming error)."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


@dataclass
class RunFolder:
    """Handle on one run folder."""

    path: Path
    _ledger: Any = field(default=None, repr=False)

    @property
    def audio(self) -> Path:
        """Folder of generated files."""
        return self.path / "audio"

    def open(self, spec: RunSpec) -> None:
        """Create the folder or take up an earlier run of the same spec; another spec's folder is refused.

        A folder of version 0.1 records no definition: it is taken up, and its spec gains one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        known = self.path / "spec.json"
        ours = asdict(spec)
        if known.exists():
            theirs = load_json(known)
            differs = sorted(k for k in ours if k != "definition" and ours[k] != theirs.get(k))
            if not differs:
                differs = conflicts(spec.definition, theirs.get("definition"))
            if differs:
                raise UsageError(
                    f"{self.path} was started with a different {', '.join(differs)}; choose another --out or remove "
                    "that folder"
                )
        write_atomically(known, dumps(ours))

    def inputs(self) -> dict[str, Any]:
        """What an earlier start of the run was made from (``inputs.json``), empty at the first."""
        path = self.path / "inputs.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
        return found

    def refuse_to_lose(self, names: Sequence[str]) -> None:
        """UsageError when the folder holds metrics that would not be computed again."""
        path = self.path / "scores.json"
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf8"))
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

    def log(self, clip: str, stage: str, *, reason: Reason | None = None, detail: str = "", **more: Any) -> None:
        """Append one ledger line."""
        if self._ledger is None:
            self._ledger = (self.path / "ledger.jsonl").open("a", encoding="utf8")
        status = "ok" if reason is None else ("excluded" if reason.excludes else "flagged")
        line: dict[str, Any] = {"clip": clip, "stage": stage, "status": status}
        if reason is not None:
            line |= {"reason": reason.value, "detail": detail}
        self._ledger.write(json.dumps(line | more, ensure_ascii=False) + "\n")
        self._ledger.flush()

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def last_generated(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The latest ledger line about the generation of each (clip, k)."""
        path = self.path / "ledger.jsonl"
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for text in path.read_text(encoding="utf8").splitlines() if path.is_file() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # torn by a kill; what it was about has been done again
            if line["stage"] == "generate" and "k" in line:
                found[line["clip"], line["k"]] = line
        return found

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all."""
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
    scores: dict[str, Any]
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The row's name: the model, or the name the user gave."""
        return str(self.info["spec"].get("label") or self.info["spec"]["model"])

    def values(self) -> Any:
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


@dataclass(frozen=True)
class ClipValues:
    """Values of one metric by clip id, and the unit (recording, or split) that each clip belongs to."""

    value: dict[str, float]
    unit: dict[str, str]


def read_values(path: Path, *, required: bool = True) -> dict[str, ClipValues]:
    """``clips.parquet`` or ``pseudo_values.parquet`` by metric; a file that need not be there may be absent."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        if not required:
            return {}
        raise UsageError(f"{path} is missing: the run has no per-clip values; start it again with `av-bench run`")
    try:
        columns = pq.read_table(path, columns=["id", "group", "metric", "value"]).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read ({error}); start the run again") from error
    found: dict[str, ClipValues] = {}
    for clip, group, metric, value in zip(*(columns[c] for c in ("id", "group", "metric", "value")), strict=True):
        if value is None or not math.isfinite(value):
            raise UsageError(f"{path}: {metric} of clip {clip} is {value}, not a number; start the run again")
        series = found.setdefault(metric, ClipValues({}, {}))
        series.value[clip], series.unit[clip] = value, group
    return found


def read_run(path: Path | str) -> Run:
    """Read a run folder. UsageError says what is missing or not understood."""
    path = Path(path)
    loaded = []
    for name in ("scores.json", "run.json"):
        file = path / name
        if not file.is_file():
            raise UsageError(f"{path} is not a finished run: {name} is missing; start it again with `av-bench run`")
        try:
            loaded.append(json.loads(file.read_text(encoding="utf8"), parse_constant=_not_a_number))
        except ValueError as error:
            raise UsageError(f"{file} is not JSON ({error}); remove it and start the run again") from error
    scores, info = loaded
    if scores.get("schema") != SCHEMA:
        raise UsageError(f"{path}/scores.json has schema {scores.get('schema')!r}, this version reads {SCHEMA}")
    for name, entry in scores["metrics"].items():
        value = entry.get("value") if isinstance(entry, dict) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{path}/scores.json: the value of {name} is {value!r}, not a number; start the run again")
    return Run(path, scores, info)


def _not_a_number(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is not a number")


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
