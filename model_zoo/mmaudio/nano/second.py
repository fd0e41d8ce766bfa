"""Codec stages of the ``mmaudio-nano`` that ships, the second generation: components, vocoder, both tuned together.

The vocoder and the tuning resume from their last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from av_bench.contracts import UsageError
from model_zoo.mmaudio.codec.mel import log_mel
from model_zoo.mmaudio.nano.codec import SECOND, CodecConfig, NanoCodec, codec_header, read_codec
from model_zoo.mmaudio.nano.patches import Patches
from model_zoo.mmaudio.nano.stage_files import HOLDOUT, read_weights, save_json, save_weights
from model_zoo.mmaudio.nano.vocoder import NanoVocoder
from model_zoo.mmaudio.nano.vocoder_training import CHECKPOINTS, VocoderRecipe, log_lines, train_codec
from model_zoo.mmaudio.training import checkpoints
from model_zoo.scorers.corpus import Corpus

PATCH_SEED = 6  # of the decoder's network
COMPONENTS_FROM = 600  # scenes, spread over those that are trained on
VOCODER_RECIPE = VocoderRecipe(steps=500, holdout=HOLDOUT)
TUNE_RECIPE = replace(VOCODER_RECIPE, steps=2000, adversarial_from=1500, rate=6e-4, decoder=True, seed=8)
Say = Callable[[str], None]


def codec_stages(out: Path, data: Corpus, device: str, report: Say) -> NanoCodec:
    """Components, vocoder and their tuning, each trained or read."""
    patches = patch_stage(out, data, report)
    return tune_stage(out, data, patches, vocoder_stage(out, data, device, report), device, report)


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


def codec_log(out: Path) -> dict[str, Any]:
    """Recipes and curves of the three stages."""
    patches = json.loads((out / "patches.json").read_text())
    return {"patches": patches, "vocoder": training_log(out / "vocoder"), "tuned": training_log(out / "codec")}


def training_log(run: Path) -> dict[str, Any]:
    """Recipe and curve of a training of the vocoder."""
    found = checkpoints.load_latest(run / CHECKPOINTS)
    if found is None:
        raise UsageError(f"{run}: no checkpoint of this training is left; it says what the recipe was")
    return {**found.state, "steps": log_lines(run)}
