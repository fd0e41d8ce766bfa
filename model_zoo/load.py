"""From a model name to a generator: ``name`` or ``name:key=value,key=value``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from av_bench import registry
from av_bench.contracts import UsageError
from model_zoo.baselines import baseline, is_baseline, manifest_names


class Number(float):
    """A number of a spec that knows how it was written: ``negative=007`` is a text."""

    text: str


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


def load_samples(spec: str, folder: Path) -> Any:
    """The published samples of a baseline in a folder. UsageError when the name is no baseline."""
    name, options = parse(spec)
    if not is_baseline(name):
        known = ", ".join(manifest_names())
        raise UsageError(f"--model {name} with --samples: only baselines have published samples: {known}")
    try:
        return baseline(name, folder, **options)
    except TypeError as error:
        raise UsageError(f"model {spec!r}: {error}") from error


def load(spec: str, **more: Any) -> Any:
    """The generator of a spec: a registered model or a baseline. UsageError for an unknown name or option."""
    name, options = parse(spec)
    if is_baseline(name):
        return baseline(name, None, **dict[str, Any](options), **more)
    own = registry.names("models")
    if name not in own:
        raise UsageError(registry.miss("models", name, sorted({*own, *manifest_names()})))
    factory = registry.load("models", name)
    try:
        return factory(**options, **more)
    except TypeError as error:
        raise UsageError(f"model {spec!r}: {error}") from error
