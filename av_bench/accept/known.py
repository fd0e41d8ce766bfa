"""What others got from the same files: reports that were sent in, and those a user names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from av_bench.accept.report import Item, read_items
from av_bench.accept.sketch import deviation
from av_bench.contracts import UsageError

SENT_IN = Path(__file__).parent / "reports"
"""Reports of released files, one JSON each; none has been sent in so far."""
LIMITS = {"networks": 1e-3, "models": 5e-2}
"""Largest deviation, as a share of the root mean square. Sampling repeats a network's rounding 25 times."""


@dataclass(frozen=True)
class Known:
    """One output that is known: of which files, on which device, and who says so."""

    what: str
    files: Mapping[str, str]
    given: Mapping[str, Any]
    device: str
    source: str


def load_known(more: Sequence[Path] = ()) -> list[Known]:
    """Outputs of the package's reports and of further ``accept.json`` files. UsageError for one that is none."""
    shipped = sorted(SENT_IN.glob("*.json")) if SENT_IN.is_dir() else []
    found: list[Known] = []
    for path in (*shipped, *more):
        items, device = read_items(path)
        source = path.name if path in shipped else str(path)
        found += [Known(i.what, i.files, i.given, device, source) for i in items if i.status == "ok"]
    return found


@dataclass(frozen=True)
class Comparison:
    """What outputs are compared with. ``others``: entries of the lock file that are not the released files.

    Samples are compared on the same kind of device only: on a GPU the conditions are computed in bf16.
    """

    known: Sequence[Known]
    device: str
    others: Collection[str] = ()

    def of(self, items: Iterable[Item], kind: str) -> Iterator[Item]:
        """Each item with what came out; one that differs from what is known has failed. ``kind``: see ``LIMITS``."""
        for item in items:
            yield self._compared(item, kind) if item.status == "ok" else item

    def _compared(self, item: Item, kind: str) -> Item:
        same = [one for one in self.known if one.what == item.what and dict(one.files) == dict(item.files)]
        fitting = [one for one in same if self._alike(item, one, kind)]
        if not fitting:
            return replace(item, compared=self._unknown(item, " from such a trial" if same else ""))
        agreed: list[str] = []
        failed: list[str] = []
        for one in fitting:
            worst, name = max((self._deviation(item, one, key), key) for key in {**item.given, **one.given})
            message = f"{one.source} ({_kind(one.device)}): {name} deviates by {worst:.1e} of its size"
            (agreed if worst <= LIMITS[kind] else failed).append(message)
        if failed:
            detail = f"other outputs than known for these files: {'; '.join(failed)} (limit {LIMITS[kind]:g})"
            return replace(item, status="failed", detail=detail, compared="; ".join(failed))
        return replace(item, compared=f"agrees with {'; '.join(agreed)}")

    def _alike(self, item: Item, one: Known, kind: str) -> bool:
        """Whether both come from as many clips, or are samples of one length, number of steps and kind of device."""
        if kind == "models":
            return _kind(one.device) == _kind(self.device) and set(one.given) == set(item.given)
        counts = [{_output(known, key)["shape"][0] for key in known.given} for known in (one, item)]
        return counts[0] == counts[1]

    @staticmethod
    def _deviation(item: Item, one: Known, key: str) -> float:
        both = key in item.given and key in one.given
        return deviation(_output(item, key), _output(one, key)) if both else float("inf")

    def _unknown(self, item: Item, where: str) -> str:
        """What to do with outputs without any report so far."""
        if set(item.files) & set(self.others):
            return "not the released files: no digest can be known, except from --against"
        return f"no digest is known for these files{where} yet: yours is the first, send this report in"


def _output(known: Known | Item, key: str) -> dict[str, Any]:
    """One summarised output. UsageError when it is none."""
    value = known.given[key]
    if isinstance(value, dict) and {"shape", "mean", "sd", "sketch"} <= set(value) and value["shape"]:
        return value
    source = known.source if isinstance(known, Known) else "this report"
    raise UsageError(f"{source}: {known.what}: {key} is not a summary of an output (shape, mean, sd, sketch)")


def _kind(device: str) -> str:
    return device.partition(":")[0]
