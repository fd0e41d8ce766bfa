"""Recipes of the nano networks: tagger (cross-entropy), bind (three-way contrastive), sync (offset classes).

Each recipe is a loss on a batch of corpus rows; the loop, the schedule and the log are shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from av_bench.contracts import UsageError, unknown_name
from av_bench.networks import nano
from av_bench.runtime.files import write_atomically, write_json
from model_zoo.scorers.corpus import Corpus

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ScorerRecipe:
    """Hyper-parameters of one network, kept in its training log."""

    network: str
    epochs: int
    batch: int
    rate: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 7
    pairs_per_clip: int = 6  # sync only: random crops and offsets per clip and step
    noise: float = 0.003  # audio augmentation: white noise up to this amplitude
    gain_db: float = 4.0  # audio augmentation: level up to this many dB up or down
    start: str | None = None  # bind only: its audio tower starts from this trained network's


RECIPES = {
    "nano-tagger": ScorerRecipe("nano-tagger", epochs=14, batch=32),
    "nano-bind": ScorerRecipe("nano-bind", epochs=3, batch=32, rate=1.5e-3, start="nano-tagger"),
    "nano-sync": ScorerRecipe("nano-sync", epochs=4, batch=8, rate=1.5e-3),
}


def build(name: str, classes: int) -> nn.Module:
    """The untrained network of a recipe."""
    if name not in RECIPES:
        raise UsageError(unknown_name("network", name, sorted(RECIPES)))
    return {"nano-tagger": lambda: nano.Tagger(classes), "nano-bind": nano.Bind, "nano-sync": nano.Sync}[name]()


def train(
    recipe: ScorerRecipe,
    corpus: Corpus,
    device: str = "cpu",
    report: Callable[[str], None] = print,
    save: Callable[[nn.Module, int], None] | None = None,
    start: Path | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train one network; returns it with the log (one entry per epoch: loss, seconds).

    ``start``: weights of a trained tagger whose tower the audio tower starts from.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.Generator(np.random.PCG64(recipe.seed))
    network = build(recipe.network, len(corpus.labels)).to(device).train()
    if start is not None:
        load_audio_tower(network, start)
    steps = len(corpus) // recipe.batch * recipe.epochs
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps, pct_start=0.15)
    loss_of = {"nano-tagger": tagger_loss, "nano-bind": bind_loss, "nano-sync": sync_loss}[recipe.network]
    log: list[dict[str, float]] = []
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), 0.0
        order = rng.permutation(len(corpus))[: len(corpus) // recipe.batch * recipe.batch]
        for rows in order.reshape(-1, recipe.batch):
            batch = make_batch(corpus, np.sort(rows), recipe, rng, device)
            loss = loss_of(network, batch, recipe, rng)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        entry = {
            "epoch": epoch + 1,
            "loss": total / (len(order) // recipe.batch),
            "seconds": time.perf_counter() - started,
        }
        log.append({k: round(v, 5) for k, v in entry.items()})
        report(
            f"{recipe.network} epoch {epoch + 1}/{recipe.epochs}: loss {entry['loss']:.4f}, {entry['seconds']:.0f} s"
        )
        if save is not None:
            save(network, epoch + 1)
    return network.eval(), log


def load_audio_tower(network: nn.Module, tagger: Path) -> None:
    """Copy the tower of a trained tagger into the audio tower of a Bind network."""
    from av_bench.weights.fill import fill, read

    assert isinstance(network, nano.Bind)
    state = read(tagger, "nano-tagger").below("tower.")
    fill(network.audio, state.tensors, state.source, copy=True)


def make_batch(
    corpus: Corpus,
    rows: NDArray[Any],
    recipe: ScorerRecipe,
    rng: np.random.Generator,
    device: str,
    augment: bool = True,
) -> Batch:
    """Rows of the corpus as tensors; only what the recipe's network reads."""
    batch: Batch = {"classes": torch.from_numpy(corpus.classes[rows])}
    batch["audio"] = torch.from_numpy(corpus.audio[rows].astype(np.float32) / 32767.0)
    if recipe.network == "nano-bind":
        batch["words"] = torch.from_numpy(corpus.words[rows].copy())
        batch["colour"] = torch.from_numpy(corpus.colour[rows].astype(np.float32) / 255.0)
    if recipe.network == "nano-sync":
        batch["grey"] = torch.from_numpy(corpus.grey[rows].astype(np.float32) / 255.0)
    batch = {key: value.to(device) for key, value in batch.items()}
    return _augmented(batch, recipe, rng) if augment else batch


def _augmented(batch: Batch, recipe: ScorerRecipe, rng: np.random.Generator) -> Batch:
    """Random level and noise on the audio; brightness, contrast and noise on the frames."""
    count = len(batch["classes"])

    def uniform(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
        values = torch.from_numpy(rng.uniform(low, high, count).astype(np.float32)).to(like)
        return values.view(-1, *([1] * (like.ndim - 1)))

    audio = batch["audio"]
    audio = audio * 10 ** (uniform(-recipe.gain_db, recipe.gain_db, audio) / 20)
    batch["audio"] = audio + torch.randn_like(audio) * uniform(0, recipe.noise, audio)
    for key in ("colour", "grey"):
        if key in batch:
            picture = batch[key]
            picture = picture * uniform(0.85, 1.15, picture) + uniform(-0.06, 0.06, picture)
            batch[key] = (picture + 0.01 * torch.randn_like(picture)).clamp(0, 1)
    return batch


def tagger_loss(network: nn.Module, batch: Batch, recipe: ScorerRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Cross-entropy with a little label smoothing."""
    del recipe, rng
    _, logits = network(batch["audio"])
    return F.cross_entropy(logits, batch["classes"], label_smoothing=0.02)


def bind_loss(network: nn.Module, batch: Batch, recipe: ScorerRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Symmetric InfoNCE over the three pairs of modalities."""
    del recipe, rng
    assert isinstance(network, nano.Bind)
    towers = [network.audio(batch["audio"]), network.video(batch["colour"]), network.text(batch["words"])]
    audio, video, text = (F.normalize(x, dim=1) for x in towers)
    scale = network.log_scale.exp().clamp(max=50.0)
    target = torch.arange(len(audio), device=audio.device)
    losses = []
    for first, second in ((audio, video), (audio, text), (video, text)):
        logits = scale * first @ second.T
        losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
    return losses[0] + 0.5 * losses[1] + 0.5 * losses[2]


def sync_loss(network: nn.Module, batch: Batch, recipe: ScorerRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Offset classes of random crops: the sound's crop starts later by the offset (up to half a step off the grid)."""
    assert isinstance(network, nano.Sync)
    audio, video = network.audio(batch["audio"]), network.video(batch["grey"])
    crops_v, crops_a, targets = [], [], []
    for _ in range(recipe.pairs_per_clip):
        classes = rng.integers(0, nano.CLASSES, len(audio))
        for i, target in enumerate(classes):
            offset = (int(target) - 10) * nano.LAG_STEP + int(rng.integers(-2, 3))
            start_v, start_a = crop_starts(offset, video.shape[1], rng)
            crops_v.append(video[i, start_v : start_v + nano.CROP_FRAMES])
            crops_a.append(audio[i, start_a : start_a + nano.CROP_FRAMES])
            targets.append(int(target))
    logits = network.head(torch.stack(crops_v), torch.stack(crops_a))
    return F.cross_entropy(logits, torch.tensor(targets, device=logits.device))


def crop_starts(offset: int, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Random starts (video, audio) of two crops such that an event is ``offset`` frames later in the audio crop."""
    room = frames - nano.CROP_FRAMES
    offset = int(np.clip(offset, -room, room))
    start_v = int(rng.integers(max(0, offset), room + min(0, offset) + 1))
    return start_v, start_v - offset


def save_network(network: nn.Module, path: Path) -> None:
    """Weights as safetensors, whole or not at all."""
    from safetensors.torch import save

    write_atomically(path, save({k: v.contiguous() for k, v in network.state_dict().items()}))


def save_log(
    path: Path, recipe: ScorerRecipe, clips: int, log: list[dict[str, float]], held_out: dict[str, Any]
) -> None:
    """Recipe, curve and held-out quality as JSON beside the weights."""
    content = {"recipe": asdict(recipe), "training_clips": clips, "epochs": log, "held_out": held_out}
    write_json(path, content)
