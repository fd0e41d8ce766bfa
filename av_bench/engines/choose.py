"""From what a command says about devices to the engine that does its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from av_bench.contracts import UsageError
from av_bench.engines.contract import Engine, Event, Local, Part
from av_bench.runtime.cores import usable_cores
from av_bench.runtime.devices import check_device, device_type, parse_devices

LARGEST = 16  # items of a part
SHARE = 4  # parts per device at least, so that none waits long for the last one


class PlaceOptions(TypedDict):
    """A place as the options of a run have it."""

    device: str
    devices: str | None
    engine: str | None
    address: str | None


@dataclass(frozen=True)
class Place:
    """Where work is done: this process, several processes of this machine, or a Ray cluster."""

    devices: tuple[str, ...] = ("cpu",)
    engine: str | None = None
    address: str | None = None

    @property
    def local(self) -> bool:
        """Whether this process does it."""
        return self.engine is None and len(self.devices) == 1

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` ..."""
        return device_type(self.devices[0])

    def options(self) -> PlaceOptions:
        """As options of a run; ``devices`` only where there are several."""
        several = ",".join(self.devices) if len(self.devices) > 1 else None
        return {"device": self.devices[0], "devices": several, "engine": self.engine, "address": self.address}

    def threads(self, workers: int | None = None) -> int:
        """Threads of one of the workers: its share of this machine's cores, one for a Ray actor with one CPU."""
        if self.engine is not None and self.kind == "cpu":
            return 1
        return workers or max(1, usable_cores() // len(self.devices))

    def check(self) -> None:
        """UsageError and MissingRequirement for what cannot work; devices of a cluster are not looked for here."""
        if self.engine not in (None, "ray"):
            raise UsageError(f"--engine is {self.engine!r}; ray is expected, or none for this machine")
        if self.address is not None and self.engine is None:
            raise UsageError("--address names a Ray cluster: give --engine ray")
        for device in self.devices if self.engine is None else ():
            check_device(device)


def place_of(device: str, devices: str | None, engine: str | None = None, address: str | None = None) -> Place:
    """From the options of a command."""
    return Place(parse_devices(devices) if devices is not None else (device,), engine, address)


def engine_for(place: Place, workers: int | None = None) -> Engine[Part, Event]:
    """The engine of a place. Operations of several workers on CPUs have one thread each."""
    if place.engine == "ray":
        from av_bench.engines.ray_actors import RayActors

        return RayActors(place.devices, place.address)
    if place.local:
        return Local(place.devices[0])
    from av_bench.engines.processes import Processes

    return Processes(place.devices, 1 if place.kind == "cpu" else place.threads(workers))


@dataclass(frozen=True)
class Items:
    """A part of any list: ids, or paths as text."""

    clips: tuple[str, ...]

    def halves(self) -> tuple[Items, ...]:
        """Both halves, nothing for a single one."""
        middle = (len(self.clips) + 1) // 2
        return () if len(self.clips) < 2 else (Items(self.clips[:middle]), Items(self.clips[middle:]))


def part_size(count: int, place: Place) -> int:
    """Items of one part: several parts for each worker, none large."""
    return max(1, min(LARGEST, -(-count // (SHARE * len(place.devices)))))


def in_parts(items: Sequence[str], place: Place) -> Iterator[Items]:
    """A list in parts."""
    size = part_size(len(items), place)
    for start in range(0, len(items), size):
        yield Items(tuple(items[start : start + size]))
