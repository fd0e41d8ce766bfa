"""Arrays out of the bytes of a safetensors file.

The package safetensors does this too, but spends more time on each small array than the bytes take: a store of 200,000
clips holds millions of them. The format: 8 bytes of header length (little endian), a JSON header of name -> dtype,
shape and byte range, then the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def arrays(payload: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """(name, array) of every array, each a copy of its own. ValueError when the bytes are no such file."""
    base = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:base])
    try:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, (start, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            flat = np.frombuffer(payload, dtype, (end - start) // dtype.itemsize, base + start)
            yield name, flat.reshape(entry["shape"]).copy()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no header of safetensors ({type(error).__name__}: {error})") from error
