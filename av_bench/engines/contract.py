"""What an engine is given and what it gives back: parts of one task in, events out, and no part lost in silence.

A task and its parts are plain data, so that they can be sent to another process or machine. The engine opens the task
once per device, which loads its networks, and hands it one part after the other. Whoever runs the engine writes the
records: workers write only files that are finished the moment they exist (samples, features).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from av_bench.contracts import Reason, is_out_of_memory


class Halved(Protocol):
    """A part of the work: some clips of a list."""

    @property
    def clips(self) -> tuple[str, ...]:
        """Their ids."""

    def halves(self) -> tuple[Self, ...]:
        """Two parts that make up this one; nothing for a part of one clip."""


Part = TypeVar("Part", bound=Halved)
Event = TypeVar("Event")
PartIn = TypeVar("PartIn", bound=Halved, contravariant=True)
EventOut = TypeVar("EventOut", covariant=True)


class Task(Protocol[PartIn, EventOut]):
    """Plain data that becomes a worker on a device. Opening it twice gives workers that do the same."""

    def open(self, device: str) -> Callable[[PartIn], Iterator[EventOut]]:
        """Load what the work needs; the worker yields events as it goes and raises what a user can act on."""


@dataclass(frozen=True)
class Lost(Generic[Part]):
    """A part that ended its worker every time, down to one clip: excluded, with the reason."""

    part: Part
    reason: Reason
    detail: str


class Engine(ABC, Generic[Part, Event]):
    """Does the parts of a task, in any order. Every part ends as events that came whole, or as ``Lost``.

    A part may be started twice when its worker dies, so that some of its events come twice; the later ones count.
    """

    @abstractmethod
    def run(self, task: Task[Part, Event], parts: Sequence[Part]) -> Iterator[Event | Lost[Part]]:
        """Events as they come. An exception of a worker that is not about memory ends the run and is raised here."""


class Local(Engine[Part, Event]):
    """This process: one part after the other on one device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def run(self, task: Task[Part, Event], parts: Sequence[Part]) -> Iterator[Event | Lost[Part]]:
        """As the contract says; a worker that dies takes the caller with it."""
        worker = task.open(self.device)
        for part in parts:
            yield from worker(part)


@dataclass
class Attempt(Generic[Part]):
    """A part that is to be done, and how often its worker died over it."""

    part: Part
    failures: int = 0


class Todo(Generic[Part]):
    """Parts that are still to be done: one that fails is done again once, then in halves, until one clip is left."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._waiting = deque(Attempt(part) for part in parts)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self) -> Attempt[Part] | None:
        """The next part, None when none is waiting."""
        return self._waiting.popleft() if self._waiting else None

    def back(self, attempt: Attempt[Part]) -> None:
        """A part whose worker could not start: it has not failed."""
        self._waiting.appendleft(attempt)

    def failed(self, attempt: Attempt[Part], reason: Reason, detail: str) -> Lost[Part] | None:
        """Put a part back, whole or in halves; what cannot be halved any more is lost. Memory is halved at once."""
        if attempt.failures == 0 and reason is not Reason.OUT_OF_MEMORY:
            self._waiting.appendleft(Attempt(attempt.part, 1))
            return None
        halves = attempt.part.halves()
        if not halves:
            return Lost(attempt.part, reason, detail)
        self._waiting.extendleft(Attempt(half, 1) for half in reversed(halves))
        return None


def memory_is_full(error: BaseException) -> bool:
    """Whether a worker ended because the memory of its machine or device is used up."""
    return is_out_of_memory(error) or type(error).__name__ == "OutOfMemoryError"
