"""Clip lists by name: the named lists of the lock file, the user's own files, and plain paths.

``vggsound/train`` and its like are names of ``protocols/lists/sources.yaml``. A name is read from a lists folder, a
plain path is read as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from av_bench.audit.cliplist import ClipList, concatenate, filter_labels, without
from av_bench.audit.lists import read_list
from av_bench.contracts import UsageError, unknown_name
from av_bench.rows import records
from protocols.lists.sources import changed, check_lists, list_file, locate, require, sources, unpack


def list_names() -> list[str]:
    """Names that can be audited: public lists, then those whose file the user supplies."""
    return [*sources().lists, *sources().user]


class Lists:
    """Opens lists by name or path and keeps what it read, so that no file is parsed twice.

    ``where`` is a lists folder or a list file (default: where ``lists pull`` puts files); ``own`` maps names such as
    ``avsync15/train`` to the user's files, and wins over the lock file. ``columns`` (``formats.own_columns``) is how
    plain paths are read.
    """

    def __init__(
        self, where: Path | None = None, own: Mapping[str, Path] | None = None, columns: dict[str, str] | None = None
    ) -> None:
        self.columns = columns
        self.where = check_lists(where)
        self.own = dict(own or {})
        self._files: dict[str, ClipList] = {}

    def has(self, name: str) -> bool:
        """True when every file of a known list is available."""
        if name in self.own:
            return True
        entry = sources().lists.get(name)
        return entry is not None and all(
            locate(self.where, list_file(file)) is not None for file in (*entry.files, *entry.minus)
        )

    def open(self, name: str) -> ClipList:
        """A list by lock file name, by a name given in ``own``, or by path (``FILE`` or ``FORMAT:FILE``)."""
        known = sources()
        name = known.aliases.get(name, name)
        user = known.user.get(name)
        if name in self.own:
            return read_list(self.own[name], user.format if user is not None else None, name)
        if name in known.lists:
            return self._known(name)
        if user is not None:
            raise UsageError(f"{name} is not public in a repository: {user.note}")
        layout, _, rest = name.partition(":")
        if rest and not Path(name).exists():
            return read_list(rest, layout, name)
        if not Path(name).exists():
            raise UsageError(unknown_name("list", name, list_names()))
        return read_list(name, columns=self.columns)

    def _known(self, name: str) -> ClipList:
        entry = sources().lists[name]
        parts = [self._file(f) for f in entry.files]
        clips = concatenate(name, parts) if len(parts) > 1 else replace(parts[0], name=name)
        for removed in entry.minus:
            clips = _taken_away(clips, self._file(removed), entry.files)
        return replace(clips, notes=(*clips.notes, entry.note)) if entry.note else clips

    def _file(self, name: str) -> ClipList:
        if name not in self._files:
            item = list_file(name)
            path = require(self.where, item)
            clips = read_list(path, item.format, name, item.local)
            if clips.hashes[0] != item.sha256:
                raise UsageError(changed(path, item, clips.hashes[0]))
            self._files[name] = clips
        return self._files[name]

    def label_ids(self, names: Sequence[str]) -> list[str]:
        """AudioSet machine ids of labels given by name (``Speech``) or id (``/m/09x0r``)."""
        if all(name.startswith("/") for name in names):
            return list(names)
        path = require(self.where, list_file("audioset-labels"))
        rows = records(unpack(path).decode(), str(path), needed=("mid", "display_name"))
        table = {row["display_name"]: row["mid"] for _, row in rows}
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


def _taken_away(clips: ClipList, removed: ClipList, files: Sequence[str]) -> ClipList:
    """A list without the rows another one holds, and a note of how many those were."""
    rest = without(clips, removed)
    gone = len(clips) - len(rest)
    if not gone:
        return rest
    note = (
        f"{gone} rows that {removed.name} holds as well were taken away; who trained on one of the files "
        f"({', '.join(files)}) saw them: audit that file's own list"
    )
    return replace(rest, notes=(*rest.notes, note))
