"""From a set definition and a data folder to the frozen list of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from av_bench.contracts import ClipSet
from protocols.definitions import SetDefinition, SetRequest


def read_clips(definition: SetDefinition, request: SetRequest) -> ClipSet:
    """The frozen list of clips of a set, in id order, cut to ``request.limit``."""
    from protocols.readers import folder, listed, rendered

    readers: dict[str, Callable[[SetDefinition, SetRequest], ClipSet]]
    readers = {"folder": folder.read, "rendered": rendered.read, "list": listed.read}
    data = request.data if request.data is not None else definition.beside(definition.data)
    table = request.table if request.table is not None else definition.beside(definition.table)
    return readers[definition.kind](definition, replace(request, data=data, table=table))
