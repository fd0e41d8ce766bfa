"""Recipes of VAE training: the two of the paper, a tiny one, and recipes from a file.

What is published of the original training: losses (reconstruction, adversarial, KL; paper, appendix F), data (AudioSet
for 16 kHz, AudioSet and Freesound for 44.1 kHz), and from the author's answers batch 512, 300,000 steps, rate 2e-3 for
both networks and the adversary's start at step 20,001. Not published: crop length, warm-up, loss weights and Adam's
momenta. Those are the usual ones of autoencoders for latent diffusion (Rombach et al. 2022, arXiv 2112.10752) here,
and the crop is the paper's 8 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from av_bench.contracts import UsageError
from av_bench.schema import build, load_yaml, merge
from model_zoo.mmaudio.codec.mel import MELS, MelConfig
from model_zoo.mmaudio.codec.vae import VAES, VAEConfig
from model_zoo.mmaudio.training.recipe import with_changes


@dataclass(frozen=True)
class VAERecipe:
    """Everything that decides a training run but the data. Counts are steps unless said otherwise."""

    name: str
    mel: MelConfig
    vae: VAEConfig
    frames: int  # mel frames per training window
    batch: int  # windows per step, over all processes
    steps: int
    rate: float
    micro_batch: int = 0  # windows per forward pass and process, each with an adversary weight of its own; 0: all
    warmup: int = 0  # the rate rises linearly
    decay_from: int = 0  # from here on the rate falls as 1 / sqrt(step); 0: never
    betas: tuple[float, float] = (0.5, 0.9)
    kl_weight: float = 1e-6  # of the KL, summed over a window, against the absolute error, summed over a window
    adversarial: bool = True
    disc_start: int = 20_001  # first step with an adversary
    disc_weight: float = 0.5
    disc_width: int = 64
    disc_layers: int = 3
    holdout: int = 256  # last items of the data, kept for validation
    statistics_items: int = 10_000  # windows that data_mean and data_std are computed from
    log_every: int = 100
    validate_every: int = 5_000
    save_every: int = 5_000
    bf16: bool = False  # autocast on CUDA
    seed: int = 0

    def __post_init__(self) -> None:
        if self.vae.data_dim != self.mel.n_mels:
            raise UsageError(f"recipe {self.name}: VAE of {self.vae.data_dim} bins, mel of {self.mel.n_mels}")
        if self.frames % self.vae.stride or self.frames <= 0:
            raise UsageError(f"recipe {self.name}: frames {self.frames} must be a multiple of {self.vae.stride}")
        counts = ("batch", "steps", "log_every", "validate_every", "save_every", "statistics_items")
        sizes = ("disc_start", "disc_width", "disc_layers")
        wrong = [name for name in (*counts, *sizes) if vars(self)[name] < 1]
        if wrong:
            raise UsageError(f"recipe {self.name}: {', '.join(wrong)} must be positive")
        free = ("rate", "kl_weight", "disc_weight", "micro_batch", "holdout", "warmup", "decay_from", "seed")
        wrong = [name for name in free if not 0 <= vars(self)[name] < math.inf]
        if wrong:
            raise UsageError(f"recipe {self.name}: {', '.join(wrong)} must be numbers that are not negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"recipe {self.name}: betas must be two numbers in [0, 1), got {list(self.betas)}")
        if self.seed >= 2**32:
            raise UsageError(f"recipe {self.name}: seed must be below 2**32, got {self.seed}")
        if self.adversarial and min(self.frames, self.mel.n_mels) < 3 * 2**self.disc_layers:
            raise UsageError(
                f"recipe {self.name}: disc_layers {self.disc_layers} leave nothing of a mel of {self.mel.n_mels} bins "
                f"and {self.frames} frames; use fewer"
            )
        if self.save_every % self.log_every or self.validate_every % self.log_every:
            raise UsageError(f"recipe {self.name}: save_every and validate_every must be multiples of log_every")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step; the first step is 1."""
        rate = self.rate * min(1.0, step / self.warmup) if self.warmup else self.rate
        return rate * (self.decay_from / step) ** 0.5 if 0 < self.decay_from < step else rate


RECIPES = {
    "16k": VAERecipe("16k", MELS["16k"], VAES["16k"], frames=500, batch=512, steps=300_000, rate=2e-3),
    "44k": VAERecipe("44k", MELS["44k"], VAES["44k"], frames=690, batch=512, steps=300_000, rate=2e-3),
    "tiny": VAERecipe(
        "tiny",
        MELS["16k"],
        VAEConfig(data_dim=80, embed_dim=8, hidden=48, ch_mult=(1, 2)),
        frames=128,
        batch=16,
        steps=4_000,
        rate=5e-3,
        warmup=50,
        decay_from=1_000,
        kl_weight=1e-2,
        disc_start=2_001,
        disc_width=16,
        holdout=16,
        statistics_items=500,
        log_every=20,
        validate_every=200,
        save_every=200,
    ),
}
"""Recipes by name: ``16k`` and ``44k`` follow the paper, ``tiny`` trains on a CPU."""


def read_recipe(name_or_file: str | Path, changes: Sequence[str] = ()) -> VAERecipe:
    """A recipe by name, or from a YAML file: ``recipe: 16k`` and the fields that differ from it.

    ``changes``: ``key=value`` or ``key.key=value`` laid over it.
    """
    path = Path(name_or_file)
    differs: dict[str, Any] = {}
    if str(name_or_file) in RECIPES:
        base = RECIPES[str(name_or_file)]
    elif path.is_file():
        base, differs = _of_file(path)
    else:
        raise UsageError(f"{path}: neither a recipe ({', '.join(RECIPES)}) nor a YAML file")
    return build(VAERecipe, with_changes(merge(asdict(base), differs), changes), str(path))


def _of_file(path: Path) -> tuple[VAERecipe, dict[str, Any]]:
    """The recipe that a file starts from, and what it changes."""
    content = load_yaml(path)
    if not isinstance(content, Mapping) or str(content.get("recipe")) not in RECIPES:
        raise UsageError(f"{path}: expected a mapping with `recipe:` one of {', '.join(RECIPES)}, then what differs")
    return RECIPES[str(content["recipe"])], {key: value for key, value in content.items() if key != "recipe"}


def difference(old: Mapping[str, Any], recipe: VAERecipe) -> list[str]:
    """Fields of a stored recipe that decide the weights and are not those of ``recipe``."""
    free = {"name", "steps", "log_every", "validate_every", "save_every"}
    if not recipe.adversarial:
        free.add("micro_batch")  # with an adversary its weight is found for each part of a batch
    new = plain(recipe)
    return [key for key in new if key not in free and old.get(key) != new[key]]


def plain(recipe: VAERecipe) -> dict[str, Any]:
    """The recipe in plain containers, as it is written into checkpoints and logs."""
    import json

    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content
