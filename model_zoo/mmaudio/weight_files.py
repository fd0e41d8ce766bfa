"""Weights of MMAudio's parts in: strict loading with odd keys named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from av_bench import weights as files

Source = str | Path | Mapping[str, Tensor] | None
"""A weight file, tensors by name, or None for the file that the lock file names."""


def read_tensors(source: Source, entry: str) -> tuple[dict[str, Tensor], str]:
    """Tensors by name and where they are from; ``source=None`` is the file of the lock file's ``entry``."""
    if isinstance(source, Mapping):
        return files.load_state_dict(source), "the given weights"
    path = files.require(entry) if source is None else Path(source)
    return files.load_state_dict(path), str(path)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``module`` as float32 (a module on the meta device takes the tensors themselves).

    BadWeights names missing and unexpected keys, other shapes and values that are not finite.
    """
    wanted = module.state_dict()
    found = {
        "missing keys": [key for key in wanted if key not in tensors],
        "unexpected keys": [key for key in tensors if key not in wanted],
        "other shapes": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in tensors and tensors[key].shape != value.shape
        ],
        "tensors that are not finite": [key for key, value in tensors.items() if not bool(value.isfinite().all())],
    }
    problems = [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]
    if problems:
        raise files.BadWeights(
            f"{where}: not the layout of {type(module).__name__}: {'; '.join(problems)}. Use weights in "
            "that layout: published ones as the lock file names them, trained ones as training wrote them"
        )
    assign = any(value.is_meta for value in wanted.values())
    module.load_state_dict({key: tensors[key].float() for key in wanted}, assign=assign)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
