"""The whole recipe of ``mmaudio-nano``, stage by stage: feature networks, codec, feature shards, flow network, package.

A stage whose result lies in the folder is not done again, and vocoder, codec and flow network resume from their last
checkpoint, so a killed run is simply started again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from av_bench.contracts import UsageError
from av_bench.runtime.files import lock, write_json
from model_zoo.mmaudio.codec.mel import log_mel
from model_zoo.mmaudio.flow.load import header_of
from model_zoo.mmaudio.nano.codec import SECOND, CodecConfig, NanoCodec, codec_header, read_codec
from model_zoo.mmaudio.nano.encoder_training import SightRecipe, fit_statistics, report_on, train_sight, truth
from model_zoo.mmaudio.nano.encoders import Sight
from model_zoo.mmaudio.nano.patches import Patches
from model_zoo.mmaudio.nano.vocoder import NanoVocoder
from model_zoo.mmaudio.nano.vocoder_training import CHECKPOINTS, VocoderRecipe, log_lines, train_codec
from model_zoo.mmaudio.training import checkpoints
from model_zoo.mmaudio.training.checkpoints import write_tensors
from model_zoo.scorers.corpus import Corpus, corpus

if TYPE_CHECKING:
    from model_zoo.mmaudio.training.recipe import FlowRecipe

CLIPS = 2400
HOLDOUT = 64  # last scenes of the corpus: never trained on by any stage
PATCH_SEED = 6  # of the decoder's network
COMPONENTS_FROM = 600  # scenes, spread over those that are trained on
VOCODER_RECIPE = VocoderRecipe(steps=500, holdout=HOLDOUT)
TUNE_RECIPE = replace(VOCODER_RECIPE, steps=2000, adversarial_from=1500, rate=6e-4, decoder=True, seed=8)
FEWEST = max(SightRecipe().holdout, HOLDOUT) + 32  # what is held out, and two batches of 16 to train on
Say = Callable[[str], None]


def train_nano(
    out: Path,
    *,
    clips: int = CLIPS,
    corpus_folder: Path | None = None,
    device: str = "cpu",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    config: str = "nano2",
    changes: tuple[str, ...] = (),
    report: Say = print,
) -> Path:
    """All stages; returns the folder of the package (three weight files, their logs).

    ``config`` is the flow network's training config, ``changes`` are ``key=value`` changes of it. ``progress`` hears
    how many scenes of how many are rendered. UsageError for too few clips, or when another process trains there; errors
    of the stages name their folder.
    """
    if clips < FEWEST:
        raise UsageError(f"mmaudio-nano: {clips} clips are too few, the stages need {FEWEST} or more; use {CLIPS}")
    flow_recipe(out / "features", config, changes, device)  # a wrong key or device is said before hours of work
    with lock(out / ".lock") as mine:
        if not mine:
            raise UsageError(f"{out}: another process trains there; wait for it or choose another --out")
        data = corpus(corpus_folder or out / "corpus", "train", clips, workers, progress)
        sight = sight_stage(out, data, device, report)
        patches = patch_stage(out, data, report)
        codec = tune_stage(out, data, patches, vocoder_stage(out, data, device, report), device, report)
        feature_stage(out, data, sight, codec, device, report)
        flow = flow_stage(out, out / "features", config, changes, device)
        return package(out, flow)


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


def patch_stage(out: Path, data: Corpus, report: Say, sizes: CodecConfig = SECOND) -> Patches:
    """Find the principal components of the mels, or read them."""
    assert sizes.patches is not None
    patches, file = Patches(sizes.patches, sizes.mel.n_mels), out / "patches.safetensors"
    if file.is_file():
        read_weights(patches, file)
        return patches.eval()
    rows = np.linspace(0, len(data) - HOLDOUT - 1, min(COMPONENTS_FROM, len(data) - HOLDOUT)).astype(np.int64)
    parts = [rows[start : start + 32] for start in range(0, len(rows), 32)]
    waves = (torch.from_numpy(data.audio[part].astype(np.float32) / 32767) for part in parts)
    torch.manual_seed(PATCH_SEED)
    patches = Patches(sizes.patches, sizes.mel.n_mels)
    share = patches.fit(log_mel(part, sizes.mel) for part in waves)
    log = {"sizes": asdict(sizes.patches), "scenes": len(rows), "share_of_variance": round(share, 4)}
    report(f"patches: {sizes.patches.latents} components hold {share:.3f} of the variance")
    save_json(out / "patches.json", log)
    save_weights(patches, file)
    return patches.eval()


def vocoder_stage(
    out: Path, data: Corpus, device: str, report: Say, recipe: VocoderRecipe = VOCODER_RECIPE,
    sizes: CodecConfig = SECOND,
) -> NanoVocoder:  # fmt: skip
    """Train the vocoder on mels of real sound, resume its training, or read it."""
    file = out / "vocoder.safetensors"
    if not file.is_file():
        torch.manual_seed(recipe.seed)
        trained = train_codec(recipe, data.audio, NanoCodec(sizes), out / "vocoder", device, report)
        save_weights(trained.vocoder, file)
    vocoder = NanoVocoder(sizes.vocoder, sizes.mel)
    read_weights(vocoder, file)
    return vocoder


def tune_stage(
    out: Path, data: Corpus, patches: Patches, vocoder: NanoVocoder, device: str, report: Say,
    recipe: VocoderRecipe = TUNE_RECIPE,
) -> NanoCodec:  # fmt: skip
    """Train decoder and vocoder together, resume that, or read them; the encoder, and so the latents, stay."""
    file = out / "codec.safetensors"
    sizes = CodecConfig(vocoder.mel, vocoder.config, patches=patches.config)
    if not file.is_file():
        codec = NanoCodec(sizes)
        codec.vae.load_state_dict(patches.state_dict())
        codec.vocoder.load_state_dict(vocoder.state_dict())
        save_weights(train_codec(recipe, data.audio, codec, out / "codec", device, report), file, codec_header(sizes))
    return read_codec(file).to(device)


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


def save_json(file: Path, content: object) -> None:
    """Write a log."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def package(out: Path, flow: Path, weights: str = "ema-0.1") -> Path:
    """Bring together what ships: ``out/package`` with the three weight files, stored as fp16, and a log beside each."""
    from model_zoo.mmaudio.nano.model import CODEC, FLOW, SIGHT

    folder = out / "package"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        FLOW: flow / f"{weights}.safetensors",
        CODEC: out / "codec.safetensors",
        SIGHT: out / "sight.safetensors",
    }
    for name, source in sources.items():
        write_half(source, folder / name)
    save_json((folder / FLOW).with_suffix(".json"), flow_log(flow.parent))
    patches = json.loads((out / "patches.json").read_text())
    logs = {"patches": patches, "vocoder": training_log(out / "vocoder"), "tuned": training_log(out / "codec")}
    save_json((folder / CODEC).with_suffix(".json"), logs)
    save_json((folder / SIGHT).with_suffix(".json"), json.loads((out / "sight.json").read_text()))
    return folder


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


def flow_log(run: Path) -> dict[str, Any]:
    """Recipe and curve of a training run of the flow network, without the machine's own paths."""
    content: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    for sources in (content["recipe"]["data"]["train"], content["recipe"]["data"]["validation"]):
        for source in sources:
            source["path"] = "/".join(Path(source["path"]).parts[-2:])
    return {**content, "log": log_lines(run)}


def training_log(run: Path) -> dict[str, Any]:
    """Recipe and curve of a training of the vocoder."""
    found = checkpoints.load_latest(run / CHECKPOINTS)
    if found is None:
        raise UsageError(f"{run}: no checkpoint of this training is left; it says what the recipe was")
    return {**found.state, "steps": log_lines(run)}
