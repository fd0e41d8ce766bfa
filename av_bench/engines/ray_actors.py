"""Ray core actors, one per device: on this machine, or on the nodes of a cluster (extra ``ray``).

An actor opens the task once and keeps its networks. It has one part at a time, so no more parts are on their way than
there are actors, and hands its events back while it works. When an actor or its node dies, Ray starts it again
(``max_restarts``) and repeats the part (``max_task_retries``); a part that kills its actor again, or fills its memory,
is halved until the clip at fault is alone (``Todo``). Features and samples are written by the actors, to folders that
all nodes share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from av_bench.contracts import MissingRequirement, Reason
from av_bench.engines.contract import Attempt, Engine, Event, Lost, Part, Task, Todo, memory_is_full
from av_bench.runtime import interrupt
from av_bench.runtime.devices import device_type
from av_bench.runtime.files import home

RESTARTS = 100  # of an actor in a whole run: nodes of a cluster come and go
RETRIES = 1  # of a part, on the new actor, before it is halved
_POLL = 0.5  # seconds after which signals are looked for


class Opened:
    """What lives in an actor: the task, opened on its device."""

    def __init__(self, task: Any, device: str, threads: int) -> None:
        import torch

        if device_type(device) == "cpu":
            torch.set_num_threads(threads)
        self._worker = task.open(device)

    def do(self, part: Any) -> Iterator[Any]:
        """The events of a part, as they come."""
        yield from self._worker(part)


@dataclass
class _Busy:
    """An actor and what it does: the part, and Ray's stream of its events."""

    handle: Any
    device: str
    attempt: Attempt[Any] | None = None
    stream: Any = None


class RayActors(Engine[Part, Event]):
    """One actor per device: a CPU each, or a GPU each, whichever Ray gives it."""

    def __init__(self, devices: Sequence[str], address: str | None = None) -> None:
        self.devices, self.address = tuple(devices), address

    def run(self, task: Task[Part, Event], parts: Sequence[Part]) -> Iterator[Event | Lost[Part]]:
        """As the contract says. MissingRequirement without Ray, or when the cluster is not reached or too small."""
        with interrupt.handlers_kept():
            ray = _ray()
            own = not ray.is_initialized()
            if own:
                _connect(ray, self.address)
        actors: list[_Busy] = []
        try:
            _refuse_too_small(ray, self.devices)
            content = ray.put(task)
            actors += [_actor(ray, content, device) for device in self.devices[: len(parts)]]
            yield from _events(ray, actors, Todo(parts), content)
        finally:
            for actor in actors:
                ray.kill(actor.handle)
            if own:
                ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingRequirement('--engine ray needs Ray: pip install "av-bench[ray]"') from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster; without an address the one that RAY_ADDRESS names, else one of this machine's own."""
    options: dict[str, Any] = {
        "address": address,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "error",
        "runtime_env": {"env_vars": {"PYTHONPATH": ":".join(filter(None, sys.path)), "AV_BENCH_HOME": str(home())}},
    }
    try:
        ray.init(**options)
    except Exception as error:  # a plain one when its processes do not start in time, as on a busy machine
        first = str(error).partition("\n")[0]
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise MissingRequirement(f"--engine ray: no cluster at {where}: {first}") from error


def _refuse_too_small(ray: Any, devices: Sequence[str]) -> None:
    """A cluster that can never hold the actors would let the run wait for ever."""
    kind = "CPU" if device_type(devices[0]) == "cpu" else "GPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < len(devices):
        raise MissingRequirement(
            f"--engine ray: {len(devices)} actors need a {kind} each, the cluster has {there}; give fewer --devices"
        )


def _actor(ray: Any, content: Any, device: str) -> _Busy:
    needs = {"num_cpus": 1} if device_type(device) == "cpu" else {"num_gpus": 1}
    remote = ray.remote(max_restarts=RESTARTS, max_task_retries=RETRIES, **needs)(Opened)
    inside = "cpu" if device_type(device) == "cpu" else "cuda"  # Ray shows an actor its own GPU only
    return _Busy(remote.remote(content, inside, 1), device)


def _events(ray: Any, actors: list[_Busy], todo: Todo[Part], content: Any) -> Iterator[Any]:
    """Parts to idle actors, events from busy ones, until nothing is left."""
    while True:
        interrupt.check()
        for actor in actors:
            if actor.attempt is None and (attempt := todo.next()) is not None:
                actor.attempt = attempt
                actor.stream = actor.handle.do.options(num_returns="streaming").remote(attempt.part)
        busy = {actor.stream: actor for actor in actors if actor.attempt is not None}
        if not busy:
            return
        ready, _ = ray.wait(list(busy), num_returns=len(busy), timeout=_POLL)
        for stream in ready:
            actor = busy[stream]
            try:
                yield ray.get(next(stream))
            except StopIteration:
                actor.attempt = None
            except (ray.exceptions.RayTaskError, ray.exceptions.RayError) as error:
                if (lost := _failed(ray, actor, todo, error)) is not None:
                    yield lost
                if isinstance(error, ray.exceptions.ActorDiedError):
                    actors[actors.index(actor)] = _actor(ray, content, actor.device)


def _failed(ray: Any, actor: _Busy, todo: Todo[Part], error: Any) -> Lost[Part] | None:
    """What to do with the part of an actor that died or ran out of memory; other errors are raised as they were."""
    attempt, actor.attempt = actor.attempt, None
    assert attempt is not None
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    if cause is not None and not memory_is_full(cause):
        raise cause
    first = str(cause or error).strip().partition("\n")[0]
    if cause is not None or isinstance(error, ray.exceptions.OutOfMemoryError):
        return todo.failed(attempt, Reason.OUT_OF_MEMORY, f"the memory of its actor is used up: {first}")
    attempt.failures = max(attempt.failures, RETRIES)  # Ray has repeated it already
    return todo.failed(attempt, Reason.CRASHED, f"its actor died: {first}")
