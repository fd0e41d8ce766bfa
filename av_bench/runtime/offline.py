"""Whether the network may be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "AV_BENCH_OFFLINE"


def offline() -> bool:
    """True when the environment forbids the network (``AV_BENCH_OFFLINE`` set to anything but empty or 0)."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


@contextmanager
def offline_if(wanted: bool) -> Iterator[None]:
    """Forbid the network for this process and its children while the block lasts."""
    before = os.environ.get(VARIABLE)
    if wanted:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if wanted:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before
