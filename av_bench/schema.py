"""One strict reader for all YAML and JSON of this package and of its users, and for the options of metrics.

A document is read into a dataclass: unknown keys are refused with the nearest known one, types are checked, nothing is
converted but whole numbers to floats, and ranges stated with ``Annotated[float, Range(...)]`` hold. Records that other
versions write are TypedDicts: known keys are checked, further ones are left as they are. Documents are
small, so they are bounded: at most 16 MB, 64 levels deep, no YAML aliases, no duplicate keys.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from av_bench.contracts import UsageError, unknown_name

LARGEST = 16 * 1024 * 1024  # bytes of a document
DEEPEST = 64  # levels of nesting
SET_BY_LOADER = {"set_by_loader": True}
"""``field(metadata=SET_BY_LOADER)``: a field that no document may give, such as the digest of the document."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class Range:
    """Bounds of a number in ``Annotated``: ``low`` and ``high`` may be reached, ``above`` and ``below`` may not."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number lies within the bounds; NaN and infinity never do."""
        inside = self.low <= value <= self.high and (self.above == -math.inf or value > self.above)
        return math.isfinite(value) and inside and (self.below == math.inf or value < self.below)

    def __str__(self) -> str:
        said = {"at least": self.low, "at most": self.high, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {value:g}" for word, value in said.items() if math.isfinite(value)) or "finite"


@dataclass(frozen=True)
class Pattern:
    """Form of a text in ``Annotated``: a regular expression for the whole text, and what that means in words."""

    expression: str
    words: str


@dataclass(frozen=True)
class NumberAsText:
    """In ``Annotated[str, NumberAsText()]``: a whole number is taken as its text, e.g. ``version: 2``."""


PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(low=0)]
FiniteFloat = Annotated[float, Range()]
PositiveInt = Annotated[int, Range(low=1)]
NonNegativeInt = Annotated[int, Range(low=0)]
Sha256 = Annotated[str, Pattern(r"[0-9a-f]{64}", "64 hex digits")]

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


# --------------------------------------------------------------------------- documents


def read_yaml(path: Path, kind: type[Record]) -> Record:
    """A YAML file as a dataclass. UsageError names file, key and what was expected."""
    record: Record = build(kind, load_yaml(path), str(path))
    return record


def read_json(path: Path, kind: type[Record]) -> Record:
    """A JSON file as a dataclass. UsageError names file, key and what was expected."""
    record: Record = build(kind, load_json(path), str(path))
    return record


def load_yaml(path: Path) -> Any:
    """The plain content of a YAML file."""
    return parse_yaml(read_text(path), str(path))


def load_json(path: Path, largest: int = LARGEST) -> Any:
    """The plain content of a JSON file of at most ``largest`` bytes."""
    return parse_json(read_text(path, largest), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The plain content of a YAML text. A date is a text; aliases and duplicate keys are refused."""
    import yaml

    try:
        content = yaml.load(text, _loader())
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {_one_line(error)}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where}: cannot be read as YAML: {_one_line(error)}") from error
    _check_depth(content, where)
    return content


def parse_json(text: str, where: str) -> Any:
    """The plain content of a JSON text. Duplicate keys and NaN are refused."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {_one_line(error)}") from error
    _check_depth(content, where)
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: groups are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Text of a regular UTF-8 file of at most ``largest`` bytes. UsageError says what it is otherwise."""
    try:
        if not path.is_file():
            raise UsageError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        size = path.stat().st_size
        if size > largest:
            raise UsageError(f"{path}: {size:,} bytes; a file of this kind has at most {largest:,}")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_depth(content: Any, where: str) -> None:
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise UsageError(f"{where}: nested more than {DEEPEST} levels deep")
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [item for values in inner for item in values]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(k for k in keys if keys.count(k) > 1)!r}")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


@cache
def _loader() -> Any:
    """PyYAML's safe loader without aliases, with dates as text, and with each key only once."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event: Any = self.get_event()  # type: ignore[no-untyped-call]
                raise yaml.constructor.ConstructorError(
                    None, None, f"alias *{event.anchor}: aliases are not read, write the value out", event.start_mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key, (key_node, _) in zip(keys, node.value, strict=True):
                if isinstance(key, list | dict) or keys.count(key) > 1:
                    problem = f"duplicate key {key!r}" if not isinstance(key, list | dict) else "a key is no text"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            return super().construct_mapping(node, deep)

    resolvers = {
        first: [(tag, expression) for tag, expression in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = resolvers
    return Loader


# --------------------------------------------------------------------------- values


def build(kind: Any, value: Any, where: str) -> Any:
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
        return Path(_scalar(str, value, where))
    return _scalar(kind, value, where)


def build_arguments(function: Callable[..., object], given: Mapping[str, Any], where: str, *, skip: int = 0) -> Any:
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


def _build_dataclass(kind: type[Record], value: Any, where: str) -> Record:
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


def _build_typed_dict(kind: Any, value: Any, where: str) -> dict[str, Any]:
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


def _present(hint: Any) -> Any:
    """The type of a key without ``NotRequired``."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.NotRequired else hint


def _annotated(kind: Any, rules: tuple[Any, ...], value: Any, where: str) -> Any:
    if any(isinstance(rule, NumberAsText) for rule in rules) and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    built = build(kind, value, where)
    for rule in rules:
        if isinstance(rule, Range) and built is not None and not rule.holds(built):
            raise UsageError(f"{where}: must be {rule}, got {_shown(value)}")
        if isinstance(rule, Pattern) and built is not None and not re.fullmatch(rule.expression, built):
            raise UsageError(f"{where}: expected {rule.words}, got {_shown(value)}")
    return built


def _union(options: tuple[Any, ...], value: Any, where: str) -> Any:
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


def _sequence(origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: expected a list, got {_shown(value)}")
    fixed = origin is tuple and arguments[-1] is not ...
    if fixed and len(value) != len(arguments):
        raise UsageError(f"{where}: expected {len(arguments)} values, got {len(value)}")
    kinds = arguments if fixed else arguments[:1] * len(value)
    items = [build(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return tuple(items) if origin in (tuple, Sequence) else origin(items)


def _mapping(arguments: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected keys and values, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{where}: the key {key!r} is no text; put it in quotes")
    return {key: build(arguments[1], item, f"{where}.{key}") for key, item in value.items()}


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
        return float(value)
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # YAML 1.1 reads 1e-4 as text, and a hash such as 62e49 must stay one
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UsageError(f"{where}: expected {_word(kind)}, got {_shown(value)}")


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        return _word(typing.get_args(kind)[0])
    if typing.is_typeddict(kind) or (isinstance(kind, type) and is_dataclass(kind)):
        return "keys and values"
    return _WORDS.get(kind, "a list" if typing.get_origin(kind) in (tuple, list, Sequence) else str(kind))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
