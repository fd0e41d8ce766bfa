"""The whole recipe of ``mmaudio-nano``, stage by stage: feature networks, codec, feature shards, flow network, package.

A stage whose result lies in the folder is not done again, and vocoder, codec and flow network resume from their last
checkpoint, so a killed run is simply started again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from av_bench.contracts import UsageError
from av_bench.runtime.files import lock, write_atomically
from model_zoo.mmaudio.nano import first, second
from model_zoo.mmaudio.nano.codec import NanoCodec
from model_zoo.mmaudio.nano.encoder_training import SightRecipe, fit_statistics, report_on, train_sight, truth
from model_zoo.mmaudio.nano.encoders import Sight
from model_zoo.mmaudio.nano.stage_files import HOLDOUT, read_weights, save_json, save_weights, write_half
from model_zoo.mmaudio.nano.vocoder_training import log_lines
from model_zoo.scorers.corpus import Corpus, corpus

if TYPE_CHECKING:
    from model_zoo.mmaudio.training.recipe import FlowRecipe

CLIPS = 2400
FEWEST = max(SightRecipe().holdout, HOLDOUT) + 32  # what is held out, and two batches of 16 to train on
Say = Callable[[str], None]
Generation = Literal[1, 2]
CONFIGS: dict[Generation, str] = {1: "nano1", 2: "nano"}  # of the flow network


def train_nano(
    out: Path,
    *,
    clips: int = CLIPS,
    corpus_folder: Path | None = None,
    device: str = "cpu",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    generation: Generation = 2,
    changes: tuple[str, ...] = (),
    report: Say = print,
) -> Path:
    """All stages; returns the folder of the package (three weight files, their logs).

    ``generation`` 2 is the one that ships. ``changes`` are ``key=value`` changes of the flow network's training config.
    ``progress`` hears how many scenes of how many are rendered. UsageError for too few clips, for a folder of the other
    generation, or when another process trains there; errors of the stages name their folder.
    """
    if clips < FEWEST:
        raise UsageError(f"mmaudio-nano: {clips} clips are too few, the stages need {FEWEST} or more; use {CLIPS}")
    config, codecs = CONFIGS[generation], first if generation == 1 else second
    flow_recipe(out / "features", config, changes, device)  # a wrong key or device is said before hours of work
    with lock(out / ".lock") as mine:
        if not mine:
            raise UsageError(f"{out}: another process trains there; wait for it or choose another --out")
        _check_generation(out, generation)
        data = corpus(corpus_folder or out / "corpus", "train", clips, workers, progress)
        sight = sight_stage(out, data, device, report)
        codec = codecs.codec_stages(out, data, device, report)
        feature_stage(out, data, sight, codec, device, report)
        flow = flow_stage(out, out / "features", config, changes, device)
        return package(out, flow, generation)


def _check_generation(out: Path, generation: Generation) -> None:
    """UsageError when the folder holds a codec of the other generation."""
    if (out / ("patches.json" if generation == 1 else "vae")).exists():
        raise UsageError(f"{out}: holds the other generation of mmaudio-nano; choose another --out")


def sight_stage(out: Path, data: Corpus, device: str, report: Say, recipe: SightRecipe | None = None) -> Sight:
    """Train the feature networks, or read them."""
    recipe = recipe or SightRecipe()
    file = out / "sight.safetensors"
    if file.is_file():
        sight = Sight()
        read_weights(sight, file)
        return sight.to(device).eval()
    targets = truth("train", len(data))
    sight, log = train_sight(recipe, data, targets, device, report)
    fit_statistics(sight, data, device=device)
    held_out = report_on(sight, data, targets, np.arange(len(data) - recipe.holdout, len(data)), device)
    save_weights(sight, file)
    save_json(out / "sight.json", {"recipe": asdict(recipe), "clips": len(data), "epochs": log, "held_out": held_out})
    return sight


@torch.no_grad()
def feature_stage(
    out: Path, data: Corpus, sight: Sight, codec: NanoCodec, device: str, report: Say, batch: int = 16
) -> None:
    """Write the training and the validation shards, ``out/features/{train,val}``."""
    from model_zoo.mmaudio.features.write import Sample, ShardWriter
    from protocols.impacts.scene import sample_scene

    edge = len(data) - HOLDOUT
    for name, rows in (("train", range(edge)), ("val", range(edge, len(data)))):
        with ShardWriter(out / "features" / name, shard_size=800) as writer:
            writer.add_text("", sight.text_tokens("").cpu())
            for start in range(rows.start, rows.stop, batch):
                part = slice(start, min(start + batch, rows.stop))
                scenes = [sample_scene("train", i) for i in range(part.start, part.stop)]
                if all(scene.id in writer for scene in scenes):
                    continue
                wave = torch.from_numpy(data.audio[part].astype(np.float32) / 32767).to(device)
                mean, std = codec.encode(wave)
                clip = sight.clip_tokens(torch.from_numpy(data.colour[part].copy()).to(device))
                sync = sight.sync_tokens(torch.from_numpy(data.grey[part].copy()).to(device))
                for i, scene in enumerate(scenes):
                    if scene.id not in writer:
                        text = sight.text_tokens(scene.caption).cpu()
                        writer.append(Sample(scene.id, mean[i], std[i], clip[i], sync[i], scene.caption, text))
        report(f"features: {name} is complete, {len(rows)} scenes")


def flow_stage(out: Path, features: Path, config: str, changes: tuple[str, ...], device: str) -> Path:
    """Train the flow network with the package's own loop, or resume; returns the folder of its weights."""
    from model_zoo.mmaudio.training.loop import train

    return train(flow_recipe(features, config, changes, device), out / "flow")


def flow_recipe(features: Path, config: str, changes: tuple[str, ...], device: str) -> FlowRecipe:
    """The flow network's training config on these features. UsageError for keys, values and devices that are wrong."""
    from model_zoo.mmaudio.training.distributed import device_of
    from model_zoo.mmaudio.training.recipe import read_recipe
    from model_zoo.mmaudio.training.setup import network_config

    parts = (("train", "train"), ("validation", "val"))
    folders = [f"data.{key}={json.dumps([{'path': str(features / part)}], ensure_ascii=False)}" for key, part in parts]
    recipe = read_recipe(config, (*folders, f"run.device={device}", *changes))
    network_config(recipe)
    device_of(recipe.run)
    return recipe


def package(out: Path, flow: Path, generation: Generation, weights: str = "ema-0.1") -> Path:
    """Bring together what is shipped: ``out/package`` with the three weight files and a log beside each. Those of the
    second generation are stored as fp16."""
    from model_zoo.mmaudio.nano.model import CODEC, FLOW, SIGHT

    folder = out / "package"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        FLOW: flow / f"{weights}.safetensors",
        CODEC: out / "codec.safetensors",
        SIGHT: out / "sight.safetensors",
    }
    for name, source in sources.items():
        if generation == 1:
            write_atomically(folder / name, source.read_bytes())
        else:
            write_half(source, folder / name)
    save_json((folder / FLOW).with_suffix(".json"), flow_log(flow.parent))
    logs = (first if generation == 1 else second).codec_log(out)
    save_json((folder / CODEC).with_suffix(".json"), logs)
    save_json((folder / SIGHT).with_suffix(".json"), json.loads((out / "sight.json").read_text()))
    return folder


def flow_log(run: Path) -> dict[str, Any]:
    """Recipe and curve of a training run of the flow network, without the machine's own paths."""
    content: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    for sources in (content["recipe"]["data"]["train"], content["recipe"]["data"]["validation"]):
        for source in sources:
            source["path"] = "/".join(Path(source["path"]).parts[-2:])
    return {**content, "log": log_lines(run)}
