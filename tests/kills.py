"""Whole runs that are killed at a chosen file event: the client's side of ``tests/kill_server.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forks import KILLED as KILLED
from tests.forks import Forks, forks

SERVER = Path(__file__).with_name("kill_server.py")


class KillServer:
    """Starts runs below one folder, each in a forked process of its own that may kill itself."""

    def __init__(self, folder: Path, forked: Forks) -> None:
        self.folder, self.forks = folder, forked

    def job(self, name: str, options: Mapping[str, Any], point: int = 0, watch: str = "", home: str = "home") -> Any:
        """A run into the folder ``name`` that is killed before the n-th change below ``watch`` (0: never)."""
        options = {**options, "out": str(self.folder / name), "quiet": True, "workers": 1}
        paths = {"home": self.folder / home, "watch": self.folder / (watch or name), "report": self.report(name)}
        return {"options": options, "point": point, **{key: str(path) for key, path in paths.items()}}

    def run(self, *jobs: Mapping[str, Any]) -> list[int]:
        """Exit codes of runs that go at once."""
        return self.forks.run(jobs)

    def report(self, name: str) -> Path:
        """Where a run notes its number of changes."""
        return self.folder / f"{name.replace('/', '_')}.count"

    def count(self, name: str) -> int:
        """Changes that the latest run of this name has made."""
        return int(self.report(name).read_text())


@contextmanager
def kill_server(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[KillServer]:
    """A server whose runs lie below ``folder``; ``environment`` is added to this process's own."""
    with forks([str(SERVER)], environment) as started:
        yield KillServer(folder, started)
