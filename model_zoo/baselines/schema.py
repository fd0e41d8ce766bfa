"""What a manifest says about a generator, and the checks that keep it honest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from av_bench.contracts import UsageError, unknown_name
from av_bench.schema import SET_BY_LOADER, build
from model_zoo.baselines.steps import Steps, open_places, problems
from model_zoo.external.checks import Native
from model_zoo.external.contract import Task

METRIC_NETWORKS = ("passt", "panns", "vggish", "imagebind", "laion-clap", "ms-clap", "synchformer")
"""Networks behind metrics, as `av-bench weights list` calls them: a model that uses one is not judged by it alone."""

Use = Literal["required", "optional", "unused"]
Mode = Literal["inprocess", "subprocess", "container", "import"]


@dataclass(frozen=True)
class Conditions:
    """What the model is given, and what else it needs per clip (``extras``: keys of the extras file)."""

    video: Use
    text: Use
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Licence:
    """Terms of code, weights and published samples; ``territory`` when they do not hold everywhere."""

    code: str
    weights: str | None = None
    samples: str | None = None
    territory: str | None = None


@dataclass(frozen=True)
class Parameters:
    """Number of weights of all networks, and who says so."""

    count: int
    source: str


@dataclass(frozen=True)
class Weight:
    """One file (or repository) of weights. Unknown hashes are left out, never invented."""

    what: str
    url: str | None = None
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Environment:
    """The foreign environment: Python version, pinned packages, shell recipe."""

    python: str | None = None
    pins: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Driver:
    """How the model is started. ``status`` says what the driver was tried on, or that the user has to complete it."""

    status: Literal["none", "steps-to-fill", "untested", "tiny-random-weights", "real-weights"]
    command: tuple[str, ...] = ()
    rows: Literal["item", "list"] = "item"  # list: rows come when the whole list is done
    image: str | None = None
    target: str | None = None  # module:class of an in-process generator
    options: Mapping[str, Any] = field(default_factory=dict)  # handed to the driver as generation.extra
    steps: Steps | None = None  # the same, of drivers/stages.py
    needs: tuple[str, ...] = ("python",)  # of python, repo, weights, image; what the steps name is needed too
    load_s: float = 900.0
    item_s: float = 300.0
    warmup: int = 2
    note: str = ""


@dataclass(frozen=True)
class PublishedSamples:
    """Published samples: where they are and how their names are mapped to clips (see ``mapping.py``)."""

    source: str
    files: str
    pattern: str
    clip: str = "{id}"
    first_k: int = 0
    per_clip: int = 1


@dataclass(frozen=True)
class PaperRow:
    """The row of the MMAudio paper that reports this model (``protocols/paper/<table>.csv``)."""

    table: str
    row: str


@dataclass(frozen=True)
class TrainingSet:
    """A declared training set, named as `av-bench audit` names it where it is known there."""

    name: str
    source: str


@dataclass(frozen=True)
class Manifest:
    """One generator. ``unverified`` maps a key path to what is not certain about it."""

    name: str
    title: str
    task: Task
    modes: tuple[Mode, ...]
    conditions: Conditions
    native: Native
    licence: Licence
    citation: str
    driver: Driver
    repository: str | None = None
    revision: str | None = None
    channels: int | None = None
    self_normalised: bool | None = None
    deterministic: bool | None = None
    min_vram_gib: float | None = None
    parameters: Parameters | None = None
    environment: Environment | None = None
    weights: tuple[Weight, ...] = ()
    samples: PublishedSamples | None = None
    paper: tuple[PaperRow, ...] = ()
    training_sets: tuple[TrainingSet, ...] = ()
    notes: tuple[str, ...] = ()
    metric_networks_used: Mapping[str, str] = field(default_factory=dict)  # network behind a metric -> what for
    unverified: Mapping[str, str] = field(default_factory=dict)
    digest: str = field(default="", metadata=SET_BY_LOADER)  # sha256 of the file
    steps_digest: str = field(default="", metadata=SET_BY_LOADER)  # sha256 of the user's own steps file


def read_manifest(data: object, where: str) -> Manifest:
    """A parsed YAML document as a manifest. UsageError names file and key."""
    manifest = build(Manifest, data, where)
    for problem in _problems(manifest, data):
        raise UsageError(f"{where}: {problem}")
    return manifest


def _problems(manifest: Manifest, data: object) -> list[str]:
    """What the types alone do not catch."""
    found = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", manifest.name):
        found.append(f"name {manifest.name!r}: small letters, digits, '-' and '.' only")
    needs: dict[Mode, tuple[bool, str]] = {
        "subprocess": (bool(manifest.driver.command), "driver.command"),
        "container": (bool(manifest.driver.command), "driver.command"),
        "inprocess": (manifest.driver.target is not None, "driver.target"),
        "import": (manifest.samples is not None, "samples"),
    }
    found += [f"mode {mode} needs {needs[mode][1]}" for mode in manifest.modes if not needs[mode][0]]
    if not manifest.modes:
        found.append("modes is empty")
    if manifest.driver.command and manifest.driver.status == "none":
        found.append("driver.status is none, but there is a driver.command")
    found += [
        f"metric_networks_used: {unknown_name('network', name, list(METRIC_NETWORKS))}"
        for name in manifest.metric_networks_used
        if name not in METRIC_NETWORKS
    ]
    found += _steps_problems(manifest.driver, manifest.conditions.extras)
    wanted = {"v2a": ("video",), "tv2a": ("video", "text"), "t2a": ("text",)}[manifest.task]
    found += [f"task {manifest.task} but conditions.{c} is unused" for c in wanted if _use(manifest, c) == "unused"]
    for weight in manifest.weights:
        if weight.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", weight.sha256):
            found.append(f"weights: sha256 of {weight.what!r} is not 64 hex digits")
    found += [f"unverified: there is no key {path}" for path in manifest.unverified if not _has(data, path)]
    if manifest.samples is not None:
        found += _mapping_problems(manifest.samples)
    return found


def _steps_problems(driver: Driver, extras: tuple[str, ...]) -> list[str]:
    if driver.steps is None:
        return ["driver.status is steps-to-fill, but there are no driver.steps"] * (driver.status == "steps-to-fill")
    found = [f"driver.steps: {problem}" for problem in problems(driver.steps, extras)]
    if driver.options:
        found.append("driver.options and driver.steps exclude each other")
    places = open_places(driver.steps)
    if bool(places) != (driver.status == "steps-to-fill"):
        found.append(f"driver.status is {driver.status}, and {len(places)} places of driver.steps are open")
    return found


def _mapping_problems(samples: PublishedSamples) -> list[str]:
    try:
        groups = set(re.compile(samples.pattern).groupindex)
    except re.error as error:
        return [f"samples.pattern is not a regular expression: {error}"]
    wanted = set(re.findall(r"{(\w+)", samples.clip))
    return [f"samples.clip uses {{{name}}}, which samples.pattern does not capture" for name in sorted(wanted - groups)]


def _use(manifest: Manifest, condition: str) -> Use:
    return manifest.conditions.video if condition == "video" else manifest.conditions.text


def _has(data: object, path: str) -> bool:
    """Whether a dotted key path leads somewhere; numbers index lists."""
    for part in path.split("."):
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return False
    return True
