"""Extractors: front end and network, one file each. ``load`` is the door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av_bench import registry
from av_bench.contracts import Flavour

if TYPE_CHECKING:
    import torch

__all__ = ["load"]


def load(
    name: str,
    weights: str | Path | Mapping[str, torch.Tensor] | None = None,
    device: str = "cpu",
    flavour: Flavour = "paper",
) -> Any:  # noqa: ANN401 - the name decides
    """Build an extractor (or pair extractor) by name.

    Parameters
    ----------
    name : one of ``av-bench list extractors``.
    weights : a file in the official layout, or a state dict in the official key layout; None takes the file that
        the lock file names from the weights folder (or the embedded one for ``nano-*``).
    device : a torch device.
    flavour : "paper" reproduces the published front end with its quirks, "strict" feeds every network one decoded,
        mono, cut buffer.

    Raises UsageError for an unknown name, MissingRequirement when weights or packages are absent.
    """
    return registry.load("extractors", name).build(weights, device=device, flavour=flavour)
