"""Child processes of this machine, one per device.

A child that dies is started again once for each part, then the part is halved until the clip at fault is alone
(``Todo``). Children ignore Ctrl-C, which their parent handles, and end by themselves when their parent is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from av_bench.contracts import AvBenchError, MissingRequirement, Reason
from av_bench.engines.contract import Attempt, Engine, Event, Lost, Part, Task, Todo
from av_bench.runtime import interrupt

STARTS = 2  # attempts to start a child before the run is given up
GRACE = 600.0  # seconds that children have to finish their clip after a signal
_POLL = 0.2  # seconds after which signals are looked for


class Child:
    """One child process and the connection to it."""

    def __init__(self, device: str, threads: int) -> None:
        self.device = device
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "av_bench.engines.child", str(theirs.fileno())]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": str(threads)}
        environment = {**os.environ, **own}
        with theirs:
            self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment)
        self.connection = Connection(ours.detach())
        self.ready = False
        self.attempt: Attempt[Any] | None = None

    def send(self, message: object) -> None:
        """Hand something over; a child that is dead shows at its connection."""
        with suppress(OSError):
            self.connection.send(message)

    def end(self) -> str:
        """Close the connection, wait, and say how the child ended. One that keeps working is killed."""
        self.connection.close()
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Processes(Engine[Part, Event]):
    """One child per device. ``threads`` are those of an operation in each child."""

    def __init__(self, devices: Sequence[str], threads: int = 1) -> None:
        self.devices, self.threads = tuple(devices), threads

    def run(self, task: Task[Part, Event], parts: Sequence[Part]) -> Iterator[Event | Lost[Part]]:
        """As the contract says. MissingRequirement when a child does not even start."""
        todo: Todo[Part] = Todo(parts)
        children = [self._start(task, device) for device in self.devices[: len(parts)]]
        failed_starts = 0
        try:
            while True:
                interrupt.check()
                for child in children:
                    if child.ready and child.attempt is None and (attempt := todo.next()) is not None:
                        child.attempt = attempt
                        child.send(attempt.part)
                if not todo and all(child.attempt is None for child in children):
                    return
                for child in _readable(children):
                    kind, content = _received(child)
                    if kind == "event":
                        yield content
                    elif kind == "dead":
                        children.remove(child)
                        failed_starts = 0 if child.ready else failed_starts + 1
                        if (lost := _buried(child, todo, failed_starts, content)) is not None:
                            yield lost
                        children.append(self._start(task, child.device))
        except interrupt.Stopped:
            yield from _stopped(children)
            raise
        finally:
            for child in children:
                child.send(None)
            for child in children:
                child.end()

    def _start(self, task: Task[Part, Event], device: str) -> Child:
        child = Child(device, self.threads)
        child.send((task, device))
        return child


def _readable(children: Sequence[Child]) -> list[Child]:
    found = wait([child.connection for child in children], timeout=_POLL)
    return [child for child in children if child.connection in found]


def _received(child: Child) -> tuple[str, Any]:
    """The next message of a child, its own state kept; "dead" with the reason when there will be no more."""
    try:
        kind, content = child.connection.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        return "dead", (Reason.CRASHED, f"its process on {child.device} {child.end()}")
    if kind == "ready":
        child.ready = True
    elif kind == "done":
        child.attempt = None
    elif kind == "memory":
        child.end()
        return "dead", (Reason.OUT_OF_MEMORY, f"the memory of {child.device} is used up: {content}")
    elif kind == "stopped":  # a signal that went to the child alone
        raise interrupt.Stopped(content)
    elif kind == "error":
        raise content
    return kind, content


def _buried(child: Child, todo: Todo[Part], failed_starts: int, why: tuple[Reason, str]) -> Lost[Part] | None:
    """Give the part of a dead child back, or give up when children do not start at all."""
    if failed_starts >= STARTS:
        raise MissingRequirement(f"no worker starts on {child.device}: {why[1]}; its own lines above say why")
    if child.attempt is None:
        return None
    if not child.ready:
        todo.back(child.attempt)
        return None
    return todo.failed(child.attempt, *why)


def _stopped(children: list[Child]) -> Iterator[Any]:
    """Let every child finish its clip, and take what it has to say."""
    for child in children:
        if child.attempt is not None:
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
    working, end = [c for c in children if c.attempt is not None], time.monotonic() + GRACE
    while working and time.monotonic() < end:
        for child in _readable(working):
            try:
                kind, content = _received(child)
            except (interrupt.Stopped, AvBenchError):
                working.remove(child)
                continue
            if kind == "event":
                yield content
            elif kind in ("dead", "done"):
                working.remove(child)
