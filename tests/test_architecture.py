"""Imports point one way, none run in a cycle, and importing the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.conftest import ROOT

PRODUCT = ("av_bench", "model_zoo", "protocols", "reports")

# Layers from the bottom up. A package imports packages of lower layers only, never of its own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("av_bench.contracts",),
    ("av_bench.registry",),
    ("av_bench.schema",),
    ("av_bench.rows",),
    ("av_bench.runtime",),
    ("av_bench.engines",),
    ("av_bench.media", "av_bench.networks", "av_bench.metrics"),
    ("av_bench.weights", "av_bench.results"),
    ("av_bench.extractors", "av_bench.features"),
    ("av_bench.evaluate", "av_bench.extract", "protocols"),
    ("av_bench.audit",),
    ("model_zoo",),
    ("av_bench.pipeline",),
    ("av_bench.training", "av_bench.selfcheck", "av_bench.doctor", "av_bench.accept"),
    ("reports",),
    ("av_bench",),  # av_bench/__init__.py: run, table, gate
    ("av_bench.cli",),
    ("av_bench.__main__",),
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}

# The packages of model_zoo.mmaudio, likewise; "model_zoo.mmaudio" is its __init__.py.
MMAUDIO = "model_zoo.mmaudio"
MMAUDIO_LAYERS = (
    ("config", "interfaces"),
    ("codec", "conditions", "flow"),
    ("features", ""),
    ("training", "sampling"),
    ("vae_training",),
    ("nano",),
)
MMAUDIO_LAYER = {f"{MMAUDIO}.{name}".rstrip("."): n for n, names in enumerate(MMAUDIO_LAYERS) for name in names}

# What a package may import, where the layers would allow more.
ONLY: dict[str, set[str]] = {
    "av_bench.media": {"av_bench.contracts", "av_bench.runtime"},
    "av_bench.networks": {"av_bench.contracts"},
    "av_bench.metrics": {"av_bench.contracts", "av_bench.registry", "av_bench.schema"},
    "protocols": {
        "av_bench.contracts",
        "av_bench.registry",
        "av_bench.schema",
        "av_bench.rows",
        "av_bench.runtime",
        "av_bench.media",
    },
    "reports": {
        "av_bench.contracts",
        "av_bench.registry",
        "av_bench.schema",
        "av_bench.results",
        "av_bench.runtime",
        "protocols",
    },
}


@cache
def modules() -> dict[str, str]:
    """Every module of the product and its source; a package is its ``__init__``."""
    paths = [path for top in PRODUCT for path in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: path.read_text(encoding="utf8") for name, path in zip(names, paths, strict=True)}


@cache
def imports(source: str) -> frozenset[str]:
    """Modules of ours that a source imports, anywhere in it and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return frozenset(name for name in found if name.partition(".")[0] in PRODUCT)


def package(module: str) -> str:
    """The package of a module: a top package, or what lies directly in ``av_bench``."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "av_bench" else parts[0]


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    return {name: set(imports(source)) - {name} for name, source in sources.items()}


def wrong_ways(sources: Mapping[str, str]) -> list[str]:
    """Imports that do not point downwards, or that a package must do without."""
    wrong = []
    for module, targets in graph(sources).items():
        here = package(module)
        for target in sorted(targets):
            there = package(target)
            if here != there and (LAYER[there] >= LAYER[here] or there not in ONLY.get(here, {there})):
                wrong.append(f"{module} -> {target}")
    return wrong


def cycle(sources: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a cycle, [] when there is none."""
    try:
        TopologicalSorter(graph(sources)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_file_belongs_to_a_layer() -> None:
    assert {package(module) for module in modules()} <= set(LAYER)


def test_imports_point_downwards() -> None:
    assert wrong_ways(modules()) == []


def test_mmaudio_imports_point_downwards() -> None:
    wrong = []
    for module, targets in graph(modules()).items():
        here = ".".join(module.split(".")[:3])
        for target in targets if here in MMAUDIO_LAYER else ():
            there = ".".join(target.split(".")[:3])
            if there in MMAUDIO_LAYER and there != here and MMAUDIO_LAYER[there] >= MMAUDIO_LAYER[here]:
                wrong.append(f"{module} -> {target}")
    assert wrong == []
    inside = {".".join(module.split(".")[:3]) for module in modules() if module.startswith(MMAUDIO)}
    assert inside == set(MMAUDIO_LAYER)


def test_no_import_cycle() -> None:
    assert cycle(modules()) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("av_bench.results.record", "av_bench.cli.app"),
        ("av_bench.results.gate", "av_bench.cli"),
        ("av_bench.pipeline.score", "av_bench.cli.app"),
        ("av_bench.metrics.columns", "reports.model"),
        ("av_bench.metrics.columns", "av_bench.media.decode"),
        ("reports.build", "av_bench.pipeline.run"),
        ("reports.terminal", "av_bench.features.store"),
        ("protocols.definitions", "av_bench.audit.sources"),
        ("model_zoo.load", "av_bench.pipeline.plan"),
        ("av_bench.evaluate", "av_bench.pipeline.score"),
        ("av_bench.cli.app", "av_bench.__main__"),
    ],
)
def test_an_import_upwards_is_noticed(module: str, target: str) -> None:
    for source in (
        f"import {target}",
        f"from {target} import anything",
        "from {} import {}".format(*target.rsplit(".", 1)),
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {target} import anything",
        f"def later():\n    from {target} import anything",
    ):
        changed = {**modules(), module: f"{modules()[module]}\n{source}\n"}
        assert wrong_ways(changed) == [f"{module} -> {target}"], source


def test_a_cycle_is_noticed() -> None:
    low, high = "model_zoo.mmaudio.config", "model_zoo.mmaudio.training.loop"
    changed = {**modules(), low: f"{modules()[low]}\ndef later():\n    import {high}\n"}
    assert {low, high} <= set(cycle(changed))


def test_import_stays_light() -> None:
    code = (
        "import sys, av_bench, av_bench.cli, av_bench.cli.app;"
        "print([m for m in ('torch', 'librosa', 'pandas', 'scipy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


# Where the product may ask an object what it has, and why. Generators, extractors and metrics are never asked: their
# base classes declare every member.
PROBES = {
    ("av_bench/audit/overlaps.py", "row"): "a row of a frame has columns by the list's format",
    ("av_bench/audit/content.py", "codes"): "arrays by name",
    ("av_bench/audit/fingerprints.py", "self"): "arrays by name",
    ("av_bench/doctor.py", "module"): "a package may state no version",
    ("av_bench/media/mux.py", "frame"): "PyAV has had rotation since 14 only",
    ("av_bench/runtime/cores.py", "os"): "systems differ",
    ("model_zoo/baselines/drivers/tango.py", "model.model"): "another project's object",
    ("model_zoo/external/driver.py", "audio"): "whatever the user's model returns",
    ("model_zoo/scorers/corpus.py", "os"): "systems differ",
}


def test_no_object_is_asked_what_it_has() -> None:
    asked: dict[tuple[str, str], str] = {}
    for name, source in modules().items():
        path = name.replace(".", "/") + ".py"
        for node in ast.walk(ast.parse(source)):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(node, ast.Call) and isinstance(called, ast.Name) and called.id in ("getattr", "hasattr"):
                asked[path, ast.unparse(node.args[0])] = ast.unparse(node)
    assert set(asked) <= set(PROBES), {key: call for key, call in asked.items() if key not in PROBES}
