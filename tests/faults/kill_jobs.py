"""Rendering, training and auditing in processes that kill themselves before the n-th change of a folder.

Imports once, then forks a process for each job. Reads one JSON list of jobs per line and answers with their exit
codes. A job: ``work``, ``folder`` (where it works), ``point`` (0 for never) and ``report`` (file for the number of
changes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

KILLED = -9


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


def serve() -> None:
    """Fork for each job of a line."""
    from importlib import import_module

    import torch

    from tests.kill_server import kill_at

    for name in ("protocols.impacts.build", "model_zoo.mmaudio.training.loop", "av_bench.audit.content", "pyarrow"):
        import_module(name)
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        pids = []
        for job in json.loads(line):
            pid = os.fork()
            if pid == 0:
                code = 99
                try:
                    kill_at(job["point"], job["folder"], job["report"])
                    WORK[job["work"]](Path(job["folder"]))
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            pids.append(pid)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


class Jobs:
    """The process that forks, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder

    def run(self, work: str, points: Mapping[str, int]) -> list[int]:
        """Exit codes of jobs at once: folder name -> point."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        jobs: list[dict[str, Any]] = [
            {"work": work, "folder": str(self.folder / name), "point": point, "report": str(self.report(name))}
            for name, point in points.items()
        ]
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def report(self, name: str) -> Path:
        return self.folder / f"{name}.count"

    def changes(self, work: str) -> int:
        """Changes of the folder in a run that nobody kills; its folder is called ``whole``."""
        assert self.run(work, {"whole": 0}) == [0]
        return int(self.report("whole").read_text())


@contextmanager
def jobs(folder: Path) -> Iterator[Jobs]:
    """Jobs below a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults.kill_jobs"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Jobs(process, folder)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    serve()
