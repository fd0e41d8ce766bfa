"""The published flow network from a checkout of hkchengrex/MMAudio that the user names, to measure against.

Its packages (einops, torchdiffeq) must be importable. Nothing of it is part of this project.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_zoo.mmaudio.flow.network import FlowNetwork


def published(network: FlowNetwork, checkout: Path) -> Any:
    """The published network with the sizes and weights of ours, on its device."""
    if not (checkout / "mmaudio" / "model" / "networks.py").is_file():
        raise SystemExit(f"--original {checkout}: no checkout of MMAudio (mmaudio/model/networks.py is missing)")
    sys.path.insert(0, str(checkout))
    from mmaudio.model.networks import MMAudio

    c = network.config
    made = MMAudio(
        latent_dim=c.latent_dim, clip_dim=c.clip_dim, sync_dim=c.sync_dim, text_dim=c.text_dim, hidden_dim=c.hidden,
        depth=c.depth, fused_depth=c.fused_depth, num_heads=c.heads, latent_seq_len=c.latent_len,
        clip_seq_len=c.clip_len, sync_seq_len=c.sync_len, text_seq_len=c.text_len, v2=c.v2,
        latent_mean=torch.zeros(c.latent_dim), latent_std=torch.ones(c.latent_dim),
        empty_string_feat=network.empty_string_feat.detach().cpu(),
    )  # fmt: skip
    made.load_weights(dict(network.state_dict()))
    return made.to(network.latent_mean.device)


class PublishedForTraining(nn.Module):
    """The published network called as ours is in a training step: what is dropped gets the empty tokens."""

    def __init__(self, network: FlowNetwork, checkout: Path) -> None:
        super().__init__()
        self.network = published(network, checkout)
        for name in ("latent_mean", "latent_std", "empty_string_feat"):
            self.network.get_parameter(name).requires_grad_(False)

    def forward(
        self, latent: Tensor, clip: Tensor, sync: Tensor, text: Tensor, t: Tensor, drop_video: Tensor, drop_text: Tensor
    ) -> Tensor:
        """See ``FlowNetwork.forward``."""
        gone, wordless = drop_video[:, None, None], drop_text[:, None, None]
        clip = torch.where(gone, self.network.empty_clip_feat, clip)
        sync = torch.where(gone, self.network.empty_sync_feat, sync)
        text = torch.where(wordless, self.network.empty_string_feat, text)
        velocity: Tensor = self.network(latent, clip, sync, text, t)
        return velocity
