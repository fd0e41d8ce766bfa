"""Tasks whose workers do what a test asks of them: plain data, so that they reach a child process."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from av_bench.contracts import MediaError, Reason
from av_bench.engines.contract import Event, Local, Lost, Part, Task
from av_bench.runtime import interrupt


@dataclass(frozen=True)
class Words:
    """A part: some words."""

    clips: tuple[str, ...]

    def halves(self) -> tuple[Words, ...]:
        """Both halves."""
        middle = len(self.clips) // 2
        return () if len(self.clips) < 2 else (Words(self.clips[:middle]), Words(self.clips[middle:]))


class Copied(Local[Part, Event]):
    """This process, with a copy of the task and of every part, as another process would have."""

    def run(self, task: Task[Part, Event], parts: Sequence[Part]) -> Iterator[Event | Lost[Part]]:
        """As the local engine does."""
        yield from super().run(pickle.loads(pickle.dumps(task)), pickle.loads(pickle.dumps(list(parts))))


@dataclass(frozen=True)
class Shout:
    """Gives back each word in capitals, once the word has done what it says.

    ``die`` kills the worker, ``once`` kills it the first time, ``fill`` uses up its memory, ``break`` raises a
    MediaError, ``slow`` writes a file and takes its time.
    """

    folder: Path

    def open(self, device: str) -> Callable[[Words], Iterator[str]]:
        """A worker on a device."""
        if device == "broken":
            os._exit(3)

        def work(part: Words) -> Iterator[str]:
            for word in part.clips:
                self._do(word)
                yield word.upper()
                interrupt.check()

        return work

    def _do(self, word: str) -> None:
        kind, _, name = word.partition(":")
        mark = self.folder / name
        if kind == "die" or (kind == "once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "fill":
            raise MemoryError("no room for the word")
        elif kind == "break":
            raise MediaError("a.wav", Reason.EMPTY, "no word in it")
        elif kind == "slow":
            mark.touch()
            time.sleep(0.3)
