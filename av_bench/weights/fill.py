"""Weight files into networks: which file, which of its keys, nothing missing, left over or without a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from av_bench import weights as files
from av_bench.weights import BadWeights

Weights = str | Path | Mapping[str, Tensor] | None
"""A weight file, tensors by name, or None for the file that the lock file names."""


@dataclass(frozen=True)
class StateDict:
    """Tensors of one weight file by name, where they came from, and how to hash the whole file."""

    tensors: Mapping[str, Tensor]
    source: str
    compute_digest: Callable[[], str]

    @cached_property
    def digest(self) -> str:
        """sha256 that goes into fingerprints."""
        return self.compute_digest()

    def below(self, prefix: str) -> StateDict:
        """The tensors whose names begin with ``prefix``, without it."""
        own = {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}
        return replace(self, tensors=own)


def read(weights: Weights, entry: str) -> StateDict:
    """Read ``weights``: a file, a mapping, or None for the file that the lock file names ``entry``.

    Wrappers ("model", "state_dict") are opened and the prefix ``module.`` of data-parallel training is removed.
    Raises MissingRequirement with the command that gets the file, BadWeights when it is not a weight file.
    """
    if isinstance(weights, Mapping):
        tensors = files.load_state_dict(weights)
        given = StateDict(tensors, "the given weights", lambda: files.hash_of_mapping(tensors))
    else:
        path = files.require(entry) if weights is None else Path(weights)
        given = StateDict(files.load_state_dict(path), str(path), lambda: files.file_sha256(path))
    return given.below("module.") if all(key.startswith("module.") for key in given.tensors) else given


def load_into(module: nn.Module, state: StateDict, *, ignore: str | None = None, copy: bool = False) -> str:
    """Load a state dict strictly, as float32, and return its hash.

    The module shares the state dict's memory; with ``copy`` it keeps its own, unless that is on the meta device.
    ``ignore`` is a pattern (``re.match``) of official keys that this part of the network does not use. BadWeights names
    any other key that the network lacks, any key it misses, any shape that differs and any value that is not a number.
    """
    digest = state.digest
    fill(module, state.tensors, state.source, ignore=ignore, copy=copy)
    left = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__}: buffers {left} hold no values; build it outside the meta device")
    return digest


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, ignore: str | None = None, copy: bool = False
) -> None:
    """``load_into`` without a hash, for networks that set some buffers afterwards; ``source`` is for the error."""
    wanted = module.state_dict()
    misfits = _misfits(module, tensors, ignore)
    problems = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in misfits.items() if keys]
    if problems:
        raise BadWeights(
            f"{source}: not the layout of {type(module).__name__}: {'; '.join(problems)}. Use weights in that layout: "
            "published ones as the lock file names them, trained ones as training wrote them"
        )
    own = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items() if k in wanted}
    module.load_state_dict(own, assign=not copy or any(value.is_meta for value in wanted.values()))


def _misfits(module: nn.Module, tensors: Mapping[str, Tensor], ignore: str | None) -> dict[str, list[str]]:
    """Keys that do not fit, by what is wrong. Buffers may hold infinite values (attention masks do)."""
    wanted = module.state_dict()
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    shared = [key for key in wanted if key in tensors]
    return {
        "missing keys": [key for key in wanted if key not in tensors],
        "unexpected keys": [k for k in tensors if k not in wanted and not (ignore and re.match(ignore, k))],
        "other shapes": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in shared
            if tensors[key].shape != wanted[key].shape
        ],
        "tensors that are not finite": [key for key in shared if not _is_sound(tensors[key], finite=key in parameters)],
    }


def _is_sound(value: Tensor, finite: bool) -> bool:
    return bool(value.isfinite().all()) if finite else not bool(value.isnan().any())


def check_stored(state: StateDict, key: str, computed: Tensor) -> None:
    """A front-end matrix that a weight file carries must be the one computed here, to 1e-5 of its largest value."""
    if key not in state.tensors:
        raise BadWeights(f"{state.source}: {key} is missing, so its front end is unknown; get the file again")
    stored = state.tensors[key].float()
    worst = float((stored - computed).abs().max() / computed.abs().max())
    if not worst < 1e-5:
        raise BadWeights(
            f"{state.source}: {key} differs from the published front end by {worst:.1e} of its largest value"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def weights_hash(weights: Weights, name: str) -> str:
    """sha256 of given weights, or of the file the lock file names; MissingRequirement tells how to get it."""
    if weights is None and not name:
        return "none"
    if isinstance(weights, Mapping):
        return files.hash_of_mapping(weights)
    return files.file_sha256(Path(weights) if weights is not None else files.require(name))
