"""Find manifests, read what is known about this machine, and build generators."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from av_bench.contracts import MissingRequirement, SampleSource, UsageError, unknown_name
from av_bench.schema import load_yaml
from model_zoo.baselines.inprocess import InProcessBaseline
from model_zoo.baselines.schema import Manifest, read_manifest
from model_zoo.baselines.site import missing, read_site, unfilled, with_steps

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"


@cache
def manifest_names() -> tuple[str, ...]:
    """Names of the manifests of this package, sorted."""
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def is_baseline(name: str) -> bool:
    """Whether a model name means a manifest: one of ours, or a YAML file of the user's."""
    return name.endswith((".yaml", ".yml")) or name in manifest_names()


def load_manifest(name: str) -> Manifest:
    """A manifest by name or file. UsageError names the nearest name, or file and key."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    elif name in manifest_names():
        path = HERE / f"{name}.yaml"
    else:
        raise UsageError(unknown_name("baseline", name, list(manifest_names())))
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    manifest = read_manifest(load_yaml(path), path.name if path.parent == HERE else str(path))
    if path.parent == HERE and manifest.name != path.stem:
        raise UsageError(f"{path.name}: the name inside is {manifest.name!r}, it must be the file's")
    return replace(manifest, digest=hashlib.sha256(payload).hexdigest(), steps_digest="")


def obstacles(manifest: Manifest) -> list[str]:
    """Why a baseline cannot be run here, empty when it can. (Importing needs only the samples.)"""
    run_modes = [mode for mode in manifest.modes if mode != "import"]
    if not run_modes:
        return ["there is nothing to run, only samples to import"]
    if run_modes == ["inprocess"]:
        return _inprocess_obstacles(manifest)
    site = read_site(manifest.name)
    try:
        manifest = with_steps(manifest, site)
    except UsageError as error:
        return [str(error)]
    found = missing(manifest, site) + unfilled(manifest, site)
    if manifest.min_vram_gib is not None and not _has_cuda():
        found.append(f"no CUDA device ({manifest.min_vram_gib:g} GiB of GPU memory are needed)")
    return found


def _inprocess_obstacles(manifest: Manifest) -> list[str]:
    target = _target(manifest)
    found: list[str] = target.obstacles(read_site(manifest.name))
    return found


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _target(manifest: Manifest) -> type[InProcessBaseline]:
    module, _, attribute = str(manifest.driver.target).partition(":")
    found: type[InProcessBaseline] = vars(import_module(module))[attribute]
    return found


def baseline_options(manifest: Manifest) -> Mapping[str, str]:
    """Options of a baseline's spec -> what they do."""
    if "inprocess" in manifest.modes:
        return _target(manifest).options
    from model_zoo.external.generator import WITH_STEPS, ExternalProgram

    found = ExternalProgram.options if manifest.modes != ("import",) else {}
    return found if manifest.driver.steps is None else {key: found[key] for key in WITH_STEPS}


def baseline(name: str, samples: Path | None = None, **options: Any) -> SampleSource:
    """The sample source of a baseline: its published samples when a folder is given, else the model itself.

    Options: ``mapping`` (with samples: a TSV or YAML file of rules); ``steps``, ``guidance``, ``negative_prompt``,
    ``variant``, ``dtype``, ``timeout`` (seconds for the whole list), ``extras`` (a JSONL file of id and more inputs).
    """
    manifest = load_manifest(name)
    if samples is not None:
        from model_zoo.baselines.mapping import MappedSamples

        return MappedSamples(manifest, samples, **options)
    found = obstacles(manifest)
    if found:
        help_ = f"`av-bench baselines setup {manifest.name} --print` shows how to get it"
        if manifest.samples is not None:
            help_ += f"; or import its samples: --samples DIR ({manifest.samples.source})"
        raise MissingRequirement(f"baseline {manifest.name} cannot be run here: {'; '.join(found)}. {help_}")
    site = read_site(manifest.name)
    if "inprocess" in manifest.modes:
        return _target(manifest)(manifest, site, **options)
    from model_zoo.external.generator import ExternalProgram

    return ExternalProgram(with_steps(manifest, site), site, **options)
