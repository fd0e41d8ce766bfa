"""Ctrl-C that cannot get lost: an exception raised inside a callback of a decoder is swallowed by C code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


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


def asked() -> bool:
    """Whether Ctrl-C was pressed in the block of ``remembered``."""
    return _asked.is_set()


def check() -> None:
    """Raise KeyboardInterrupt in the main thread when Ctrl-C was pressed and the exception got lost."""
    if _asked.is_set() and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    _asked.set()
    raise KeyboardInterrupt
