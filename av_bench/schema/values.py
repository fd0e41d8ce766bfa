"""Plain content as typed values: dataclasses, TypedDicts, numbers within bounds, texts of a form."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from av_bench.contracts import UsageError, unknown_name
from av_bench.schema.documents import load_json, load_yaml
from av_bench.schema.kinds import NumberAsText, Pattern, Range

T = TypeVar("T")

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_WORDS: dict[object, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_yaml(path: Path, kind: type[T]) -> T:
    """A YAML file as a dataclass. UsageError names file, key and what was expected."""
    return build(kind, load_yaml(path), str(path))


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file as a dataclass. UsageError names file, key and what was expected."""
    return build(kind, load_json(path), str(path))


@overload
def build(kind: type[T], value: object, where: str) -> T: ...
@overload
def build(kind: object, value: object, where: str) -> object: ...
def build(kind: object, value: object, where: str) -> object:
    """Plain content as ``kind``: dataclass, mapping, tuple, Literal, optional, number, text, Path or Any.

    UsageError says where and what was expected.
    """
    if kind is Any or kind is object:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if typing.is_typeddict(kind):
        return _build_typed_dict(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        return _union(arguments, value, where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            allowed = ", ".join(map(str, arguments))
            raise UsageError(f"{where}: expected one of {allowed}, got {_shown(value)}")
        return value
    if origin in (tuple, list, Sequence, frozenset):
        return _sequence(origin, arguments, value, where)
    if origin in (dict, Mapping):
        return _mapping(arguments, value, where)
    if kind is Path:
        return Path(build(str, value, where))
    if not isinstance(kind, type):
        raise TypeError(f"{where}: values of type {kind} cannot be read")
    return _scalar(kind, value, where)


def build_arguments(
    function: Callable[..., object], given: Mapping[str, object], where: str, *, skip: int = 0
) -> dict[str, Any]:
    """Keyword arguments for ``function``, checked against its type hints; ``skip`` leading parameters are not given."""
    signature = list(inspect.signature(function).parameters.values())[skip:]
    hints = typing.get_type_hints(function, include_extras=True)
    known = {p.name: p for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: {unknown_name('option', str(key), known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise UsageError(f"{where}: the option {name} is missing")
    return {key: build(hints.get(key, Any), value, f"{where}: {key}") for key, value in given.items()}


def _build_dataclass(kind: type[T], value: object, where: str) -> T:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected keys and values, got {_shown(value)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    known: dict[str, Field[Any]] = {
        f.name: f
        for f in fields(kind)  # type: ignore[arg-type]
        if f.init and not f.metadata.get("set_by_loader")
    }
    for key in value:
        if key not in known:
            raise UsageError(f"{where}: {unknown_name('key', str(key), known)}")
    for name, entry in known.items():
        if name not in value and entry.default is MISSING and entry.default_factory is MISSING:
            raise UsageError(f"{where}: the key {name!r} is missing")
    return kind(**{key: build(hints[key], item, f"{where}: {key}") for key, item in value.items()})


def _build_typed_dict(kind: object, value: object, where: str) -> dict[str, object]:
    """The known keys are checked, others stay as they are: what newer versions add does not make a record foreign."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected keys and values, got {_shown(value)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():  # __required_keys__ does not see NotRequired in annotations that are text
        if name not in value and typing.get_origin(hint) is not typing.NotRequired:
            raise UsageError(f"{where}: the key {name!r} is missing")
    checked = {
        name: build(_present(hint), value[name], f"{where}: {name}") for name, hint in hints.items() if name in value
    }
    return {**value, **checked}


def _present(hint: object) -> object:
    """The type of a key without ``NotRequired``."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.NotRequired else hint


def _annotated(kind: object, rules: tuple[object, ...], value: object, where: str) -> object:
    if any(isinstance(rule, NumberAsText) for rule in rules) and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    built = build(kind, value, where)
    for rule in rules:
        if isinstance(rule, Range) and isinstance(built, int | float) and not rule.holds(built):
            raise UsageError(f"{where}: must be {rule}, got {_shown(value)}")
        if isinstance(rule, Pattern) and isinstance(built, str) and not re.fullmatch(rule.expression, built):
            raise UsageError(f"{where}: expected {rule.words}, got {_shown(value)}")
    return built


def _union(options: tuple[object, ...], value: object, where: str) -> object:
    rest = [option for option in options if option is not types.NoneType]
    if value is None and len(rest) < len(options):
        return None
    errors = []
    for option in rest:
        try:
            return build(option, value, where)
        except UsageError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise UsageError(f"{where}: expected {' or '.join(map(_word, rest))}, got {_shown(value)}")


def _sequence(origin: object, arguments: tuple[object, ...], value: object, where: str) -> object:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: expected a list, got {_shown(value)}")
    fixed = origin is tuple and arguments[-1] is not ...
    if fixed and len(value) != len(arguments):
        raise UsageError(f"{where}: expected {len(arguments)} values, got {len(value)}")
    kinds = arguments if fixed else arguments[:1] * len(value)
    items = [build(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    if origin is list:
        return items
    return frozenset(items) if origin is frozenset else tuple(items)


def _mapping(arguments: tuple[object, ...], value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected keys and values, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{where}: the key {key!r} is not text; put it in quotes")
    return {key: build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}


def _scalar(kind: type, value: object, where: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
        return float(value)
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # YAML 1.1 reads 1e-4 as text, and a hash such as 62e49 must stay one
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UsageError(f"{where}: expected {_word(kind)}, got {_shown(value)}")


def _word(kind: object) -> str:
    if typing.get_origin(kind) is Annotated:
        return _word(typing.get_args(kind)[0])
    if typing.is_typeddict(kind) or (isinstance(kind, type) and is_dataclass(kind)):
        return "keys and values"
    return _WORDS.get(kind, "a list" if typing.get_origin(kind) in (tuple, list, Sequence) else str(kind))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
