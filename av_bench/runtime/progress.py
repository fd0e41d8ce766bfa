"""Progress on stderr: bars on a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from av_bench.contracts import printable
from av_bench.runtime import interrupt

PLAIN_EVERY = 10.0  # seconds between plain lines
_SAID: set[str] = set()  # remarks of this process


class Stage:
    """One counted stage; records its wall time."""

    def __init__(self, name: str, total: int, quiet: bool) -> None:
        self.name, self.total, self.quiet = name, total, quiet
        self.done = 0
        self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """``count`` more items are done. KeyboardInterrupt when Ctrl-C was pressed and got lost in a decoder."""
        interrupt.check()
        self.done += count
        now = time.monotonic()
        if not self.quiet and now - self._last > PLAIN_EVERY:
            self._last = now
            print(f"{self.name}: {self.done}/{self.total}", file=sys.stderr, flush=True)


class _Bar(Stage):
    def __init__(self, name: str, total: int) -> None:
        super().__init__(name, total, quiet=True)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:<22}"), BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(name, total=total)
        self._progress.start()

    def advance(self, count: int = 1) -> None:
        interrupt.check()
        self.done += count
        self._progress.advance(self._task, count)

    def stop(self) -> None:
        self._progress.stop()


class Reporter:
    """Opens stages and keeps their seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line on stderr."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def say_once(self, text: str) -> None:
        """A remark that one command needs only once, however many runs it makes."""
        if not self.quiet and text not in _SAID:
            _SAID.add(text)
            self.say(text)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Stage]:
        """A stage of ``total`` items."""
        started = time.perf_counter()
        bar = None
        if not self.quiet and sys.stderr.isatty() and total:
            bar = _Bar(name, total)
        try:
            yield bar or Stage(name, total, self.quiet)
        finally:
            if bar is not None:
                bar.stop()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
