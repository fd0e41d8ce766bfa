"""Official weight files into networks: which file, which of its keys, and nothing missing or left over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from av_bench import weights as files
from av_bench.contracts import UsageError
from av_bench.weights import BadWeights

Weights = str | Path | Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of one weight file by official name, where they came from, and the hash that goes into fingerprints."""

    tensors: Mapping[str, Tensor]
    source: str
    digest: str
    is_file: bool = True

    def error(self, text: str) -> Exception:
        """BadWeights for a file, UsageError for a mapping given by the caller."""
        return (BadWeights if self.is_file else UsageError)(f"{self.source}: {text}")


def read(weights: Weights, entry: str) -> Checkpoint:
    """Read ``weights``: a file, a mapping, or None for the file that the lock file names ``entry``.

    Wrappers ("model", "state_dict") are opened and the prefix ``module.`` of data-parallel training is removed.
    Raises MissingRequirement with the command that gets the file, BadWeights when it is not a weight file.
    """
    is_file = not isinstance(weights, Mapping)
    if isinstance(weights, Mapping):
        source, tensors = "the given weights", files.load_state_dict(weights)
        digest = files.hash_of_mapping(tensors)
    else:
        path = files.require(entry) if weights is None else weights
        source, tensors = str(path), files.load_state_dict(path)
        digest = files.file_sha256(path)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return Checkpoint(tensors, source, digest, is_file)


def load_into(module: nn.Module, checkpoint: Checkpoint, *, ignore: str | None = None) -> str:
    """Load a checkpoint strictly and return its hash. The module shares the checkpoint's memory, as float32.

    ``ignore`` is a pattern (``re.match``) of official keys that this part of the network does not use. Any other key
    that the network lacks, any key it misses and any shape that differs is named in the error.
    """
    wanted = module.state_dict()
    unexpected = [k for k in checkpoint.tensors if k not in wanted and not (ignore and re.match(ignore, k))]
    missing = [k for k in wanted if k not in checkpoint.tensors]
    shapes = [
        f"{k} {tuple(checkpoint.tensors[k].shape)} instead of {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in checkpoint.tensors and checkpoint.tensors[k].shape != v.shape
    ]
    found = {"missing keys": missing, "unexpected keys": unexpected, "other shapes": shapes}
    problems = [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]
    if problems:
        raise checkpoint.error(
            f"not the layout of {type(module).__name__}: {'; '.join(problems)}. Use the file the lock file names, "
            "or weights in its layout"
        )
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in checkpoint.tensors.items() if k in wanted}
    module.load_state_dict(tensors, assign=True)
    left = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__}: buffers {left} hold no values; build it outside the meta device")
    return checkpoint.digest


def check_stored(checkpoint: Checkpoint, key: str, computed: Tensor) -> None:
    """A front-end matrix that a checkpoint carries must be the one computed here, to 1e-5 of its largest value."""
    stored = checkpoint.tensors[key].float()
    worst = float((stored - computed).abs().max() / computed.abs().max())
    if not worst < 1e-5:
        raise checkpoint.error(f"{key} differs from the published front end by {worst:.1e} of its largest value")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def weights_hash(weights: Weights, name: str) -> str:
    """sha256 of given weights, or of the file the lock file names; MissingRequirement tells how to get it."""
    if weights is None and not name:
        return "none"
    if isinstance(weights, Mapping):
        return files.hash_of_mapping(weights)
    return files.file_sha256(Path(weights) if weights is not None else files.require(name))
