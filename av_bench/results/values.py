"""Values per clip of a run, own or pseudo, and whether its scores are really their means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from av_bench.contracts import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from av_bench.results.shapes import Scores

CLIPS = "clips.parquet"
PSEUDO = "pseudo_values.parquet"
ROUNDING = 1e-6  # relative; sums in another order differ by less
_COLUMNS = ("id", "group", "metric", "value")
_FIX = "start the run again"


@dataclass(frozen=True)
class ClipValues:
    """Values of one metric by clip id, and the unit (recording, or split) that each clip belongs to."""

    value: dict[str, float]
    unit: dict[str, str]


def check_values(path: Path, scores: Scores) -> None:
    """UsageError when values per clip of a run cannot be read, or when ``scores.json`` does not follow from them.

    Every metric that has values per clip, own or pseudo, must be their mean, over as many clips as it says.
    """
    for name in (CLIPS, PSEUDO):
        for metric, series in read_values(path / name, required=name == CLIPS).items():
            entry = scores["metrics"].get(metric)
            if entry is None:
                raise UsageError(f"{path}: {name} has values of {metric}, scores.json has not; {_FIX}")
            count = len(series.value)
            mean = math.fsum(series.value.values()) / count
            if count != entry["n"] or abs(mean - entry["value"]) > ROUNDING * max(1.0, abs(mean)):
                raise UsageError(
                    f"{path}: scores.json says {metric} {entry['value']:.6g} over {entry['n']} clips, but the values "
                    f"in {name} have the mean {mean:.6g} over {count}: one of them was changed; {_FIX}"
                )
    for metric, entry in scores["metrics"].items():
        interval = entry.get("interval")
        if interval is not None and len(interval) != 2:
            raise UsageError(f"{path}/scores.json: the interval of {metric} has not two bounds; {_FIX}")


def read_values(path: Path, *, required: bool = True) -> dict[str, ClipValues]:
    """``clips.parquet`` or ``pseudo_values.parquet`` by metric; a file that need not be there may be absent.

    UsageError for a damaged file, a value that is not a number, or a duplicate clip.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        if not required:
            return {}
        raise UsageError(f"{path} is missing: the run has no per-clip values; start it again with `av-bench run`")
    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
        kinds = [table.schema.field(name).type for name in _COLUMNS]
        columns = [table[name].to_pylist() for name in _COLUMNS]
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); {_FIX}") from error
    if not all(map(_is_text, kinds[:3])) or not pa.types.is_floating(kinds[3]):
        raise UsageError(f"{path}: the columns {', '.join(_COLUMNS)} are expected, as texts and a number; {_FIX}")
    found: dict[str, ClipValues] = {}
    for clip, group, metric, value in zip(*columns, strict=True):
        if value is None or not math.isfinite(value):
            raise UsageError(f"{path}: {metric} of clip {clip} is {value}, not a number; {_FIX}")
        if clip is None or group is None or metric is None:
            raise UsageError(f"{path}: a row without id, group or metric; {_FIX}")
        series = found.setdefault(metric, ClipValues({}, {}))
        if clip in series.value:
            raise UsageError(f"{path}: {metric} of clip {clip} appears twice; {_FIX}")
        series.value[clip], series.unit[clip] = float(value), group
    return found


def _is_text(kind: pa.DataType) -> bool:
    """Whether an arrow type is text; pandas writes large and dictionary-encoded ones."""
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))
