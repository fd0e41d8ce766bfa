"""From a model name to a generator: ``name`` or ``name:key=value,key=value``."""

from __future__ import annotations

from typing import Any

from av_bench import registry
from av_bench.contracts import UsageError


def parse(spec: str) -> tuple[str, dict[str, float | str]]:
    """``oracle:shift=0.4,noise=-20`` -> name and options; numbers become floats."""
    name, _, rest = spec.partition(":")
    options: dict[str, float | str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"model {spec!r}: {part!r} is not key=value, as in oracle:shift=0.4")
        try:
            options[key] = float(value)
        except ValueError:
            options[key] = value
    return name, options


def load(spec: str, **more: Any) -> Any:
    """The generator of a spec. UsageError for an unknown name or option."""
    name, options = parse(spec)
    factory = registry.load("models", name)
    try:
        return factory(**options, **more)
    except TypeError as error:
        raise UsageError(f"model {spec!r}: {error}") from error
