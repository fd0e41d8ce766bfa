"""Rendering, training and auditing in processes that kill themselves before the n-th change of a folder.

Each is forked by ``tests.forks``. A job: ``work``, ``folder`` (where it works), ``point`` (0 for never) and ``report``
(file for the number of changes).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forks import KILLED as KILLED
from tests.forks import Forks, forks, serve
from tests.kill_server import kill_at


def render(folder: Path) -> None:
    """Two clips of the rendered set and their table."""
    from protocols.impacts.build import build

    build("test", folder, count=2, workers=1)


def train(folder: Path) -> None:
    """A tiny network for four steps, with checkpoints and snapshots."""
    from model_zoo.mmaudio.training.loop import train as run_training
    from tests.model_zoo.mmaudio.training_tools import tiny_recipe

    every = {"log": 1, "validate": 4, "snapshot": 2, "checkpoint": 2}
    run_training(tiny_recipe(folder.parent / "recipe", steps=4, every=every), folder, quiet=True)


def audit(folder: Path) -> None:
    """Two videos against themselves under another name, with a store and a JSON file."""
    from av_bench.audit.content import audit_content
    from av_bench.audit.content_report import to_json
    from av_bench.audit.report import write_json
    from av_bench.features.store import Store
    from av_bench.runtime.progress import Reporter

    media = folder.parent / "media"
    result = audit_content(media / "test", [media / "train"], Store(folder / "store"), Reporter(True), 1)
    write_json(to_json(result), folder / "audit.json")


WORK = {"render": render, "train": train, "audit": audit}


def work(job: dict[str, Any]) -> int:
    """One job in a process of its own."""
    kill_at(job["point"], job["folder"], job["report"])
    WORK[job["work"]](Path(job["folder"]))
    return 0


class Jobs:
    """Jobs below one folder, seen from a test."""

    def __init__(self, forked: Forks, folder: Path) -> None:
        self.forks, self.folder = forked, folder

    def run(self, work: str, points: Mapping[str, int]) -> list[int]:
        """Exit codes of jobs at once: folder name -> point."""
        return self.forks.run(
            [
                {"work": work, "folder": str(self.folder / name), "point": point, "report": str(self.report(name))}
                for name, point in points.items()
            ]
        )

    def report(self, name: str) -> Path:
        return self.folder / f"{name}.count"

    def changes(self, work: str) -> int:
        """Changes of the folder in a run that nobody kills; its folder is called ``whole``."""
        assert self.run(work, {"whole": 0}) == [0]
        return int(self.report("whole").read_text())


@contextmanager
def jobs(folder: Path) -> Iterator[Jobs]:
    """Jobs below a folder."""
    with forks(["-m", "tests.faults.kill_jobs"]) as started:
        yield Jobs(started, folder)


if __name__ == "__main__":
    serve(
        sys.argv[1],
        ("protocols.impacts.build", "model_zoo.mmaudio.training.loop", "av_bench.audit.content", "pyarrow"),
        work,
    )
