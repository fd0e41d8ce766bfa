"""What surrounds every command: its streams, Ctrl-C, and how each kind of error ends the process.

Exit codes: 0 ok, 1 gate or selfcheck failed, 2 usage, 3 incomplete, 4 environment, 5 a fault of av-bench or of a
plugin, 75 stopped by SIGTERM or SIGUSR1, 130 interrupted (docs/reliability.md).
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TextIO

from av_bench.contracts import AvBenchError, PluginError, printable
from av_bench.runtime import interrupt
from av_bench.runtime.files import explained

ENVIRONMENT, FAULT, STOPPED, INTERRUPTED = 4, PluginError.exit_code, 75, 130


def run_command(command: Callable[[], object]) -> None:
    """Run a command and end the process with its exit code. Errors that a user can fix are one line on stderr."""
    _use_forgiving_streams()
    with interrupt.remembered():
        try:
            try:
                command()
            finally:
                sys.stdout.flush()
        except AvBenchError as error:
            _end(error.exit_code, str(error))
        except OSError as error:
            _end(ENVIRONMENT, explained(error))
        except MemoryError as error:
            _end(ENVIRONMENT, f"out of memory ({error}); use fewer --workers, --one-network, or a smaller set")
        except interrupt.Stopped as stopped:
            _end(STOPPED, f"{stopped}; what is finished is on disk, run the same command to resume")
        except KeyboardInterrupt:
            _end(INTERRUPTED, "interrupted; run the same command to resume")
        except SystemExit as done:
            if interrupt.asked() and done.code not in (0, None):  # Typer turns Ctrl-C into an exit without a word
                _end(INTERRUPTED, "interrupted; run the same command to resume")
            raise
        except Exception as error:
            print(printable_lines(traceback.format_exc()), file=sys.stderr, end="")
            _end(
                FAULT,
                f"unexpected {type(error).__name__}: this is a fault of av-bench, not of your input. Please report it "
                "with the command, the lines above, and what `av-bench --version` and `av-bench doctor` print",
            )


def _end(code: int, message: str) -> None:
    print(f"av-bench: {printable_lines(message)}", file=sys.stderr, flush=True)
    sys.exit(code)


def printable_lines(text: str) -> str:
    """Text of several lines with nothing in it that a terminal would obey."""
    return "\n".join(printable(line) for line in text.split("\n"))


class _Forgiving(io.TextIOWrapper):
    """A stream whose reader may go away (``| head``): the rest of what is written is dropped, and the work continues.

    A full disk is an error of standard output, by that name, but never of standard error.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._forgive(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._forgive(error)

    def _forgive(self, error: OSError) -> None:
        self._drop()
        if not isinstance(error, BrokenPipeError) and self is not sys.stderr:
            raise OSError(error.errno, error.strerror, "standard output") from error

    def _drop(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


def _use_forgiving_streams() -> None:
    """Output never ends a command: not a reader that goes away, not a closed stream, not a character it lacks."""
    sys.stdout = _forgiving(sys.stdout, sys.__stdout__)
    sys.stderr = _forgiving(sys.stderr, sys.__stderr__)


def _forgiving(stream: TextIO | None, original: TextIO | None) -> TextIO:
    if stream is None:  # closed before the start (``>&-``)
        return open(os.devnull, "w", encoding="utf8", errors="replace")  # noqa: PTH123
    if stream is not original or not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _Forgiving):
        return stream  # somebody captures the output
    lines = stream.line_buffering
    return _Forgiving(stream.detach(), stream.encoding, "backslashreplace", line_buffering=lines)
