"""Golden files of the published networks, the rule that makes weights out of key names, and a disk that fills up."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[3] / "../shared/golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files: folder 'shared' is not beside the repo")


def golden(name: str) -> Any:
    """Tensors in plain containers."""
    return torch.load(GOLDEN / name, weights_only=True)


def layout(name: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Meta data of a published network, and the shape of every key."""
    content = json.loads((GOLDEN / f"layouts/statedict_{name}.json").read_text())
    return content["meta"], {key: tensor["shape"] for key, tensor in content["tensors"].items()}


def recipe() -> Any:
    """The module with ``fill`` (a tensor from its key) and ``inp`` (an input from its name)."""
    spec = importlib.util.spec_from_file_location("weight_recipe", GOLDEN / "weight_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Shape of every key."""
    return {key: list(value.shape) for key, value in state.items()}


def close(ours: Tensor, reference: Tensor, limit: float = 1e-4) -> None:
    """Equal to ``limit`` of the value or of the largest value."""
    torch.testing.assert_close(ours, reference, rtol=limit, atol=limit * float(reference.abs().max()))


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Inside, no file can grow beyond ``limit`` bytes: writes fail part-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
