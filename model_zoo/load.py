"""From a model name to a generator: ``name`` or ``name:key=value,key=value``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av_bench import registry
from av_bench.contracts import SampleSource, UsageError, plugin_boundary, unknown_name
from model_zoo.baselines import baseline, is_baseline, manifest_names
from model_zoo.spec_values import Number


def parse(spec: str) -> tuple[str, dict[str, float | str]]:
    r"""``oracle:shift=0.4,noise=-20`` -> name and options; numbers become floats. A comma within a value is ``\,``."""
    name, _, rest = spec.partition(":")
    options: dict[str, float | str] = {}
    for escaped in filter(None, re.split(r"(?<!\\),", rest)):
        part = escaped.replace("\\,", ",")
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"model {spec!r}: {part!r} is not key=value, as in oracle:shift=0.4")
        try:
            options[key] = number = Number(value)
            number.text = value
        except ValueError:
            options[key] = value
    return name, options


def load_samples(spec: str, folder: Path) -> SampleSource:
    """The published samples of a baseline in a folder. UsageError when the name is not a baseline."""
    name, options = parse(spec)
    if not is_baseline(name):
        known = ", ".join(manifest_names())
        raise UsageError(f"--model {name} with --samples: only baselines have published samples: {known}")
    try:
        return baseline(name, folder, **dict[str, Any](options))
    except TypeError as error:
        raise UsageError(f"model {spec!r}: {error}") from error


def load(spec: str, **more: Any) -> SampleSource:
    """The sample source of a spec: a registered model or a baseline. UsageError for an unknown name or option."""
    name, options = parse(spec)
    if is_baseline(name):
        return baseline(name, None, **dict[str, Any](options), **more)
    own = registry.names("models")
    if name not in own:
        raise UsageError(unknown_name("models", name, sorted({*own, *manifest_names()})))
    cls = registry.load("models", name)
    _check_options(name, cls, {**options, **more})
    with plugin_boundary(f"model {name} ({registry.origin('models', name)})"):
        source: SampleSource = cls(**options, **more)
    return source


def _check_options(name: str, cls: type[SampleSource], options: Mapping[str, object]) -> None:
    """UsageError for an option that the model's ``__init__`` does not take."""
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return  # the model checks them itself
    for key in options:
        if key not in parameters:
            raise UsageError(f"model {name}: {unknown_name('option', key, parameters)}")
