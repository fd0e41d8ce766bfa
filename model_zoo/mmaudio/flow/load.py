"""Flow networks for sampling and as a start of training: by name, or from files that training wrote.

Weight files of this package's training are safetensors whose header has one key, ``about``, with JSON: the sizes of the
network, the recipe's name, the step and, for adapters, the weights they belong to. Equal trainings so give equal files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from av_bench import weights
from av_bench.contracts import MissingRequirement, UsageError, unknown_name
from av_bench.networks.packages import on_meta
from av_bench.schema import build, parse_json
from model_zoo.mmaudio.config import ALIASES, VARIANTS, NetworkConfig, variant
from model_zoo.mmaudio.flow.few_step import FewStep, few_step_of
from model_zoo.mmaudio.flow.lora import Lora, merge
from model_zoo.mmaudio.flow.network import DERIVED, FlowNetwork

FIXED = ("latent_dim", "clip_dim", "sync_dim", "text_dim", "text_len")  # what codec and conditions decide
LENGTHS = ("latent_len", "clip_len", "sync_len")  # what a network may be used with others of
EMBEDDED = {"mmaudio-nano": Path(__file__).parents[1] / "weights" / "mmaudio-nano.safetensors"}


@dataclass(frozen=True)
class FlowWeights:
    """Weights of a whole flow network in the official layout, its sizes where they are known, and the steps they are
    made for where these are few."""

    tensors: dict[str, torch.Tensor]
    config: NetworkConfig | None
    source: str
    few_step: FewStep | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 over the tensors by name: the same for equal weights in whatever file."""
        return weights.hash_of_mapping(self.tensors)


def read_flow(name_or_file: str) -> FlowWeights:
    """Weights by name (``mmaudio-nano``, a variant) or of a file that is published or that training here wrote.

    Adapters are merged into their base. A checkpoint of the published training counts with its current weights.
    MissingRequirement when the file is not there, BadWeights when it is damaged or adapters do not fit, UsageError for
    adapters of other weights.
    """
    found = ALIASES.get(name_or_file, name_or_file)
    if found in VARIANTS:
        file, config = weights.require(variant(found).weights), variant(found).network
        return FlowWeights(_official(weights.load_state_dict(file)), config, name_or_file)
    file = EMBEDDED.get(name_or_file, Path(name_or_file))
    if not file.is_file():
        known = [*EMBEDDED, *VARIANTS, *ALIASES]
        hint = unknown_name("weights", name_or_file, known) if file.suffix == "" else "no such file"
        raise MissingRequirement(f"{name_or_file}: {hint}; name weights, or a file that training wrote")
    about = read_about(file) if file.suffix == ".safetensors" else {}
    if "lora" in about:
        return _with_adapters(file, about)
    sizes = _config(about["network"], file) if "network" in about else None
    return FlowWeights(_official(weights.load_state_dict(file)), sizes, str(file), few_step_of(about, str(file)))


def _official(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a file stores as fp16 is float32 from here on: adapters are added to it, digests compare it."""
    own = {key: value for key, value in tensors.items() if key not in DERIVED}
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in own.items()}


def _with_adapters(file: Path, about: Mapping[str, Any]) -> FlowWeights:
    base = read_flow(str(about["init"]))
    if base.digest != about["init_digest"]:
        raise UsageError(
            f"{file}: adapters of other weights: they were trained on {about['init']} with digest "
            f"{about['init_digest'][:16]}, what is there has {base.digest[:16]}"
        )
    lora: Lora = build(Lora, about["lora"], f"{file}: lora")
    tensors = merge(base.tensors, weights.load_state_dict(file), lora.scale, str(file))
    return FlowWeights(tensors, _config(about["network"], file), str(file), few_step_of(about, str(file)))


def read_about(file: Path) -> dict[str, Any]:
    """What the header of a safetensors file says. BadWeights when it is damaged, MissingRequirement when not there.

    Files of version 0.1 have a key for each entry.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise MissingRequirement(f"{file}: no such file; training writes weights/*.safetensors into its --out")
    try:
        with safe_open(str(file), "pt") as content:
            header = content.metadata() or {}
    except SafetensorError as error:
        raise weights.BadWeights(f"{file}: not a readable safetensors file ({error}); get or train it again") from error
    if "about" in header:
        found = parse_json(header["about"], str(file))
        if not isinstance(found, dict):
            raise UsageError(f"{file}: its header does not say what it holds; use weights that training here wrote")
        return found
    return {key: parse_json(value, str(file)) if key == "network" else value for key, value in header.items()}


def header_of(about: Mapping[str, Any]) -> dict[str, str]:
    """``about`` as the header of a safetensors file: one key, sorted, so that equal content is equal bytes."""
    return {"about": json.dumps(about, sort_keys=True)}


def _config(content: object, file: Path) -> NetworkConfig:
    return build(NetworkConfig, content, str(file))


def header_config(file: Path) -> NetworkConfig:
    """Sizes of the flow network in a file that training wrote. UsageError when the header does not hold them,
    BadWeights when the file is damaged, MissingRequirement when it is not there."""
    about = read_about(file)
    if "network" not in about:
        raise UsageError(f"{file}: its header has no network sizes; use weights that this package's training wrote")
    return _config(about["network"], file)


def load_trained(file: Path, like: NetworkConfig, name: str) -> FlowNetwork:
    """The network of a training's weight file, for codec and conditions of a variant with the sizes ``like``.
    Adapters are merged into the weights they were trained on.

    UsageError when they do not fit each other; BadWeights for another layout than the header says.
    """
    config = header_config(file)
    ours, theirs = vars(config), vars(like)
    other = [f"{key} {ours[key]} instead of {theirs[key]}" for key in ours if key in FIXED and ours[key] != theirs[key]]
    if other:
        raise UsageError(f"{file}: made for another codec or other conditions than those of {name}: {', '.join(other)}")
    found = read_flow(str(file))
    network = filled(config, found.tensors, str(file))
    network.few_step = found.few_step
    return network


def check_start(found: FlowWeights, config: NetworkConfig, where: str) -> None:
    """UsageError when weights are of another network than ``config``; sequence lengths may differ."""
    if found.config is None:
        return
    ours, theirs = vars(config), vars(found.config)
    other = [f"{k} {theirs[k]} instead of {ours[k]}" for k in ours if k not in LENGTHS and ours[k] != theirs[k]]
    if other:
        raise UsageError(f"{where}: {found.source} holds another network: {', '.join(other)}")


def filled(config: NetworkConfig, tensors: dict[str, torch.Tensor], where: str = "the given weights") -> FlowNetwork:
    """A network of these sizes with a copy of ``tensors``, for inference. BadWeights for another layout.

    A copy, since a file's tensors lie in memory as they lie in the file: the last bits of products depend on that.
    """
    with on_meta():
        network = FlowNetwork(config)
    network.load_official({key: value.clone() for key, value in tensors.items()}, where)
    network.t_embed.freqs = type(network.t_embed)(config.hidden, config.v2).freqs
    network.set_lengths(config.latent_len, config.clip_len, config.sync_len)
    return network.eval().requires_grad_(False)
