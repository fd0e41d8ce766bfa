"""One strict reader for all YAML and JSON of this package and of its users, and for the options of metrics.

A document (``documents``) is read into a dataclass (``values``): unknown keys are refused with the nearest known one,
types are checked, nothing is converted but whole numbers to floats, and ranges stated with
``Annotated[float, Range(...)]`` (``kinds``) hold. Records that other versions write are TypedDicts: known keys are
checked, further ones are left as they are.
"""

from av_bench.schema.documents import (
    DEEPEST,
    LARGEST,
    load_json,
    load_yaml,
    merge,
    parse_json,
    parse_yaml,
    read_text,
)
from av_bench.schema.kinds import (
    SET_BY_LOADER,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    NumberAsText,
    Pattern,
    PositiveFloat,
    PositiveInt,
    Range,
    Sha256,
)
from av_bench.schema.values import build, build_arguments, read_json, read_yaml

__all__ = [
    "DEEPEST",
    "LARGEST",
    "SET_BY_LOADER",
    "FiniteFloat",
    "NonNegativeFloat",
    "NonNegativeInt",
    "NumberAsText",
    "Pattern",
    "PositiveFloat",
    "PositiveInt",
    "Range",
    "Sha256",
    "build",
    "build_arguments",
    "load_json",
    "load_yaml",
    "merge",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_text",
    "read_yaml",
]
