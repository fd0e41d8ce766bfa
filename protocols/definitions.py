"""Read set and protocol definitions (YAML) and turn a set plus a data folder into a frozen list of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from av_bench.contracts import ClipSet, Flavour, UsageError
from av_bench.registry import miss

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Protocol:
    """How a set is measured: window, metrics (column name -> options), metrics on request, and default flavour."""

    name: str
    version: str
    seconds: float
    flavour: Flavour
    metrics: Mapping[str, Mapping[str, Any]]
    optional: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # computed when asked for by name
    title: str = ""
    trained_on: str | None = None
    notes: tuple[str, ...] = ()
    source: Path | None = None


@dataclass(frozen=True)
class SetDefinition:
    """What a set is; ``kind`` picks the reader (folder, rendered, list)."""

    name: str
    version: str
    kind: str
    protocol: str
    title: str = ""
    reference_audio: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SetRequest:
    """What the user asked for: data folder, table or list file, folder of lists, progress callback."""

    data: Path | None = None
    table: Path | None = None
    lists: Path | None = None
    limit: int | None = None
    workers: int | None = None
    progress: Callable[[int, int], None] | None = None


def _documents(folder: Path, group: str) -> dict[str, Path]:
    found = {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    if group == "sets":
        for point in entry_points(group="av_bench.sets"):
            path = Path(point.load())
            found.setdefault(point.name, path)
    return found


def set_names() -> dict[str, Path]:
    """Set name -> YAML file."""
    return _documents(HERE / "sets", "sets")


def protocol_names() -> dict[str, Path]:
    """Protocol name -> YAML file."""
    return _documents(HERE, "protocols")


def _read(path: Path, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a mapping is expected, found {type(data).__name__}")
    missing = [key for key in required if key not in data]
    if missing:
        raise UsageError(f"{path}: the keys {', '.join(missing)} are missing")
    return data


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or from a YAML file of the user's."""
    known = protocol_names()
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise UsageError(miss("protocols", name, sorted(known)))
    data = _read(path, ("name", "version", "seconds", "flavour", "metrics"))
    if data["flavour"] not in ("paper", "strict"):
        raise UsageError(f"{path}: flavour must be paper or strict, found {data['flavour']!r}")
    return Protocol(
        name=data["name"],
        version=str(data["version"]),
        seconds=float(data["seconds"]),
        flavour=data["flavour"],
        metrics=data["metrics"],
        optional=data.get("optional", {}),
        title=data.get("title", ""),
        trained_on=data.get("trained_on"),
        notes=tuple(data.get("notes", ())),
        source=path,
    )


def load_set(name: str) -> SetDefinition:
    """A set definition by name, or from a YAML file of the user's."""
    known = set_names()
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise UsageError(miss("sets", name, sorted(known)))
    data = _read(path, ("name", "version", "kind", "protocol"))
    core = {"name", "version", "kind", "protocol", "title", "reference_audio"}
    return SetDefinition(
        name=data["name"],
        version=str(data["version"]),
        kind=data["kind"],
        protocol=data["protocol"],
        title=data.get("title", ""),
        reference_audio=bool(data.get("reference_audio", True)),
        options={k: v for k, v in data.items() if k not in core},
    )


def limited(clips: ClipSet, limit: int | None) -> ClipSet:
    """The first ``limit`` clips by id."""
    if limit is None:
        return clips
    if limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    return ClipSet(clips.name, clips.version, clips.clips[:limit], clips.notes)


def check_id(clip_id: str, where: str) -> None:
    """Refuse ids that cannot be file names inside a folder. A leading ``-`` is fine."""
    if not clip_id or clip_id in (".", "..") or any(c in clip_id for c in "/\\\0\n\r") or len(clip_id.encode()) > 200:
        raise UsageError(f"{where}: id {clip_id!r} cannot be a file name (empty, a path, or longer than 200 bytes)")
