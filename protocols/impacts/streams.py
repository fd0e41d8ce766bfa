"""Independent random streams of one clip, so that a new draw in one stage leaves the others as they were."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Generator of the stream ``name`` of the clip with this seed; the same pair always gives the same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))
