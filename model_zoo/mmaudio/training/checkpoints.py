"""Checkpoints that are complete or not there: safetensors and JSON in a folder that is renamed when finished.

``<out>/checkpoints/step-000012000/{tensors.safetensors, state.json}``. A write that fails (full disk, kill) leaves the
earlier ones untouched; a checkpoint whose checksum differs is passed over for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.runtime.files import atomic_path, write_text
from model_zoo.mmaudio.training.distributed import Cluster

log = logging.getLogger(__name__)

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d+)$")


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint read back: ``step`` is the number of steps done."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def save(root: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write the checkpoint of ``step`` and remove all but the newest ``keep``.

    MissingRequirement when it cannot be written: the checkpoints that were there still are.
    """
    target = root / f"step-{step:09d}"
    part = root / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        write_tensors(part / _TENSORS, tensors)
        content = {"step": step, "sha256": _sha256(part / _TENSORS), "state": dict(state)}
        write_text(part / _STATE, json.dumps(content, sort_keys=True, allow_nan=False))
        if target.exists():  # the same step saved again, because the older one is damaged
            target.rename(part / "replaced")
        part.rename(target)
        shutil.rmtree(target / "replaced", ignore_errors=True)
    except OSError as error:
        good = _steps(root)
        last = f"the last good one is step {max(good)}" if good else "there is none before it"
        again = "it resumes from there" if good else "it starts again"
        raise MissingRequirement(
            f"checkpoint of step {step} in {root} could not be written ({error}); {last}. "
            f"Free space and run the same command again, {again}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in sorted(_steps(root))[:-keep]:
        shutil.rmtree(root / f"step-{old:09d}")
    return target


class Writer:
    """Writes checkpoints one after the other; with ``background`` in a thread, while training continues.

    What cannot be written is raised by the next call: a checkpoint that was handed over is there, or its error is.
    """

    def __init__(self, background: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[Path] | None = None

    def save(
        self, root: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], keep: int
    ) -> None:
        """``save``, now or as soon as the one before is done. Tensors are copied before this returns."""
        self.wait()
        if self._pool is None:
            save(root, step, tensors, state, keep)
            return
        own = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        self._pending = self._pool.submit(save, root, step, own, state, keep)

    def check(self) -> None:
        """Raise what a finished write ran into; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when everything that was handed over is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let a write that is under way come to its end."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def sweep(*folders: Path) -> None:
    """Remove what killed writers left unfinished. For who holds the run's lock: nobody else writes there then."""
    for folder in folders:
        for part in folder.glob(".*.part") if folder.is_dir() else ():
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def load_latest(root: Path) -> TrainingCheckpoint | None:
    """The newest intact checkpoint, None when there is none at all. UsageError when all are damaged."""
    steps = sorted(_steps(root), reverse=True)
    for step in steps:
        folder = root / f"step-{step:09d}"
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before it", folder, error)
    if steps:
        raise UsageError(
            f"{root}: all {len(steps)} checkpoints are damaged; remove that folder to train from the start"
        )
    return None


def load(root: Path, step: int) -> TrainingCheckpoint:
    """The checkpoint of exactly ``step``. UsageError when it is not there or damaged."""
    folder = root / f"step-{step:09d}"
    try:
        return _load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"checkpoint {folder} is not there or damaged ({error})") from error


def load_agreed(root: Path, processes: Cluster) -> TrainingCheckpoint | None:
    """``load_latest`` for processes that train together: the first one picks, the others read that step and no other.

    UsageError in all of them when one cannot.
    """
    found = load_latest(root) if processes.first else None
    step = processes.agree(0 if found is None else found.step)
    if not step:
        return None
    problem = ""
    if found is None:
        try:
            found = load(root, step)
        except UsageError as error:
            problem = f": {error}"
    if processes.any(found is None):
        raise UsageError(
            f"{root}: the first process resumes from step {step}, not every process can{problem}. "
            "--out must be one folder that all nodes share"
        )
    return found


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all. OSError when the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(content, str(temporary), dict(metadata or {}))
        except SafetensorError as error:
            raise OSError(str(error)) from error


def optimiser_tensors(optimisers: Mapping[str, torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """What optimisers know of their parameters, as ``adam.<name>/<row>/<key>``."""
    found: dict[str, torch.Tensor] = {}
    for name, optimiser in optimisers.items():
        for row, state in optimiser.state_dict()["state"].items():
            found |= {f"adam.{name}/{row}/{key}": value for key, value in state.items()}
    return found


def load_optimisers(optimisers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, torch.Tensor]) -> None:
    """The reverse of ``optimiser_tensors``; rates and other settings stay."""
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for path, value in below(tensors, f"adam.{name}/").items():
            row, _, key = path.partition("/")
            state.setdefault(int(row), {})[key] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of tensors by name, wherever they lie."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return found.hexdigest()


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """``write_tensors`` for what a user wants to keep: MissingRequirement when the disk refuses."""
    try:
        write_tensors(path, tensors, metadata)
    except OSError as error:
        raise MissingRequirement(f"{path} could not be written ({error}); free space and start again") from error


def _load(folder: Path) -> TrainingCheckpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    content = json.loads((folder / _STATE).read_text(encoding="utf8"))
    if _sha256(folder / _TENSORS) != content["sha256"]:
        raise ValueError("checksum differs")
    try:
        return TrainingCheckpoint(content["step"], load_file(str(folder / _TENSORS)), content["state"])
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _steps(root: Path) -> list[int]:
    """Steps of the complete checkpoints below ``root``."""
    found = [_NAME.match(p.name) for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    return [int(match[1]) for match in found if match]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
