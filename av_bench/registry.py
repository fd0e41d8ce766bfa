"""One registry for models, sets, metrics and extractors: lazy, open through entry points, with misses that teach.

The package's own entries are strings ``"module:attribute"``, so that listing names imports nothing. Other installed
packages add theirs through the entry-point groups ``av_bench.models``, ``av_bench.metrics``, ``av_bench.extractors``
and ``av_bench.sets``.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from av_bench.contracts import UsageError

log = logging.getLogger(__name__)

OWN: dict[str, dict[str, str]] = {
    "models": {
        "oracle": "model_zoo.sanity:Oracle",
        "shuffled": "model_zoo.sanity:Shuffled",
        "noise": "model_zoo.sanity:Noise",
        "silence": "model_zoo.sanity:Silence",
        "mmaudio-nano": "model_zoo.mmaudio.nano:MMAudioNano",
        "mmaudio-s-16k": "model_zoo.mmaudio.sampling.published:small_16k",
        "mmaudio-s-44k": "model_zoo.mmaudio.sampling.published:small_44k",
        "mmaudio-m-44k": "model_zoo.mmaudio.sampling.published:medium_44k",
        "mmaudio-l-44k": "model_zoo.mmaudio.sampling.published:large_44k",
        "mmaudio-l": "model_zoo.mmaudio.sampling.published:large_44k",
        "mmaudio-l-44k-v2": "model_zoo.mmaudio.sampling.published:large_44k_v2",
    },
    "extractors": {
        "nano-tagger": "av_bench.extractors.nano:NanoTagger",
        "nano-bind-audio": "av_bench.extractors.nano:NanoBindAudio",
        "nano-bind-video": "av_bench.extractors.nano:NanoBindVideo",
        "nano-bind-text": "av_bench.extractors.nano:NanoBindText",
        "nano-sync-audio": "av_bench.extractors.nano:NanoSyncAudio",
        "nano-sync-video": "av_bench.extractors.nano:NanoSyncVideo",
        "nano-sync": "av_bench.extractors.nano:NanoSync",
        "onsets": "av_bench.extractors.onsets:Onsets",
        "passt": "av_bench.extractors.passt:Passt",
        "panns": "av_bench.extractors.panns:Panns",
        "vggish": "av_bench.extractors.vggish:Vggish",
        "imagebind-audio": "av_bench.extractors.imagebind:ImageBindAudio",
        "imagebind-video": "av_bench.extractors.imagebind:ImageBindVideo",
        "clap-audio": "av_bench.extractors.clap:ClapAudio",
        "clap-text": "av_bench.extractors.clap:ClapText",
        "msclap-audio": "av_bench.extractors.msclap:MsClapAudio",
        "msclap-text": "av_bench.extractors.msclap:MsClapText",
        "synchformer-audio": "av_bench.extractors.synchformer:SynchformerAudio",
        "synchformer-video": "av_bench.extractors.synchformer:SynchformerVideo",
        "synchformer": "av_bench.extractors.synchformer:SynchformerHead",
    },
    "metrics": {
        "frechet": "av_bench.metrics.columns:Frechet",
        "frechet_infinity": "av_bench.metrics.columns:FrechetInfinity",
        "kl": "av_bench.metrics.columns:KLDivergence",
        "inception": "av_bench.metrics.columns:InceptionScore",
        "cosine": "av_bench.metrics.columns:Cosine",
        "desync": "av_bench.metrics.columns:DeSync",
        "onset_accuracy": "av_bench.metrics.columns:OnsetAccuracy",
        "onset_ap": "av_bench.metrics.columns:OnsetAP",
        "onset_f1": "av_bench.metrics.columns:OnsetF1",
    },
    "sets": {},
}


def names(group: str) -> list[str]:
    """All names of a group, own and foreign, sorted; nothing is imported."""
    return sorted({*OWN[group], *_foreign(group)})


def load(group: str, name: str) -> Any:
    """The object registered under ``name``. UsageError names the nearest and the available on a miss."""
    target: Mapping[str, Any] = {**_foreign(group), **OWN[group]}
    if name not in target:
        raise UsageError(miss(group, name, names(group)))
    entry = target[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        return getattr(import_module(module), attribute)
    return entry.load()


def miss(group: str, name: str, available: list[str]) -> str:
    """The one-line message for an unknown name."""
    near = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {group.removesuffix('s')} {name!r}.{hint} Available: {', '.join(available) or 'none'}"


def _foreign(group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in entry_points(group=f"av_bench.{group}"):
        if point.name in OWN[group]:
            log.warning("entry point %s of %s is ignored: the name belongs to av-bench", point.name, point.value)
        elif point.name in found:
            log.warning("two packages offer %s %r: %s is kept", group, point.name, found[point.name].value)
        else:
            found[point.name] = point
    return found
