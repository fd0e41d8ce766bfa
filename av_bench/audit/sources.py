"""The lock file of lists: which public file is which list, with address, hash, rows and licence.

``vggsound/train`` and its like are names of ``sources.yaml``. A name is read from a lists folder, a plain path is read
as it is. The content of a locked file must have the locked hash: a list that changed is refused, not audited.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from av_bench.audit.cliplist import ClipList, concatenate, filter_labels, without
from av_bench.audit.lists import read_list, unpack
from av_bench.contracts import MissingRequirement, UsageError
from av_bench.runtime.files import home

LOCK = Path(__file__).with_name("sources.yaml")


@dataclass(frozen=True)
class Source:
    """One locked file. ``sha256`` is of the unpacked content; ``format`` is None for files that hold no clips."""

    name: str
    repository: str
    path: str
    commit: str
    local: str
    sha256: str
    rows: int
    licence: str
    format: str | None = None
    parts: int = 1
    drop_lines: int = 0


@cache
def lock() -> dict[str, Any]:
    """The parsed lock file."""
    data: dict[str, Any] = yaml.safe_load(LOCK.read_text(encoding="utf-8"))
    return data


def source(name: str) -> Source:
    """One file of the lock file by its name."""
    files = lock()["files"]
    if name not in files:
        raise _unknown(name, files)
    return Source(name=name, **files[name])


def list_names() -> list[str]:
    """Names that can be audited: public lists, then those whose file the user supplies."""
    return [*lock()["lists"], *lock()["user"]]


def default_folder() -> Path:
    """Where ``lists pull`` puts files: ``$AV_BENCH_LISTS``, else ``lists`` in the package's cache folder."""
    return Path(os.environ.get("AV_BENCH_LISTS") or home() / "lists")


def urls(item: Source) -> list[str]:
    """Public addresses of a file (several when the repository keeps it in parts)."""
    template: str = lock()["url"]
    paths = [item.path.format(part=part) for part in range(item.parts)]
    return [template.format(repository=item.repository, commit=item.commit, path=path) for path in paths]


# --------------------------------------------------------------------------- names to lists


class Lists:
    """Opens lists by name or path and keeps what it read, so that no file is parsed twice.

    ``folder`` is a lists folder (default: where ``pull`` puts files); ``own`` maps names such as ``avsync15/train``
    to the user's files, and wins over the lock file.
    """

    def __init__(self, folder: Path | None = None, own: Mapping[str, Path] | None = None) -> None:
        self.folder = folder if folder is not None else default_folder()
        self.own = dict(own or {})
        self._files: dict[str, ClipList] = {}
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: no such lists folder")

    def has(self, name: str) -> bool:
        """True when every file of a known list is at hand."""
        if name in self.own:
            return True
        entry = lock()["lists"].get(name)
        return entry is not None and all(
            (self.folder / source(f).local).is_file() for f in [*entry["files"], *entry.get("minus", [])]
        )

    def open(self, name: str) -> ClipList:
        """A list by lock file name, by a name given in ``own``, or by path (``FILE`` or ``FORMAT:FILE``)."""
        name = lock()["aliases"].get(name, name)
        if name in self.own:
            user = lock()["user"].get(name, {})
            return read_list(self.own[name], user.get("format") if name in lock()["user"] else None, name)
        if name in lock()["lists"]:
            return self._known(name)
        if name in lock()["user"]:
            raise UsageError(f"{name} is not public in a repository: {lock()['user'][name]['note']}")
        layout, _, rest = name.partition(":")
        if rest and not Path(name).exists():
            return read_list(rest, layout, name)
        if not Path(name).exists():
            raise _unknown(name, list_names())
        return read_list(name)

    def _known(self, name: str) -> ClipList:
        entry = lock()["lists"][name]
        parts = [self._file(f) for f in entry["files"]]
        clips = concatenate(name, parts) if len(parts) > 1 else replace(parts[0], name=name)
        for removed in entry.get("minus", []):
            clips = without(clips, self._file(removed))
        return replace(clips, notes=(*clips.notes, entry["note"])) if "note" in entry else clips

    def _file(self, name: str) -> ClipList:
        if name not in self._files:
            item = source(name)
            clips = read_list(_at(self.folder, item), item.format, name, item.local)
            if clips.hashes[0] != item.sha256:
                raise UsageError(changed(self.folder / item.local, item, clips.hashes[0]))
            self._files[name] = clips
        return self._files[name]

    def label_ids(self, names: Sequence[str]) -> list[str]:
        """AudioSet machine ids of labels given by name (``Speech``) or id (``/m/09x0r``)."""
        if all(name.startswith("/") for name in names):
            return list(names)
        item = source("audioset-labels")
        table = {
            r["display_name"]: r["mid"] for r in csv.DictReader(io.StringIO(unpack(_at(self.folder, item)).decode()))
        }
        absent = [n for n in names if not n.startswith("/") and n not in table]
        if absent:
            near = get_close_matches(absent[0], table, 3)
            raise UsageError(f"AudioSet has no label {absent[0]!r}" + (f"; near: {', '.join(near)}" if near else ""))
        return [table.get(name, name) for name in names]

    def filtered(self, names: Sequence[str], drop: Sequence[str], keep: Sequence[str]) -> list[ClipList]:
        """Several lists, each under the label filter where it has labels; one without labels says so in its notes.

        Raises UsageError when none of the lists has labels.
        """
        opened = [self.open(name) for name in names]
        if not drop and not keep:
            return opened
        if all(clips.label_kind == "none" for clips in opened):
            raise UsageError(f"{', '.join(names)}: no labels in these lists, so no label filter can be applied")
        result = []
        for clips in opened:
            if clips.label_kind == "none":
                result.append(
                    replace(clips, notes=(*clips.notes, "no labels in the list: the label filter is not applied"))
                )
            elif clips.label_kind == "mids":
                result.append(filter_labels(clips, self.label_ids(drop), self.label_ids(keep)))
            else:
                result.append(filter_labels(clips, drop, keep))
        return result

    def class_names(self, name: str) -> list[str]:
        """Classes of vggsound-class-counts, vggsound-common-classes or audioset-labels, in file order."""
        text = unpack(_at(self.folder, source(name))).decode("utf-8")
        if name == "vggsound-common-classes":
            return [line.strip() for line in text.splitlines() if line.strip()]
        rows = list(csv.reader(io.StringIO(text)))
        return [row[2] for row in rows[1:]] if name == "audioset-labels" else [row[0] for row in rows if row]


def _at(folder: Path, item: Source) -> Path:
    path = folder / item.local
    if not path.is_file():
        raise MissingRequirement(
            f"{path}: the list {item.name} is not there; get it with `av-bench lists pull {item.name}`, "
            "or point --lists at a folder that holds it"
        )
    return path


def changed(path: Path, item: Source, digest: str) -> str:
    """Message for content that is not the locked one."""
    return (
        f"{path}: the content is not the locked one (sha256 {digest[:16]}..., locked {item.sha256[:16]}...); pull it "
        "again, or give the file as a plain path to audit it as a list of your own"
    )


def _unknown(name: str, known: Sequence[str] | Mapping[str, Any]) -> UsageError:
    near = get_close_matches(name, list(known), 3)
    hint = f"; near: {', '.join(near)}" if near else ""
    return UsageError(f"no list or file is called {name!r}{hint}. Known lists: {', '.join(known)}")
