"""Whole runs that are killed at a chosen file event: the client's side of ``tests/kill_server.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

SERVER = Path(__file__).with_name("kill_server.py")
KILLED = -signal.SIGKILL


class KillServer:
    """Starts runs below one folder, each in a forked process of its own that may kill itself."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process

    def job(self, name: str, options: Mapping[str, Any], point: int = 0, watch: str = "", home: str = "home") -> Any:
        """A run into the folder ``name`` that is killed before the n-th change below ``watch`` (0: never)."""
        options = {**options, "out": str(self.folder / name), "quiet": True, "workers": 1}
        paths = {"home": self.folder / home, "watch": self.folder / (watch or name), "report": self.report(name)}
        return {"options": options, "point": point, **{key: str(path) for key, path in paths.items()}}

    def run(self, *jobs: Mapping[str, Any]) -> list[int]:
        """Exit codes of runs that go at once; a process ended by a signal has its negative number."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def report(self, name: str) -> Path:
        """Where a run notes its number of changes."""
        return self.folder / f"{name.replace('/', '_')}.count"

    def count(self, name: str) -> int:
        """Changes that the latest run of this name has made."""
        return int(self.report(name).read_text())


@contextmanager
def kill_server(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[KillServer]:
    """A server whose runs lie below ``folder``; ``environment`` is added to this process's own."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(
        command, env={**own, **(environment or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        threads = json.loads(process.stdout.readline())
        assert len(threads) == 1, threads  # no thread that a fork would lose
        yield KillServer(folder, process)
        assert process.stdin is not None
        process.stdin.close()
