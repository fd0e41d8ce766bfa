"""The cache of librosa's compiled code, which the workers of a test run share.

By default it lies beside the package. Two workers that fill an empty cache at once can read each other's half-written
entries and crash, and each would compile for twenty seconds. So one process fills it, while the workers collect; the
cache is kept for the next run.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".pytest_cache" / "numba"
CODE = """
import numpy
from av_bench.metrics import detect_onsets
detect_onsets(numpy.random.default_rng(0).normal(size=22_050).astype("float32"), 22_050, "paper")
"""


def fill() -> None:
    """Start the process that fills the cache; it holds the folder's lock until it ends."""
    os.environ["NUMBA_CACHE_DIR"] = str(FOLDER)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", CODE], cwd=ROOT, pass_fds=(lock.fileno(),))
    atexit.register(process.wait)


def wait() -> None:
    """In a worker: until the cache is full."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        with (FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
