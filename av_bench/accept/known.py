"""What others got from the same files: reports that were sent in, and those a user names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from av_bench.accept.report import Item, read_items
from av_bench.accept.sketch import deviation
from av_bench.contracts import UsageError

SENT_IN = Path(__file__).parent / "known"
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
        fitting = [one for one in same if kind == "networks" or self._sampled_alike(item, one)]
        if not fitting:
            return replace(item, compared=self._unknown(item, " on such a device and with such steps" if same else ""))
        told: list[str] = []
        failed: list[str] = []
        for one in fitting:
            worst, name = max((_deviation(item.given, one.given, key), key) for key in _outputs(one))
            said = f"{one.source} ({_kind(one.device)}): {name} deviates by {worst:.1e} of its size"
            (told if worst <= LIMITS[kind] else failed).append(said)
        if failed:
            detail = f"other outputs than known for these files: {'; '.join(failed)} (limit {LIMITS[kind]:g})"
            return replace(item, status="failed", detail=detail, compared="; ".join(failed))
        return replace(item, compared=f"agrees with {'; '.join(told)}")

    def _sampled_alike(self, item: Item, one: Known) -> bool:
        return _kind(one.device) == _kind(self.device) and set(one.given) == set(item.given)

    def _unknown(self, item: Item, where: str) -> str:
        """What to do with outputs that nobody has reported yet."""
        if set(item.files) & set(self.others):
            return "not the released files: no digest can be known, except from --against"
        return f"no digest is known for these files{where} yet: yours is the first, send this report in"


def _outputs(known: Known) -> list[str]:
    """Names of its outputs. UsageError when one of them is not summarised, or there is none."""
    for key, value in known.given.items():
        if not (isinstance(value, dict) and {"shape", "mean", "sd", "sketch"} <= set(value)):
            raise UsageError(
                f"{known.source}: {known.what}: {key} is no summary of an output (shape, mean, sd, sketch)"
            )
    if not known.given:
        raise UsageError(f"{known.source}: {known.what} is ok and has no outputs")
    return list(known.given)


def _deviation(ours: Mapping[str, Any], known: Mapping[str, Any], key: str) -> float:
    return deviation(ours[key], known[key]) if key in ours else float("inf")


def _kind(device: str) -> str:
    return device.partition(":")[0]
