"""Whether the disk of a store can hold what a large run is about to write."""

from __future__ import annotations

from collections.abc import Mapping

from av_bench.contracts import MissingRequirement
from av_bench.features.store import Store
from av_bench.runtime.progress import Reporter

WORTH_SAYING = 1e9  # bytes


def refuse_full_disk(store: Store, rows: Mapping[str, int], reporter: Reporter) -> None:
    """Say how much will be written, and refuse (MissingRequirement) when there is no room for it.

    ``rows`` counts the entries to come by fingerprint. Their size is that of entries that are there: known before the
    first batch where another run left some, and after it otherwise.
    """
    sizes = {name: count * (store.bytes_of_an_entry(name) or 0.0) for name, count in rows.items()}
    needed, free = sum(sizes.values()), store.free()
    text = f"store {store.root}: about {needed / 1e9:.1f} GB to be written, {free / 1e9:.1f} GB free"
    if needed > free:
        largest = max(sizes, key=lambda name: sizes[name])
        raise MissingRequirement(
            f"{text}; {largest} alone takes {sizes[largest] / 1e9:.1f} GB. Make room (`av-bench store clean --keep "
            "RUN`), or choose another disk with --store"
        )
    if needed > WORTH_SAYING:
        reporter.say(text)
