"""Which features finished runs were scored from, so that a store can be cleaned of all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from av_bench import registry
from av_bench.contracts import PairExtractor
from av_bench.features.extraction import PROBE
from av_bench.features.extractor_set import pair_fingerprint
from av_bench.features.store import Store
from av_bench.media.content import avi_identity
from av_bench.pipeline.rescore import scored_media
from av_bench.results.record import Run, read_run


def keep_only(store: Store, runs: Sequence[Path]) -> int:
    """Remove from a store what none of the runs was scored from; returns the bytes freed.

    UsageError, before anything is removed, when a folder is not a finished run. Conditions of generators go too: only
    generating needs them.
    """
    found = [read_run(path) for path in runs]
    fingerprints = {PROBE}.union(*(_fingerprints(run) for run in found))
    media = set[str]().union(*(_digests(run) for run in found))
    return store.keep(fingerprints, media | {avi_identity(digest) for digest in media})


def _fingerprints(run: Run) -> set[str]:
    recorded = run.info.get("extractors", {})
    kept = set(recorded.values())
    for name, own in recorded.items():
        cls = registry.load("extractors", name)
        if issubclass(cls, PairExtractor):
            kept.add(pair_fingerprint(name, own, *(recorded[n] for n in (cls.video, cls.audio) if n in recorded)))
    return kept


def _digests(run: Run) -> set[str]:
    entries = scored_media(run).values()
    single = {str(entry[key]) for entry in entries for key in ("reference", "picture") if entry.get(key)}
    return single | {str(digest) for entry in entries for digest in entry.get("generated", [])}
