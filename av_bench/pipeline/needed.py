"""What a protocol and a model need on this machine, and what of it is missing: weights and packages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Literal

import protocols
from av_bench import registry
from av_bench.contracts import UsageError, unknown_name
from av_bench.pipeline.measure import extractors_for
from av_bench.weights.lock import LockEntry, load_lock, readable_size

Kind = Literal["package", "weights", "list", "data", "disk", "model"]

_PACKAGES: dict[str, tuple[str, ...]] = {
    "passt": ("hear21passt",),
    "panns": ("panns_inference",),
    "vggish": ("torchvggish",),
    "imagebind-audio": ("imagebind",),
    "imagebind-video": ("imagebind",),
    "clap-audio": ("laion_clap",),
    "clap-text": ("laion_clap", "transformers"),
    "msclap-audio": ("msclap",),
    "msclap-text": ("msclap", "transformers"),
}
"""Packages of the extra ``paper`` that an extractor's network comes from."""
_CONDITIONS = "dfn5b-clip"  # models that need this file read it with open_clip
_GET_PACKAGES = 'pip install -c constraints/paper.txt "av-bench[paper]"'


@dataclass(frozen=True)
class Missing:
    """One thing that is missing: what it is, how large and under which licence, and the command that gets it."""

    kind: Kind
    name: str
    detail: str
    command: str = ""
    size: int = 0  # bytes, 0 where unknown

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: {self.detail}"


def lacking_for(protocol: protocols.Protocol, wanted: Sequence[str] | None = None) -> list[Missing]:
    """Packages and weights that the metrics of a protocol need and this installation lacks."""
    names = extractors_for(protocol, wanted)
    packages = dict.fromkeys(package for name in names for package in _PACKAGES.get(name, ()))
    found = [missing_package(package, _users(package, names)) for package in packages if not _installed(package)]
    return [*found, *lacking_weights(names)]


def lacking_for_model(name: str) -> list[Missing]:
    """Packages and weights that a published model needs and this installation lacks."""
    packages = ["open_clip"] if name in load_lock()[_CONDITIONS].needed_by else []
    found = [missing_package(package, name) for package in packages if not _installed(package)]
    return [*found, *lacking_weights([name])]


def lacking_weights(names: Iterable[str]) -> list[Missing]:
    """Weight files that extractors or models of these names need and that are not here."""
    return [missing_file(entry) for entry in entries_for(names) if not entry.path.is_file()]


def entries_for(names: Iterable[str]) -> list[LockEntry]:
    """Entries of the lock file that extractors or models of these names need."""
    wanted = set(names)
    return [entry for entry in load_lock().values() if wanted & {entry.name, *entry.needed_by}]


def needed_by(name: str) -> list[LockEntry]:
    """Entries that a protocol, a set's protocol, or a model needs. UsageError when the name is none of these."""
    if name in protocols.protocol_names():
        return entries_for(extractors_for(protocols.load_protocol(name)))
    if name in protocols.set_names():
        return needed_by(protocols.load_set(name).protocol)
    found = entries_for([name])
    if not found:
        known = [*protocols.protocol_names(), *protocols.set_names(), *registry.names("models")]
        raise UsageError(f"--for {name}: {unknown_name('protocol, set or model', name, sorted(known))}")
    return found


def missing_file(entry: LockEntry) -> Missing:
    """A weight file that is not here, with size and licence."""
    size = entry.bytes or entry.about or 0
    terms = f"{entry.licence}{' (non-commercial)' if entry.non_commercial else ''}"
    shown = f"{'about ' if not entry.bytes else ''}{readable_size(size)}" if size else "size unknown"
    return Missing("weights", entry.name, f"{shown}, licence {terms}", f"av-bench weights pull {entry.name}", size)


def missing_package(package: str, users: str) -> Missing:
    """A package that is not installed, with who needs it and the command for all of the extra."""
    return Missing("package", package, f"not installed, needed by {users}", _GET_PACKAGES)


def _installed(package: str) -> bool:
    return util.find_spec(package) is not None


def _users(package: str, names: Sequence[str]) -> str:
    return ", ".join(name for name in names if package in _PACKAGES.get(name, ()))
