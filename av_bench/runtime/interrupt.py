"""Ctrl-C that cannot get lost, and signals that end a run at its next clip.

An exception raised inside a callback of a decoder is swallowed by C code, so Ctrl-C is remembered. SIGTERM and SIGUSR1
(a batch system's warning before its time limit) raise nothing where they arrive: the work ends where it calls
``check``, with everything that is finished on disk.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()
_told: list[int] = []  # signals that ask for an end at the next clip
STOP_SIGNALS = tuple(s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR1"))  # Windows has no SIGUSR1


class Stopped(BaseException):
    """A signal asked for an end. What is finished is on disk; the same command resumes.

    No KeyboardInterrupt: Typer ends the process with 130 on any of these, and 75 would not be seen.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def remembered() -> Iterator[None]:
    """While the block lasts, Ctrl-C raises KeyboardInterrupt and is remembered. No-op outside the main thread.

    A process that was set to ignore SIGINT (``nohup``, a job in the background) keeps ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _asked.clear()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stoppable(*, hurry: bool = True) -> Iterator[None]:
    """While the block lasts, SIGTERM and SIGUSR1 make ``check`` raise Stopped; with ``hurry`` a second one is obeyed.

    For work that calls ``check`` at every clip. No-op outside the main thread and for signals that are handled already.
    """
    main = threading.current_thread() is threading.main_thread()
    mine = [s for s in STOP_SIGNALS if main and signal.getsignal(s) is signal.SIG_DFL]
    if not mine:
        yield
        return
    _told.clear()
    for number in mine:
        signal.signal(number, _stop if hurry else _note)
    try:
        yield
    finally:
        _told.clear()
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of Ctrl-C and of the stop signals back at the end: some libraries install their own."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOP_SIGNALS)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def asked() -> bool:
    """Whether Ctrl-C was pressed in the block of ``remembered``."""
    return _asked.is_set()


def check() -> None:
    """In the main thread: KeyboardInterrupt when Ctrl-C got lost, Stopped after a signal of ``stoppable``."""
    if threading.current_thread() is not threading.main_thread():
        return
    if _asked.is_set():
        raise KeyboardInterrupt
    if _told:
        raise Stopped(_told[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    _asked.set()
    raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    if _told:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _note(number, frame)


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    _told.append(number)
