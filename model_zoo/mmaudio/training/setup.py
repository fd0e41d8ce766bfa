"""From a recipe to the data and the untrained network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from av_bench import weights
from av_bench.contracts import AvBenchError, UsageError, unknown_name
from av_bench.schema import build
from model_zoo.mmaudio.config import NetworkConfig, variant
from model_zoo.mmaudio.features.read import FeatureSet
from model_zoo.mmaudio.features.shard_file import read_index, shard_folders
from model_zoo.mmaudio.flow.load import FlowWeights, check_start, read_flow
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training import tuning
from model_zoo.mmaudio.training.checkpoints import TrainingCheckpoint
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.exclusion import Exclusion
from model_zoo.mmaudio.training.mix import Mix, Source
from model_zoo.mmaudio.training.recipe import FlowRecipe

Shapes = dict[str, tuple[int, ...]]


def network_config(recipe: FlowRecipe) -> NetworkConfig:
    """The NetworkConfig a recipe asks for: a variant's, with single fields changed, or all fields given."""
    given = dict(recipe.network)
    name = given.pop("variant", None)
    known = [f.name for f in fields(NetworkConfig)]
    for key in given:
        if key not in known:
            raise UsageError(f"config {recipe.name}: network: {unknown_name('key', key, sorted([*known, 'variant']))}")
    where = f"config {recipe.name}: network"
    if name is None:
        return build(NetworkConfig, given, where)
    base = variant(str(name)).network
    return build(NetworkConfig, vars(base) | given, where)


def row_shapes(config: NetworkConfig) -> Shapes:
    """Shape of one sample's row in every array that training reads."""
    latent = (config.latent_len, config.latent_dim)
    clip, sync = (config.clip_len, config.clip_dim), (config.sync_len, config.sync_dim)
    return {"mean": latent, "std": latent, "clip": clip, "sync": sync, "text": (config.text_len, config.text_dim)}


def mixes(recipe: FlowRecipe, processes: Cluster, excluded: frozenset[str] | None = None) -> tuple[Mix, Mix | None]:
    """The training mix without ``excluded`` (None: the recipe's list), and the validation mix if there is one."""
    if excluded is None:
        excluded = excluded_names(recipe)
    shapes = row_shapes(network_config(recipe))
    opened: dict[str, FeatureSet] = {}

    def mix(sources: tuple[Source, ...], excluded: frozenset[str] = frozenset()) -> Mix:
        for source in sources:
            if source.path not in opened:
                part = (processes.rank, processes.world)
                opened[source.path] = FeatureSet(source.path, recipe.data.verify, part)
        return Mix([(source, opened[source.path]) for source in sources], shapes, recipe.seed, excluded)

    return mix(recipe.data.train, excluded), mix(recipe.data.validation) if recipe.data.validation else None


def data_digest(recipe: FlowRecipe) -> list[str]:
    """One sha256 per training source, over its shards' checksums: the same wherever the folder lies."""
    found: dict[str, str] = {}
    for path in {source.path for source in recipe.data.train}:
        digests = [read_index(folder)["digest"] for folder in shard_folders(Path(path))]
        found[path] = hashlib.sha256("".join(digests).encode()).hexdigest()
    return [found[source.path] for source in recipe.data.train]


def kept_digest(mix: Mix, excluded: frozenset[str]) -> str:
    """sha256 over (recording, crop) of all samples that ``excluded`` leaves, in stored order, source by source."""
    found, exclusion = hashlib.sha256(), Exclusion(excluded)
    for number, (_, features) in enumerate(mix.sources):
        for key, crop in zip(features.ids, features.crops, strict=True):
            if key not in exclusion:
                found.update(f"{number}\0{key}\0{crop}\n".encode())
    return found.hexdigest()


def check_same(out: Path, found: TrainingCheckpoint, recipe: FlowRecipe, content: Mapping[str, Any]) -> None:
    """UsageError when a checkpoint is of another recipe, of other samples, or of a later step than the recipe's last.

    ``content``: what tells today's samples from others. A checkpoint without ``data`` or ``kept`` is of before they
    were kept, and goes by the number of samples alone.
    """
    state = found.state
    theirs, ours = json.loads(state["recipe"]), json.loads(recipe.identity())
    theirs["data"].pop("exclude", None)  # once the path of a list
    differs = sorted(k for k in ours if ours[k] != theirs.get(k))
    count, same_data = content["samples"], state.get("data", content["data"]) == content["data"]
    if state["samples"] != count:
        differs.append(f"number of samples ({state['samples']} then, {count} now)")
    elif not same_data:
        differs.append("content of the training features")  # as many samples, but not the same ones
    for name, what in (("init", "init"), ("teacher", "distill.teacher")):
        if state.get(name) != content.get(name):
            differs.append(f"{what}: its weights")
    if "data" in state and same_data and state.get("kept", content["kept"]) != content["kept"]:
        differs.append("list of excluded recordings (--exclude, data.exclude)")
    if differs:
        raise UsageError(
            f"{out} holds a training run with another {', '.join(differs)}; choose another --out, "
            "or the config it was started with"
        )
    if found.step > recipe.steps:
        raise UsageError(
            f"{out} holds a training run of {found.step} steps, the config asks for {recipe.steps}; its weights would "
            f"be those of step {found.step}. Set steps to {found.step} or more, or choose another --out"
        )


def excluded_names(recipe: FlowRecipe) -> frozenset[str]:
    """Names that the recipe leaves out of training; UsageError when its file cannot be read."""
    if recipe.data.exclude is None:
        return frozenset()
    try:
        lines = Path(recipe.data.exclude).read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config {recipe.name}: data.exclude: {recipe.data.exclude}: {error}") from error
    return frozenset(line.strip() for line in lines if line.strip())


def start_of(recipe: FlowRecipe) -> FlowWeights | None:
    """The weights that the recipe starts from. UsageError when they are of another network than the recipe's."""
    if recipe.init is None:
        return None
    found = read_flow(recipe.init)
    check_start(found, network_config(recipe), f"config {recipe.name}: init")
    if found.few_step is not None and recipe.distill is None:
        raise UsageError(
            f"config {recipe.name}: init: {found.source} is made for {found.few_step.steps} steps of sampling, which "
            "this training would undo; start from its teacher, or train with distill"
        )
    return found


def network(recipe: FlowRecipe, mix: Mix, start: FlowWeights | None = None) -> FlowNetwork:
    """The network to train: with the weights, latent statistics and empty text of ``start``, or untrained with those
    of the data. Parameters that ``frozen`` names are fixed and ``lora``'s adapters are in.

    New weights are drawn from ``recipe.seed``, alike in every process. BadWeights for a start of another layout.
    """
    config = network_config(recipe)
    if start is None:
        mean, std = _latent_statistics(recipe, mix, config.latent_dim)
        empty = torch.zeros(config.text_len, config.text_dim) if config.empty == "zero" else _empty_text(recipe, mix)
        torch.manual_seed(recipe.seed)
        made = FlowNetwork(config, latent_mean=mean, latent_std=std, empty_string=empty)
    else:
        made = FlowNetwork(config)
        made.load_official(start.tensors, start.source)
    made.empty_string_feat.requires_grad_(recipe.learn_empty_text)
    tuning.prepare(made, recipe.frozen, recipe.lora, recipe.seed, f"config {recipe.name}")
    return made


def _latent_statistics(recipe: FlowRecipe, mix: Mix, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (C,) that latents are normalised with: 0 and 1 where the recipe wants none."""
    if not recipe.data.normalise:
        return torch.zeros(channels), torch.ones(channels)
    return _statistics_source(recipe, mix).latent_statistics()


def _statistics_source(recipe: FlowRecipe, mix: Mix) -> FeatureSet:
    """The folder whose latents define the normalisation: the one named, else the first with video (published code)."""
    sets = [features for _, features in mix.sources]
    number = recipe.data.statistics
    if number is None:
        number = next((n for n, features in enumerate(sets) if features.video.any()), 0)
    if not 0 <= number < len(sets):
        raise UsageError(f"config {recipe.name}: data.statistics is {number}, there are {len(sets)} training sources")
    return sets[number]


def _empty_text(recipe: FlowRecipe, mix: Mix) -> torch.Tensor:
    """Features (Lt, Dt) of the empty text: from the recipe's file, or stored with the training features."""
    if recipe.empty_text is not None:
        return _fitting_empty_text(recipe.empty_text, f"config {recipe.name}: empty_text {recipe.empty_text}", mix)
    for _, features in mix.sources:
        found = features.text_features("")
        if found is not None:
            return found.float()
    raise UsageError(
        f"config {recipe.name}: no training source holds features of the empty text; "
        "add them (ShardWriter.add_text) or name a file as empty_text"
    )


def empty_text_of_file(path: Path | str, where: str) -> torch.Tensor:
    """The tensor ``empty_string_feat`` of a file, or the first item of a batch as the official file holds it."""
    try:
        content = weights.load_checkpoint(path)
    except AvBenchError as error:
        raise UsageError(f"{where}: {error}") from error
    found = content.get("empty_string_feat") if isinstance(content, Mapping) else content
    if isinstance(found, list | tuple) or (isinstance(found, torch.Tensor) and found.ndim == 3):
        found = found[0] if len(found) else None
    if not isinstance(found, torch.Tensor):
        raise UsageError(f"{where}: holds neither a tensor empty_string_feat nor a batch of features")
    return found.detach().float().clone()


def _fitting_empty_text(path: str, where: str, mix: Mix) -> torch.Tensor:
    found, shape = empty_text_of_file(path, where), mix.shapes["text"]
    if tuple(found.shape) != shape or not bool(found.isfinite().all()):
        raise UsageError(
            f"{where}: holds {tuple(found.shape)}, expected {shape}, all finite; use this network's encoder"
        )
    return found
