"""Python's cyclic garbage collector while a run holds hundreds of thousands of small objects that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (200_000, 10, 1000)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect seldom: a full collection walks over every clip of the run, and there would be dozens of them.

    The caller's thresholds come back at the end. On 15,446 clips it saves a fifth of a warm run
    (``benchmarks/scale.py``); young garbage is still collected.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
