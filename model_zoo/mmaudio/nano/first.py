"""Codec stages of the first generation of ``mmaudio-nano``, from version 0.1: VAE, vocoder, both tuned together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from model_zoo.mmaudio.codec.vae import VAE
from model_zoo.mmaudio.nano.codec import FIRST, NanoCodec
from model_zoo.mmaudio.nano.first_training import TUNE_RECIPE, VocoderRecipe, train_vocoder, tune_codec
from model_zoo.mmaudio.nano.stage_files import HOLDOUT, read_weights, save_json, save_weights
from model_zoo.mmaudio.nano.vocoder_training import log_lines
from model_zoo.mmaudio.vae_training.recipes import RECIPES, VAERecipe
from model_zoo.scorers.corpus import Corpus

assert FIRST.vae is not None
VAE_RECIPE = replace(
    RECIPES["tiny"], name="nano", mel=FIRST.mel, vae=FIRST.vae, frames=200, batch=16, steps=2_000, rate=5e-3,
    decay_from=800, kl_weight=3e-2, adversarial=False, holdout=HOLDOUT,
)  # fmt: skip
Say = Callable[[str], None]


def codec_stages(out: Path, data: Corpus, device: str, report: Say) -> NanoCodec:
    """VAE, vocoder and their tuning, each trained or read."""
    vae = vae_stage(out, data, device, report)
    return tune_stage(out, data, vocoder_stage(out, data, vae, device, report), device, report)


def vae_stage(out: Path, data: Corpus, device: str, report: Say, recipe: VAERecipe = VAE_RECIPE) -> VAE:
    """Train the VAE, resume its training, or read it."""
    from model_zoo.mmaudio.vae_training.loop import train

    file = out / "vae" / "vae.safetensors"
    if not file.is_file():
        train(recipe, data.audio, out / "vae", device, report)
    vae = VAE(recipe.vae)
    read_weights(vae, file)
    return vae.to(device).eval()


def vocoder_stage(
    out: Path, data: Corpus, vae: VAE, device: str, report: Say, recipe: VocoderRecipe | None = None
) -> NanoCodec:
    """Train the vocoder on the VAE's mels, or read it; returns the whole codec, not yet tuned."""
    recipe = recipe or VocoderRecipe(holdout=HOLDOUT)
    file = out / "vocoder.safetensors"
    if not file.is_file():
        vocoder, log = train_vocoder(recipe, data.audio, vae, device, report)
        save_weights(vocoder, file)
        save_json(out / "vocoder.json", {"recipe": asdict(recipe), "clips": len(data), "steps": log})
    codec = NanoCodec()
    read_weights(codec.vocoder, file)
    codec.vae.load_state_dict(vae.state_dict())
    return codec.to(device).eval()


def tune_stage(
    out: Path, data: Corpus, codec: NanoCodec, device: str, report: Say, recipe: VocoderRecipe = TUNE_RECIPE
) -> NanoCodec:
    """Train decoder and vocoder together, or read them."""
    file = out / "codec.safetensors"
    if not file.is_file():
        part = out / "codec.part.safetensors"  # to listen to meanwhile
        log = tune_codec(recipe, data.audio, codec, device, report, lambda c, _: save_weights(c, part))
        save_weights(codec, file)
        part.unlink(missing_ok=True)
        save_json(out / "codec.json", {"recipe": asdict(recipe), "clips": len(data), "steps": log})
    tuned = NanoCodec()
    read_weights(tuned, file)
    return tuned.to(device).eval()


def codec_log(out: Path) -> dict[str, Any]:
    """Recipes and curves of the three stages."""
    vae = {**json.loads((out / "vae" / "vae.json").read_text()), "steps_logged": log_lines(out / "vae")}
    stages = {name: json.loads((out / f"{name}.json").read_text()) for name in ("vocoder", "codec")}
    return {"vae": vae, "vocoder": stages["vocoder"], "tuned": stages["codec"]}
