"""Fingerprints of many files made by several processes or actors, so that the audit finds them in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from av_bench.audit.content import stream
from av_bench.engines.choose import Items, Place, engine_for, in_parts
from av_bench.engines.contract import Engine, Lost
from av_bench.features.store import Store
from av_bench.media.listing import LeftOut, walk
from av_bench.runtime.progress import Reporter


@dataclass(frozen=True)
class Fingerprints:
    """The task: fingerprints of files into a store. A worker yields the number of files that it has looked at."""

    store: Path
    threads: int

    def open(self, device: str) -> Callable[[Items], Iterator[int]]:
        """A worker; fingerprints are made on the CPU whatever the device."""
        del device
        store = Store(self.store)

        def work(part: Items) -> Iterator[int]:
            for _ in stream([Path(name) for name in part.clips], store, self.threads, []):
                pass
            yield len(part.clips)

        return work


def make_fingerprints(folders: Sequence[Path], store: Path, place: Place, reporter: Reporter) -> list[LeftOut]:
    """Fingerprints of all files below the folders, kept in the store. Returns files that no worker survived.

    Nothing happens where this process does the work itself: the audit makes them as it goes.
    """
    place.check()
    if place.local:
        return []
    files = [str(path) for folder in dict.fromkeys(folders) for path in walk(folder)[0]]
    engine: Engine[Items, int] = engine_for(place)
    lost: list[LeftOut] = []
    with reporter.stage("fingerprints", len(files)) as stage:
        for event in engine.run(Fingerprints(store.absolute(), place.threads()), list(in_parts(files, place))):
            if isinstance(event, Lost):
                lost += [LeftOut(Path(name), event.detail, False) for name in event.part.clips]
            stage.advance(len(event.part.clips) if isinstance(event, Lost) else event)
    return lost
