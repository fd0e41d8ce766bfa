"""What an acceptance run found, item by item, and the JSON it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from av_bench.schema import build, load_json

SCHEMA = 2
Status = Literal["ok", "absent", "failed"]


@dataclass(frozen=True)
class Item:
    """One file, network or model: what became of it, what it gave, and what others got from the same files.

    ``files`` maps the entries of the lock file that it was loaded from to their sha256.
    """

    what: str
    status: Status
    detail: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    compared: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that was tried. ``other_files``: entries that the lock file in use does not pin as released.

    ``table1``: the row on VGGSound where one was asked for: its name, the clips scored, and the value of each metric.
    """

    files: tuple[Item, ...]
    networks: tuple[Item, ...]
    models: tuple[Item, ...]
    environment: Mapping[str, Any]
    other_files: tuple[str, ...] = ()
    table1: Mapping[str, Any] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Item, ...]:
        """All of them."""
        return (*self.files, *self.networks, *self.models)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what is absent was not tried."""
        return all(item.status != "failed" for item in self.items)

    def as_json(self) -> str:
        """The report as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self), "passed": self.passed}, indent=1, sort_keys=True)


class _Stored(TypedDict):
    """The parts of ``accept.json`` that a comparison reads."""

    networks: list[_StoredItem]
    models: list[_StoredItem]
    environment: dict[str, Any]


class _StoredItem(TypedDict):
    what: str
    status: Status
    given: dict[str, Any]
    files: dict[str, str]


def read_items(path: Path) -> tuple[list[Item], str]:
    """Networks and models of a kept report, and the device it ran on. UsageError for anything but an accept.json."""
    stored = build(_Stored, load_json(path), str(path))
    items = [
        Item(i["what"], i["status"], given=i["given"], files=i["files"])
        for i in (*stored["networks"], *stored["models"])
    ]
    return items, str(stored["environment"].get("device", "unknown"))
