"""Hash media files, and remember in the store what was hashed, so that a library is not read again to be recognised.

A file is recognised by device, inode, size and the times of its last changes, as within one run (``media.content``):
whoever changes its bytes changes them too, and a file that was new when it was hashed is not remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from av_bench.features.sides import MediaFile
from av_bench.media.content import Content
from av_bench.runtime.notes import read_note, write_note
from av_bench.runtime.prefetch import prefetch_map

CHUNK = 64  # files of one task: a task costs more than looking at a file's state
WORTH_FILES, WORTH_BYTES = 1000, 1 << 28  # new in one folder before they are remembered
FOLDER = ".media"

Known = dict[str, Content]


def identify(
    media: Sequence[MediaFile], workers: int, store: Path, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Give every medium the hash of its file, or its problem. ``store`` is the folder of the feature store."""
    known = {folder: _read(store, folder) for folder in dict.fromkeys(m.path.parent for m in media)}
    new: dict[Path, Known] = {folder: {} for folder in known}

    def recognise(part: Sequence[MediaFile]) -> int:
        for medium in part:
            before = known[medium.path.parent].get(medium.path.name)
            medium.content = medium.content or before
            medium.identify()
            if medium.content is not None and medium.content != before and not medium.content.fresh:
                new[medium.path.parent][medium.path.name] = medium.content
        return len(part)

    chunks = [media[start : start + CHUNK] for start in range(0, len(media), CHUNK)]
    for count in prefetch_map(recognise, chunks, workers, 2 * workers):
        advance(count)
    for folder, found in new.items():
        if len(found) >= WORTH_FILES or sum(content.state[2] for content in found.values()) >= WORTH_BYTES:
            _write(store, folder, known[folder] | found)


def _note(store: Path, folder: Path) -> Path:
    return store / FOLDER / f"{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:32]}.json"


def _read(store: Path, folder: Path) -> Known:
    listed = read_note(_note(store, folder))
    return {name: Content(digest, tuple(state), False, identity) for name, (digest, state, identity) in listed.items()}


def _write(store: Path, folder: Path, known: Known) -> None:
    write_note(_note(store, folder), {name: [c.digest, c.state, c.identity] for name, c in known.items()})
