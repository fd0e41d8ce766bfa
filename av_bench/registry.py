"""One registry for models, metrics, extractors, sets and protocols: lazy, and open through entry points.

The package's own entries are strings ``"module:attribute"``, so that listing names imports nothing. Other installed
packages add theirs through the entry-point groups ``av_bench.models``, ``av_bench.metrics``, ``av_bench.extractors``
(classes), ``av_bench.sets`` and ``av_bench.protocols`` (paths of YAML files). What is loaded must be a subclass of the
base class of its group.
"""

from __future__ import annotations

import ast
import inspect
import logging
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, overload

from av_bench.contracts import Extractor, Metric, PairExtractor, PluginError, SampleSource, UsageError, unknown_name

log = logging.getLogger(__name__)

ClassGroup = Literal["models", "extractors", "metrics"]
FileGroup = Literal["sets", "protocols"]
CLASS_GROUPS: tuple[ClassGroup, ...] = ("models", "extractors", "metrics")

BASES: dict[str, tuple[type, ...]] = {
    "models": (SampleSource,),
    "extractors": (Extractor, PairExtractor),
    "metrics": (Metric,),
}
REQUIRED: dict[type, tuple[str, ...]] = {
    Extractor: ("name", "outputs"),
    PairExtractor: ("name", "outputs", "video", "audio"),
}
"""Class variables without a default, by base class."""

OWN: dict[str, dict[str, str]] = {
    "models": {
        "oracle": "model_zoo.sanity:Oracle",
        "shuffled": "model_zoo.sanity:Shuffled",
        "noise": "model_zoo.sanity:Noise",
        "silence": "model_zoo.sanity:Silence",
        "mmaudio-nano": "model_zoo.mmaudio.nano.model:MMAudioNano",
        "mmaudio-s-16k": "model_zoo.mmaudio.sampling.published:MMAudioSmall16k",
        "mmaudio-s-44k": "model_zoo.mmaudio.sampling.published:MMAudioSmall44k",
        "mmaudio-m-44k": "model_zoo.mmaudio.sampling.published:MMAudioMedium44k",
        "mmaudio-l-44k": "model_zoo.mmaudio.sampling.published:MMAudioLarge44k",
        "mmaudio-l": "model_zoo.mmaudio.sampling.published:MMAudioLarge44k",
        "mmaudio-l-44k-v2": "model_zoo.mmaudio.sampling.published:MMAudioLarge44kV2",
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
        "sfx": "av_bench.extractors.sfx:Sfx",
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
        "kernel_distance": "av_bench.metrics.kernel_columns:KernelDistance",
        "density": "av_bench.metrics.kernel_columns:Density",
        "coverage": "av_bench.metrics.kernel_columns:Coverage",
        "kl": "av_bench.metrics.columns:KLDivergence",
        "inception": "av_bench.metrics.columns:InceptionScore",
        "cosine": "av_bench.metrics.columns:Cosine",
        "desync": "av_bench.metrics.columns:DeSync",
        "onset_accuracy": "av_bench.metrics.columns:OnsetAccuracy",
        "onset_ap": "av_bench.metrics.columns:OnsetAP",
        "onset_f1": "av_bench.metrics.columns:OnsetF1",
    },
}


def names(group: ClassGroup) -> list[str]:
    """All names of a group, own and foreign, sorted; nothing is imported."""
    return sorted({*OWN[group], *_foreign(group)})


@overload
def load(group: Literal["models"], name: str) -> type[SampleSource]: ...
@overload
def load(group: Literal["extractors"], name: str) -> type[Extractor] | type[PairExtractor]: ...
@overload
def load(group: Literal["metrics"], name: str) -> type[Metric]: ...
@overload
def load(group: ClassGroup, name: str) -> type: ...
def load(group: ClassGroup, name: str) -> type:
    """The class registered under ``name``, checked against the base class of its group.

    UsageError for an unknown name; PluginError for another package's entry that cannot be imported or used.
    """
    if name in OWN[group]:
        module, _, attribute = OWN[group][name].partition(":")
        found: type = vars(import_module(module))[attribute]
        return found
    foreign = _foreign(group)
    if name not in foreign:
        raise UsageError(unknown_name(group.removesuffix("s"), name, names(group)))
    return _checked(group, foreign[name])


def first_line(group: ClassGroup, name: str) -> str:
    """What a name is: the first line of its class's docstring.

    That of the package's own classes is read from the source, since importing them imports torch; raises as ``load``
    does for those of other packages.
    """
    if name in OWN[group]:
        module, _, attribute = OWN[group][name].partition(":")
        text = _docstrings(module)[attribute]
    else:
        text = load(group, name).__doc__ or ""
    return text.strip().partition("\n")[0]


@cache
def _docstrings(module: str) -> dict[str, str]:
    """Docstrings of the classes of one of our modules, by class, without importing it."""
    top, *parts = module.split(".")
    found = find_spec(top)
    assert found is not None, "the package's own modules are there"
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]).joinpath(*parts).with_suffix(".py")
    tree = ast.parse(path.read_bytes())
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


def files(group: FileGroup) -> dict[str, Path]:
    """YAML files that other packages add to the package's own sets and protocols, by name."""
    found: dict[str, Path] = {}
    for name, point in _foreign(group).items():
        try:
            found[name] = Path(point.load())
        except Exception as error:  # a plugin may fail in any way
            raise PluginError(f"{_where(group, point)}: {type(error).__name__}: {error}") from error
    return found


def origin(group: ClassGroup, name: str) -> str:
    """Who provides a name: "av-bench", or the other package and its version."""
    if name in OWN[group]:
        return "av-bench"
    point = _foreign(group).get(name)
    return _package(point) if point is not None else "an unknown package"


def _checked(group: ClassGroup, point: EntryPoint) -> type:
    """The class behind an entry point; PluginError says what it lacks."""
    where = _where(group, point)
    try:
        loaded = point.load()
    except Exception as error:  # an import may fail in any way
        raise PluginError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    wanted = " or ".join(base.__name__ for base in BASES[group])
    if not inspect.isclass(loaded) or not issubclass(loaded, BASES[group]):
        raise PluginError(f"{where}: must be a subclass of av_bench.contracts.{wanted}")
    missing = sorted(vars(loaded).get("__abstractmethods__", ()))
    for base, required in REQUIRED.items():
        if issubclass(loaded, base):
            missing += [key for key in required if not any(key in vars(parent) for parent in loaded.__mro__)]
    if missing:
        raise PluginError(f"{where}: {loaded.__name__} lacks {', '.join(missing)} (see docs/extend.md)")
    return loaded


def _where(group: str, point: EntryPoint) -> str:
    return f"plugin {_package(point)}, {group.removesuffix('s')} {point.name!r} ({point.value})"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value.partition(":")[0]


def _foreign(group: str) -> dict[str, EntryPoint]:
    """Entry points of other packages by name."""
    own = OWN.get(group, {})
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"av_bench.{group}"):
        if point.name in own:
            log.warning("entry point %s of %s is ignored: the name belongs to av-bench", point.name, point.value)
        elif point.name in found:
            log.warning("two packages offer %s %r: %s is kept", group, point.name, found[point.name].value)
        else:
            found[point.name] = point
    return found
