"""From a set definition and a data folder to the frozen list of clips."""

from __future__ import annotations

from collections.abc import Callable

from av_bench.contracts import ClipSet, UsageError
from av_bench.registry import miss
from protocols.definitions import SetDefinition, SetRequest


def read_clips(definition: SetDefinition, request: SetRequest) -> ClipSet:
    """The frozen list of clips of a set, in id order, cut to ``request.limit``."""
    from protocols.readers import folder, listed, rendered

    readers: dict[str, Callable[[SetDefinition, SetRequest], ClipSet]]
    readers = {"folder": folder.read, "rendered": rendered.read, "list": listed.read}
    if definition.kind not in readers:
        raise UsageError(f"set {definition.name}: {miss('kinds', definition.kind, sorted(readers))}")
    return readers[definition.kind](definition, request)
