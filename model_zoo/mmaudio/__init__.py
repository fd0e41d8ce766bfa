"""MMAudio (Cheng et al., CVPR 2025, arXiv 2412.15322): network, sampling and training, written from the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from model_zoo.mmaudio.flow.network import FlowNetwork


def build(variant: str, state_dict: Mapping[str, Tensor] | None = None) -> FlowNetwork:
    """The flow network of a variant (``mmaudio-s-16k`` ... ``mmaudio-l-44k-v2``), for inference when given weights.

    UsageError for an unknown variant, BadWeights when ``state_dict`` is not in its official layout.
    """
    from model_zoo.mmaudio import config
    from model_zoo.mmaudio.flow.load import filled
    from model_zoo.mmaudio.flow.network import FlowNetwork

    found = config.variant(variant)
    return FlowNetwork(found.network) if state_dict is None else filled(found.network, dict(state_dict))
