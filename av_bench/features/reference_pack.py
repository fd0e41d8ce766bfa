"""Reference packs: the reference of a set as files with provenance, so that a set can be scored without its audio.

A pack is a folder:

``reference.json``          source, set, list hash, window, clips, and per extractor output what it came from
``statistics.safetensors``  per extractor output n, mean, scatter (float64): all that FD needs
``features.safetensors``    optional: per-clip features, also of video and text; then KL, IB-score, DeSync work too

Packs are made from a set's own media (`av-bench stats make`) or imported from the published feature caches of
av-benchmark (`av-bench stats import`), whose ``*.pth`` files are loaded without running anything in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_bench.contracts import Clip, ClipSet, MediaError, Need, Reason, UsageError
from av_bench.features.extractor_set import ExtractorSet
from av_bench.features.published_caches import CACHE_FILES
from av_bench.features.sides import MediaFile
from av_bench.features.store import Features, Store, media_key
from av_bench.metrics import GaussianStatistics
from av_bench.runtime.files import inside, write_atomically, write_json
from av_bench.schema import FiniteFloat, NonNegativeInt, build, load_json

if TYPE_CHECKING:
    import torch

SCHEMA = 1


class _Protocol(Protocol):
    """What a pack is checked against (``protocols.definitions.Protocol``)."""

    @property
    def name(self) -> str: ...
    @property
    def seconds(self) -> float: ...


@dataclass
class Reference:
    """A pack in memory. ``features[extractor][clip id]`` is a dict of outputs."""

    info: dict[str, Any]
    statistics: dict[tuple[str, str], GaussianStatistics]
    features: dict[str, dict[str, Features]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hash of the provenance, which holds the hash of the content: part of a run's spec."""
        return hashlib.sha256(json.dumps(self.info, sort_keys=True).encode()).hexdigest()

    def covers(self, need: Need) -> bool:
        """Whether per-clip features of a need are in the pack."""
        return need.side != "generated" and need.extractor in self.features

    def gaussian(self, need: Need) -> GaussianStatistics | None:
        """Statistics of a reference need, when the pack has them."""
        return self.statistics.get((need.extractor, need.output)) if need.side == "reference" else None

    @property
    def stated(self) -> bool:
        """Whether it says which networks its features came from (published caches do not)."""
        return bool(self.info.get("fingerprints"))

    def check(self, clips: ClipSet, protocol: _Protocol, flavour: str, networks: ExtractorSet) -> None:
        """UsageError when what the pack says of itself does not fit the run it shall serve."""
        info = self.info
        wrong = []
        if info.get("seconds", protocol.seconds) != protocol.seconds:
            wrong.append(f"its window is {info['seconds']:g} s, protocol {protocol.name} scores {protocol.seconds:g} s")
        if info.get("flavour", flavour) != flavour:
            wrong.append(f"its flavour is {info['flavour']}, the run's {flavour}")
        for name, fingerprint in info.get("fingerprints", {}).items():
            if name in networks.names and fingerprint not in networks.fingerprints(name):
                wrong.append(f"its {name} features come from other weights or another front end")
        made_for = info.get("set")
        if made_for is not None and made_for["name"] != clips.name:
            wrong.append(f"it was made for set {made_for['name']}, the run is on {clips.name}")
        elif made_for is not None and not self.features and made_for["list_hash"] != clips.list_hash:
            wrong.append(
                "its statistics are of another list of clips (with features it could serve a part of its list)"
            )
        if wrong:
            raise UsageError(f"--reference: {'; '.join(wrong)}. Make a pack for this run with `av-bench stats make`")

    def media(
        self, clips: Sequence[Clip], needs: Sequence[Need], store: Store, networks: ExtractorSet, seconds: float
    ) -> dict[str, MediaFile]:
        """Stand-ins for the clips' own media: the pack's features are entered into the store under them."""
        wanted = sorted({need.extractor for need in needs if self.covers(need)})
        media = {}
        for clip in clips:
            digest = hashlib.sha256(f"{self.digest}/{clip.id}".encode()).hexdigest()
            media[clip.id] = MediaFile(clip.id, clip.video or Path(clip.id), digest=digest)
            lacking = [name for name in wanted if clip.id not in self.features[name]]
            if lacking:
                detail = f"the reference pack has no {', '.join(lacking)} features of this clip"
                media[clip.id].problem = MediaError(clip.id, Reason.MISSING_FILE, detail)
        for name in wanted:
            fingerprint = networks.fingerprint(name)
            rows = {media_key(m.digest, seconds): self.features[name][i] for i, m in media.items() if m.problem is None}
            store.put(fingerprint, {key: row for key, row in rows.items() if not store.has(fingerprint, key)})
        return media


def write(reference: Reference, folder: Path) -> None:
    """Write a pack; the json, which names the hashes of the other files, comes last."""
    from safetensors.numpy import save

    flat: dict[str, NDArray[Any]] = {}
    for (extractor, output), gaussian in reference.statistics.items():
        flat |= {f"{extractor}/{output}/{key}": np.array(a, order="C") for key, a in gaussian.to_arrays().items()}
    files = {"statistics.safetensors": save(flat)}
    if reference.features:
        rows = {
            f"{extractor}/{output}/{clip}": np.array(array, order="C")
            for extractor, clips in reference.features.items()
            for clip, outputs in clips.items()
            for output, array in outputs.items()
        }
        files["features.safetensors"] = save(rows)
    for name, payload in files.items():
        write_atomically(folder / name, payload)
    reference.info["files"] = {name: hashlib.sha256(payload).hexdigest() for name, payload in files.items()}
    write_json(folder / "reference.json", reference.info, sort_keys=True)


class _Set(TypedDict):
    """The set that a pack was made for."""

    name: str
    list_hash: str


class _Info(TypedDict):
    """``reference.json``."""

    schema: int
    source: str
    files: dict[str, str]
    clips: NotRequired[NonNegativeInt]
    seconds: NotRequired[FiniteFloat]
    flavour: NotRequired[str]
    fingerprints: NotRequired[dict[str, str]]
    set: NotRequired[_Set]


def read(folder: Path) -> Reference:
    """Read a pack; UsageError when a file is missing or not what the json says."""
    from safetensors.numpy import load

    try:
        path = folder / "reference.json"
        info = build(_Info, load_json(path), str(path))
    except UsageError as error:
        raise UsageError(
            f"{folder}: not a reference pack ({error}); `av-bench stats make` or `import` writes one"
        ) from error
    if info["schema"] != SCHEMA:
        raise UsageError(f"{folder}: schema {info['schema']!r}, this version reads {SCHEMA}")
    content: dict[str, dict[str, NDArray[Any]]] = {}
    for name, digest in info["files"].items():
        part = inside(folder, name, str(folder))
        payload = part.read_bytes() if part.is_file() else b""
        if hashlib.sha256(payload).hexdigest() != digest:
            raise UsageError(f"{folder / name}: missing or damaged (sha256 differs from reference.json); make it again")
        content[name] = load(payload)
    parts: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    features: dict[str, dict[str, Features]] = {}
    try:
        for key, array in content.get("statistics.safetensors", {}).items():
            extractor, output, name = key.split("/")
            parts.setdefault((extractor, output), {})[name] = array
        for key, array in content.get("features.safetensors", {}).items():
            extractor, output, clip = key.split("/", 2)
            features.setdefault(extractor, {}).setdefault(clip, {})[output] = array
        statistics = {k: GaussianStatistics.from_arrays(v) for k, v in parts.items()}
    except (ValueError, KeyError) as error:
        raise UsageError(f"{folder}: an array is not what a pack holds ({error}); make it again") from error
    return Reference(dict(info), statistics, features)


def from_rows(
    info: Mapping[str, Any], features: dict[str, dict[str, Features]], sides: Mapping[str, str], *, keep: bool
) -> Reference:
    """A pack from per-clip features; statistics are made of what the reference side's networks gave."""
    statistics: dict[tuple[str, str], GaussianStatistics] = {}
    for extractor, clips in features.items():
        if sides[extractor] != "reference":
            continue
        for output in next(iter(clips.values())):
            rows = [np.atleast_2d(clips[clip][output]) for clip in sorted(clips)]
            if rows[0].ndim == 2 and output == "embedding":
                statistics[extractor, output] = GaussianStatistics.from_rows(np.concatenate(rows))
    ids = sorted({clip for clips in features.values() for clip in clips})
    known = {
        "schema": SCHEMA,
        "clips": len(ids),
        "ids_hash": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        **info,
    }
    return Reference(known, statistics, features if keep else {})


def import_published(folder: Path, seconds: float, *, keep: bool = True) -> Reference:
    """A pack from a folder of published feature caches; what weights made them is not stated in them."""
    from av_bench.weights import load_checkpoint

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    features: dict[str, dict[str, Features]] = {}
    sides: dict[str, str] = {}
    hashes = {}
    for cache in CACHE_FILES:
        path = folder / cache.name
        if not path.is_file():
            continue
        table = load_checkpoint(path)
        if not isinstance(table, Mapping) or not table:
            raise UsageError(f"{path}: clip name -> features is expected, found {type(table).__name__}")
        hashes[cache.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        sides[cache.extractor] = cache.side
        for clip, value in table.items():
            row = features.setdefault(cache.extractor, {}).setdefault(str(clip), {})
            for output, key in cache.keys.items():
                row[output] = _array(value[key] if key else value, output)
    if not features:
        some = ", ".join(cache.name for cache in CACHE_FILES[:3])
        raise UsageError(f"{folder}: none of the published files is there ({some}, ...)")
    info = {"source": "published av-benchmark caches", "source_files": hashes, "seconds": seconds, "fingerprints": {}}
    return from_rows(info, features, sides, keep=keep)


def _array(value: ArrayLike | torch.Tensor, output: str) -> NDArray[np.float32]:
    import torch

    array: NDArray[np.float32] = torch.as_tensor(value).detach().cpu().float().numpy()
    return (
        array.reshape(-1)
        if output == "logits"
        else array.squeeze(0)
        if array.ndim > 1 and array.shape[0] == 1
        else array
    )
