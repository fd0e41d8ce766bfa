"""A process that imports once and then forks a process of its own for each job.

A client connects to the server's socket and hands over a job (JSON), its folder, its environment and its three
streams; the job's process takes them over, and the answer is its exit code, negative where a signal ended it. Jobs of
several connections run at once. What a job is, the work that is given to ``serve`` says. Nothing but the standard
library is imported here: ``python -S -E`` starts a client within milliseconds.
"""

from __future__ import annotations

import array
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KILLED = -signal.SIGKILL
Work = Callable[[Any], int]


def serve(path: str, modules: Sequence[str], work: Work) -> None:
    """Import the modules, name this process's threads but the allocator's, then fork for each connection.

    Ends with its standard input, so when the test's process ends in whatever way.
    """
    import torch

    for name in modules:
        import_module(name)
    torch.set_num_threads(1)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print(json.dumps([name for name in threads if name != "jemalloc_bg_thd"]), flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            link, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(link, work)
            link.close()
            _reap()


def _answer(link: socket.socket, work: Work) -> None:
    """In a fork: fork again for the job, send its exit code, and end."""
    _, ancillary, _, _ = link.recvmsg(1, socket.CMSG_LEN(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    request = json.loads(link.makefile("r").readline())
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            _take_over(streams, request["folder"], request["environment"])
            code = work(request["job"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    link.sendall(f"{code}\n".encode())
    os._exit(0)


def _reap() -> None:
    """Take the status of jobs that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _take_over(streams: Sequence[int], folder: str, environment: Mapping[str, str]) -> None:
    """Become a process of the caller's."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)  # type: ignore[misc]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def send(
    path: str | Path, job: object, folder: Path, environment: Mapping[str, str], streams: Sequence[int] = (0, 1, 2)
) -> socket.socket:
    """Start a job; its exit code is read from the connection."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(path))
    link.sendmsg([b"s"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
    request = {"job": job, "folder": str(folder), "environment": dict(environment)}
    link.sendall(json.dumps(request).encode() + b"\n")
    return link


def exit_code(link: socket.socket) -> int:
    """Wait for the end of a job; 99 where the server has died."""
    with link, link.makefile("r") as answers:
        answer = answers.readline()
    return int(answer) if answer else 99


class Forks:
    """The server, seen from a test."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path, self.environment = path, environment

    def run(self, jobs: Sequence[object]) -> list[int]:
        """Exit codes of jobs that go at once, on this process's streams."""
        own = {**os.environ, **self.environment}
        links = [send(self.path, job, Path.cwd(), own) for job in jobs]
        return [exit_code(link) for link in links]

    def output(
        self, job: object, folder: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One job in a folder, with what it printed."""
        own = {**os.environ, **self.environment, **(environment or {})}
        with (
            Path(os.devnull).open() as nothing,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            code = exit_code(send(self.path, job, folder, own, [file.fileno() for file in (nothing, out, err)]))
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess([], code, out.read(), err.read())


@contextmanager
def forks(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, python: str = sys.executable
) -> Iterator[Forks]:
    """A server started as ``python ARGUMENTS SOCKET``; ``environment`` is added to this process's own."""
    folder = Path(tempfile.mkdtemp(prefix="av-bench-"))  # a socket's path may have 108 bytes
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    added = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(environment or {})}
    command = [python, *arguments, str(folder / "s")]
    with subprocess.Popen(
        command, env=os.environ | added, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        threads = json.loads(process.stdout.readline())
        assert len(threads) == 1, threads  # no thread that a fork would lose
        yield Forks(folder / "s", added)
        process.stdin.close()
    shutil.rmtree(folder)
