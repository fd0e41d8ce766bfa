"""Whole runs in processes that kill themselves at a chosen point, forked by ``tests.forks``.

A job: ``options`` of ``av_bench.run``, ``home`` (cache folder), ``watch`` (folder whose changes are counted), ``point``
(kill before the n-th change, 0 for never) and ``report`` (file for the number of changes).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any


def changes(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The path that an audit event is about to change: opened for writing, made, renamed to, cut or removed."""
    if event not in ("open", "os.rename", "os.truncate", "os.remove", "os.mkdir"):
        return None
    path = arguments[1 if event == "os.rename" else 0]
    if isinstance(path, int):  # an open file
        return None
    nothing = {
        "open": lambda: not arguments[2] & (os.O_WRONLY | os.O_RDWR),
        "os.remove": lambda: not Path(path).exists(),
        "os.mkdir": lambda: Path(path).exists(),
    }
    return None if event in nothing and nothing[event]() else os.fsdecode(path)


def kill_at(point: int, watch: str, report: str) -> None:
    """Kill this process before the n-th change below ``watch``; count changes in ``report``."""
    count = 0
    inside = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, inside
        if inside:
            return
        path = changes(event, arguments)
        if path is None or not f"{path}/".startswith(f"{watch}/"):
            return
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
        inside = True
        Path(report).write_text(str(count))
        inside = False

    sys.addaudithook(hook)


def run(job: dict[str, Any]) -> int:
    """One run in a process of its own."""
    import av_bench

    os.environ["AV_BENCH_HOME"] = job["home"]
    kill_at(job["point"], job["watch"], job["report"])
    return av_bench.run(**job["options"]).exit_code


def serve(path: str) -> None:
    """Fork for each job; nothing has computed yet, so no threads but the allocator's are there."""
    from tests import forks  # not in ``drive``, which runs under interpreters that do not know this package

    forks.serve(
        path,
        (
            "pandas",
            "pyarrow.parquet",
            "av_bench.pipeline.run",
            "av_bench.metrics.columns",
            "av_bench.extractors.nano",
            "model_zoo.external.generator",
        ),
        run,
    )


def drive() -> None:
    """``kill_server.py POINT_FILE DRIVER ...``: a driver that kills itself the first time it is started."""
    import runpy

    file, driver, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    job = str(Path(rest[1]).parent)
    point = int(file.read_text()) if file.exists() else 0
    file.unlink(missing_ok=True)
    kill_at(point, job, f"{file}.count")
    sys.argv = [driver, *rest]
    runpy.run_path(driver, run_name="__main__")


if __name__ == "__main__":
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]  # tests/protocols is not protocols
    if len(sys.argv) > 2:
        drive()
    else:
        serve(sys.argv[1])
