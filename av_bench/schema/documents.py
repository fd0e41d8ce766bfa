"""The plain content of YAML and JSON texts and files, not checked against any type.

Documents are small, so they are bounded: at most 16 MB, 64 levels deep, no YAML aliases, no duplicate keys.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench.contracts import UsageError

if TYPE_CHECKING:
    import yaml

LARGEST = 16 * 1024 * 1024  # bytes of a document
DEEPEST = 64  # levels of nesting


def load_yaml(path: Path) -> object:
    """The plain content of a YAML file."""
    return parse_yaml(read_text(path), str(path))


def load_json(path: Path, largest: int = LARGEST) -> object:
    """The plain content of a JSON file of at most ``largest`` bytes."""
    return parse_json(read_text(path, largest), str(path))


def parse_yaml(text: str, where: str) -> object:
    """The plain content of a YAML text. A date is a text; aliases and duplicate keys are refused."""
    import yaml

    try:
        content: object = yaml.load(text, _loader())
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {_one_line(error)}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where}: cannot be read as YAML: {_one_line(error)}") from error
    _check_depth(content, where)
    return content


def parse_json(text: str, where: str) -> object:
    """The plain content of a JSON text. Duplicate keys and NaN are refused."""
    try:
        content: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {_one_line(error)}") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(content, where)
    return content


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
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


def _check_depth(content: object, where: str) -> None:
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise UsageError(f"{where}: nested more than {DEEPEST} levels deep")
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [item for values in inner for item in values]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(k for k in keys if keys.count(k) > 1)!r}")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


@cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader without aliases, with dates as text, and with each key only once."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                event = self.get_event()  # type: ignore[no-untyped-call]
                raise yaml.constructor.ConstructorError(
                    None, None, f"alias *{event.anchor}: aliases are not read, write the value out", event.start_mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key, (key_node, _) in zip(keys, node.value, strict=True):
                if isinstance(key, list | dict) or keys.count(key) > 1:
                    problem = f"duplicate key {key!r}" if not isinstance(key, list | dict) else "a key is not text"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            return super().construct_mapping(node, deep)

    resolvers = {
        first: [(tag, expression) for tag, expression in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = resolvers
    return Loader
