"""The command line called within the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from av_bench.cli import main


def av_bench(command: str, arguments: Sequence[str | Path]) -> int:
    """``av-bench COMMAND ARGUMENTS``; returns the exit code."""
    with mock.patch.object(sys, "argv", ["av-bench", command, *map(str, arguments)]):
        try:
            main()
        except SystemExit as done:
            return int(done.code or 0)
    return 0
