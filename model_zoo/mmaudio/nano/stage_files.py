"""Files of the stages of ``mmaudio-nano``'s recipes: weights, logs, and which scenes no stage trains on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from av_bench.contracts import UsageError
from av_bench.runtime.files import write_json
from model_zoo.mmaudio.flow.load import header_of
from model_zoo.mmaudio.training.checkpoints import write_tensors

HOLDOUT = 64  # last scenes of the corpus: never trained on by any stage


def save_weights(module: nn.Module, file: Path, about: Mapping[str, Any] | None = None) -> None:
    """Weights as safetensors with what their header says, whole or not at all."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, tensors, header_of(about) if about else None)


def read_weights(module: nn.Module, file: Path) -> None:
    """Fill a module from a safetensors file, strictly."""
    from av_bench.weights.fill import fill, read

    state = read(file, "")
    fill(module, state.tensors, state.source, copy=True)


def write_half(source: Path, target: Path) -> None:
    """A weight file with its floating-point tensors as fp16 and the same header. What reads it computes in fp32.

    UsageError for a value that fp16 does not hold.
    """
    from safetensors import safe_open

    with safe_open(str(source), "pt") as content:
        header = content.metadata() or {}
        tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - no mapping
    half = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    lost = [key for key, value in half.items() if value.dtype == torch.float16 and not value.isfinite().all()]
    if lost:
        raise UsageError(f"{source}: values of {', '.join(lost[:5])} do not fit into fp16")
    write_tensors(target, half, header)


def save_json(file: Path, content: object) -> None:
    """Write a log."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
