"""Definitions of sets and protocols: the YAML files that say what is measured, on what, and how."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from av_bench import registry
from av_bench.contracts import ClipSet, Flavour, Modality, UsageError, check_id, printable, unknown_name
from av_bench.schema import (
    SET_BY_LOADER,
    NonNegativeFloat,
    NumberAsText,
    PositiveFloat,
    PositiveInt,
    Sha256,
    read_yaml,
)
from protocols.lists.sources import list_file

HERE = Path(__file__).parent

Version = Annotated[str, NumberAsText()]
MetricOptions = Mapping[str, Any]
"""``kind`` (a name of `av-bench list metrics`) and the arguments of that metric."""


@dataclass(frozen=True)
class SelfcheckSeries:
    """A metric that must rise step by step along these models."""

    metric: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Selfcheck:
    """Known damage of the reference audio: model -> metrics that must react, and series along which one must rise."""

    series: tuple[SelfcheckSeries, ...] = ()
    moves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How a set is measured: seconds from the start of each clip, metrics (column -> options), default flavour.

    ``optional`` metrics are computed when asked for (``--metrics +NAME``). ``trained_on`` names the set that the
    networks were trained on, where that is the only one they know. With ``window: whole`` each clip is scored over its
    own length. ``notes`` are printed under every table.
    """

    name: str
    version: Version
    seconds: PositiveFloat
    flavour: Flavour
    metrics: Mapping[str, MetricOptions]
    optional: Mapping[str, MetricOptions] = field(default_factory=dict)
    title: str = ""
    reference: str = ""
    licence: str = ""
    trained_on: str | None = None
    notes: tuple[str, ...] = ()
    changelog: tuple[str, ...] = ()
    selfcheck: Selfcheck | None = None
    window: Literal["fixed", "whole"] = "fixed"
    source: Path | None = field(default=None, metadata=SET_BY_LOADER)

    def __post_init__(self) -> None:
        check_id(self.name, "protocol")
        if not self.metrics:
            raise UsageError(f"protocol {self.name}: metrics is empty")
        for column in (*self.metrics, *self.optional):
            if not column or printable(column) != column:
                raise UsageError(f"protocol {self.name}: metric {column!r} is not a printable name")
        twice = sorted(set(self.metrics) & set(self.optional))
        if twice:
            raise UsageError(f"protocol {self.name}: {twice[0]} is both a metric and an optional one")
        for name, options in {**self.metrics, **self.optional}.items():
            if not isinstance(options, Mapping) or not isinstance(options.get("kind"), str):
                raise UsageError(f"protocol {self.name}, metric {name}: the key kind is missing")


@dataclass(frozen=True)
class PinnedList:
    """A list file that a set pins, and how many clips it makes.

    ``list`` names a file of ``protocols/lists/sources.yaml``; a list that is not there is pinned by its ``file`` name
    and the ``sha256`` of its unpacked content.
    """

    count: PositiveInt
    list: str | None = None
    file: str | None = None
    sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        if (self.list is None) == (self.file is None or self.sha256 is None):
            raise UsageError("lists: give either list (a name of protocols/lists/sources.yaml), or file and sha256")
        if self.list is not None:
            list_file(self.list)  # refuses unknown names

    @property
    def pinned_sha256(self) -> str:
        """Hash of the content."""
        return list_file(self.list).sha256 if self.list is not None else str(self.sha256)

    @property
    def file_name(self) -> str:
        """Public name of the file."""
        return Path(list_file(self.list).path).name if self.list is not None else str(self.file)


@dataclass(frozen=True)
class SetDefinition:
    """What a set is; ``kind`` picks the reader. ``prefer`` names protocols that are taken in place of ``protocol`` when
    their networks are on this machine, the first one first.

    ``folder``: any folder of videos. ``rendered``: made by this package (``renderer``, ``split``, ``count``). ``list``:
    ids of a public list (``format``, ``lists``), files found by the name patterns ``video`` and ``audio``; with
    ``onsets``, a text file of onset times per clip, read up to ``onset_seconds``.
    """

    name: str
    version: Version
    kind: Literal["folder", "rendered", "list"]
    protocol: str
    prefer: tuple[str, ...] = ()
    title: str = ""
    conditions: tuple[Modality, ...] = ("video", "text")
    reference_audio: bool = True
    reference: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    changelog: tuple[str, ...] = ()
    data: str | None = None
    table: str | None = None
    renderer: Literal["impacts"] | None = None
    split: Literal["train", "test"] | None = None
    count: PositiveInt | None = None
    format: str | None = None
    lists: Mapping[str, PinnedList] = field(default_factory=dict)
    video: str = "{id}"
    audio: str | None = None
    onsets: str | None = None
    onset_seconds: NonNegativeFloat = 8.0
    source: Path | None = field(default=None, metadata=SET_BY_LOADER)

    def __post_init__(self) -> None:
        check_id(self.name, "set")
        needed: dict[str, dict[str, object]] = {
            "rendered": {"renderer": self.renderer, "split": self.split, "count": self.count},
            "list": {"format": self.format, "lists": self.lists or None},
            "folder": {},
        }
        missing = [key for key, value in needed[self.kind].items() if value is None]
        if missing:
            raise UsageError(f"set {self.name}: kind {self.kind} needs the keys {', '.join(missing)}")
        foreign = [k for kind, keys in needed.items() if kind != self.kind for k, v in keys.items() if v is not None]
        if foreign:
            raise UsageError(f"set {self.name}: {', '.join(foreign)} has no meaning for kind {self.kind}")

    def beside(self, name: str | None) -> Path | None:
        """A path of the definition, which is meant from the folder of its file."""
        if name is None:
            return None
        return Path(name) if self.source is None else self.source.parent / name


@dataclass(frozen=True)
class SetRequest:
    """What the user asked for: data folder, table or list file, folder of lists; callbacks for progress and remarks.

    Without ``say`` a remark is a warning of the logger.
    """

    data: Path | None = None
    table: Path | None = None
    lists: Path | None = None
    limit: int | None = None
    workers: int | None = None
    progress: Callable[[int, int], None] | None = None
    say: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit must be at least 1, got {self.limit}")


def set_names() -> dict[str, Path]:
    """Set name -> YAML file; other packages add theirs through the entry points ``av_bench.sets``."""
    return {**registry.files("sets"), **{p.stem: p for p in sorted((HERE / "sets").glob("*.yaml"))}}


def protocol_names() -> dict[str, Path]:
    """Protocol name -> YAML file; other packages add theirs through the entry points ``av_bench.protocols``."""
    return {**registry.files("protocols"), **{p.stem: p for p in sorted(HERE.glob("*.yaml"))}}


def load_protocol(name: str) -> Protocol:
    """A protocol by name, or from a YAML file of the user's."""
    path = _find("protocol", name, protocol_names)
    return replace(read_yaml(path, Protocol), source=path)


def load_set(name: str) -> SetDefinition:
    """A set definition by name, or from a YAML file of the user's."""
    path = _find("set", name, set_names)
    return replace(read_yaml(path, SetDefinition), source=path)


def _find(kind: str, name: str, names: Callable[[], dict[str, Path]]) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = names()
    if name not in known:
        raise UsageError(unknown_name(kind, name, sorted(known)))
    return known[name]


def recorded(protocol: Protocol, definition: SetDefinition) -> dict[str, object]:
    """What decides the numbers in both definitions, as plain data ``{"protocol": ..., "set": ...}``.

    A run keeps it, since a file may be edited under the same name and version. Titles, notes, licences and paths are
    left out; optional metrics stand among the others.
    """
    prose = ("title", "reference", "licence", "notes", "changelog", "source")
    content = json.loads(json.dumps([asdict(protocol), asdict(definition)], default=str))
    ours, theirs = ({k: v for k, v in part.items() if k not in prose} for part in content)
    ours["metrics"] = {**ours.pop("optional"), **ours["metrics"]}
    for key in ("trained_on", "selfcheck"):
        del ours[key]
    for key in ("data", "table", "protocol"):
        del theirs[key]
    return {"protocol": ours, "set": theirs}


def limited(clips: ClipSet, limit: int | None) -> ClipSet:
    """The first ``limit`` clips by id."""
    if limit is None:
        return clips
    if limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    return replace(clips, clips=clips.clips[:limit])
