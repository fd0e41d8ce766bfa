"""``av-bench`` without its imports: a server forks for each command.

``serve SOCKET`` is the server; ``call SOCKET ARGUMENTS`` is a small program that hands over its arguments, folder,
environment and streams, waits, and ends with the command's exit code.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # ``call`` runs without the environment

from tests.forks import Forks, exit_code, forks, send, serve

MODULES = (
    "pandas",
    "pyarrow.parquet",
    "matplotlib.backends.backend_pdf",
    "matplotlib.figure",
    "librosa.onset",
    "sklearn.metrics",
    "av_bench.cli.app",
    "av_bench.extractors.nano",
    "av_bench.metrics.columns",
    "av_bench.pipeline.run",
)


def work(words: Sequence[str]) -> int:
    """A command line: ``av-bench ARGUMENTS`` or ``pytest ARGUMENTS``."""
    from av_bench.cli.app import main

    sys.argv = list(words)
    try:
        if words[0] == "pytest":
            import pytest

            return pytest.console_main()
        main()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


@contextmanager
def program(python: str = sys.executable) -> Iterator[Forks]:
    """A server of ``av-bench`` as an interpreter sees it; a job is a command line, as a list of words."""
    with forks(["-m", "tests.program", "serve"], python=python) as started:
        yield started


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], MODULES, work)
    else:
        sys.exit(exit_code(send(sys.argv[2], ["av-bench", *sys.argv[3:]], Path.cwd(), os.environ)))
