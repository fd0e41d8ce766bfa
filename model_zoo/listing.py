"""What `av-bench list models` shows: every model and baseline, what it is, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from av_bench import registry
from av_bench.contracts import AvBenchError
from model_zoo.baselines.load import baseline_options, load_manifest, manifest_names
from model_zoo.options import OPTIONS_OF


@dataclass(frozen=True)
class ModelEntry:
    """One model: ``options`` are those of its spec ``NAME:option=value``, each with what it does."""

    name: str
    what: str
    options: Mapping[str, str]
    provider: str


def listed_models() -> list[ModelEntry]:
    """Registered models first, then baselines, each sorted by name. What cannot be loaded here says so."""
    return [*map(_registered, registry.names("models")), *map(_baseline, manifest_names())]


def _registered(name: str) -> ModelEntry:
    provider = registry.origin("models", name)
    if name in registry.OWN["models"]:
        return ModelEntry(name, registry.first_line("models", name), OPTIONS_OF.get(name, {}), provider)
    try:
        cls = registry.load("models", name)
    except (ImportError, AvBenchError) as error:
        return ModelEntry(name, f"not usable here: {error}", {}, provider)
    return ModelEntry(name, (cls.__doc__ or "").strip().partition("\n")[0], cls.options, provider)


def _baseline(name: str) -> ModelEntry:
    manifest = load_manifest(name)
    return ModelEntry(name, manifest.title, baseline_options(manifest), "baseline")
