"""What runs in a child process of ``av_bench.engines.processes``: opens the task, then does part after part."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

from av_bench.contracts import PluginError
from av_bench.engines.contract import memory_is_full
from av_bench.runtime import interrupt

Result = TypeVar("Result")


def main() -> None:
    """The argument is the descriptor of the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # standard output belongs to the parent
    connection = Connection(int(sys.argv[1]))
    with interrupt.stoppable(hurry=False):
        try:
            _work(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the parent is gone


def _work(connection: Connection) -> None:
    task, device = connection.recv()
    worker = _tried(connection, lambda: task.open(device))
    if worker is None:
        return
    connection.send(("ready", None))
    while (part := connection.recv()) is not None:
        if _tried(connection, partial(_done, connection, worker, part)) is None:
            return


def _done(connection: Connection, worker: Callable[[object], Iterator[object]], part: object) -> bool:
    for event in worker(part):
        connection.send(("event", event))
        interrupt.check()
    connection.send(("done", None))
    return True


def _tried(connection: Connection, work: Callable[[], Result]) -> Result | None:
    """``work()``, or None after the parent was sent the reason."""
    try:
        return work()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except interrupt.Stopped as stopped:
        connection.send(("stopped", stopped.number))
    except BaseException as error:
        if memory_is_full(error):
            connection.send(("memory", str(error).partition("\n")[0]))
        else:
            connection.send(("error", _portable(error)))
    return None


def _portable(error: BaseException) -> BaseException:
    """An exception that arrives as it is; others become one that says the same."""
    try:
        if isinstance(pickle.loads(pickle.dumps(error)), type(error)):
            return error
    except Exception:
        pass
    print(traceback.format_exc(), file=sys.stderr)
    return PluginError(f"a worker raised {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
