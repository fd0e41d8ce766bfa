"""A process that imports once and then forks a process of its own for each job; jobs of one line run at once.

The server reads one JSON list of jobs per line and answers with their exit codes; a process that was ended by a signal
has its negative number. What a job is, the work that is given to ``serve`` says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLED = -signal.SIGKILL


def serve(modules: Sequence[str], work: Callable[[dict[str, Any]], int]) -> None:
    """Import the modules, name this process's threads but the allocator's, then fork for each job of a line."""
    import torch

    for name in modules:
        import_module(name)
    torch.set_num_threads(1)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    print(json.dumps([name for name in threads if name != "jemalloc_bg_thd"]), flush=True)
    for line in sys.stdin:
        pids = [_fork(job, work) for job in json.loads(line)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


def _fork(job: dict[str, Any], work: Callable[[dict[str, Any]], int]) -> int:
    """The id of a process that does one job and ends with its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work(job)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


class Forks:
    """The server, seen from a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> list[int]:
        """Exit codes of jobs that go at once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))


@contextmanager
def forks(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Forks]:
    """A server started as ``python ARGUMENTS``; ``environment`` is added to this process's own."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *arguments],
        env={**own, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        threads = json.loads(process.stdout.readline())
        assert len(threads) == 1, threads  # no thread that a fork would lose
        yield Forks(process)
        assert process.stdin is not None
        process.stdin.close()
