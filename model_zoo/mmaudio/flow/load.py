"""Flow networks of this package's own training, for sampling: their sizes lie in the header of their files."""

from __future__ import annotations

from pathlib import Path

import torch

from av_bench import weights
from av_bench.contracts import MissingRequirement, UsageError
from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.network import FlowNetwork

FIXED = ("latent_dim", "clip_dim", "sync_dim", "text_dim", "text_len")  # what codec and conditions decide


def header_config(file: Path) -> NetworkConfig:
    """Sizes of the flow network in a file that training wrote. UsageError when the header does not hold them,
    BadWeights when the file is damaged, MissingRequirement when it is not there."""
    from safetensors import SafetensorError, safe_open

    from av_bench.schema import build, parse_json

    if not file.is_file():
        raise MissingRequirement(f"{file}: no such file; training writes weights/*.safetensors into its --out")
    try:
        with safe_open(str(file), "pt") as content:
            header = content.metadata() or {}
    except SafetensorError as error:
        raise weights.BadWeights(f"{file}: not a readable safetensors file ({error}); get or train it again") from error
    if "network" not in header:
        raise UsageError(f"{file}: its header has no network sizes; use weights that this package's training wrote")
    return build(NetworkConfig, parse_json(header["network"], str(file)), str(file))


def load_trained(file: Path, like: NetworkConfig, name: str) -> FlowNetwork:
    """The network of a training's weight file, for codec and conditions of a variant with the sizes ``like``.

    UsageError when they do not fit each other; BadWeights for another layout than the header says.
    """
    config = header_config(file)
    ours, theirs = vars(config), vars(like)
    other = [f"{key} {ours[key]} instead of {theirs[key]}" for key in ours if key in FIXED and ours[key] != theirs[key]]
    if other:
        raise UsageError(f"{file}: made for another codec or other conditions than those of {name}: {', '.join(other)}")
    return filled(config, weights.load_state_dict(file), str(file))


def filled(config: NetworkConfig, tensors: dict[str, torch.Tensor], where: str = "the given weights") -> FlowNetwork:
    """A network of these sizes that takes ``tensors`` as they are, for inference. BadWeights for another layout."""
    with torch.device("meta"):
        network = FlowNetwork(config)
    network.load_official(tensors, where)
    network.t_embed.freqs = type(network.t_embed)(config.hidden, config.v2).freqs
    network.set_lengths(config.latent_len, config.clip_len, config.sync_len)
    return network.eval().requires_grad_(False)
