"""Training of the feature networks on scene parameters of ``impacts`` train."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model_zoo.mmaudio.nano.encoders import FORMS, FRAME_RATE, KINDS, MATERIALS, TEXT_LENGTH, Sight, attributes
from model_zoo.scorers.corpus import Corpus, Split

DECAY = 0.15  # s, of the level after a contact


@dataclass(frozen=True)
class SightRecipe:
    """Hyper-parameters of the run, kept in its log."""

    epochs: int = 2  # of Motion
    look_epochs: int = 6  # of Look and Words
    batch: int = 8
    rate: float = 2e-3
    weight_decay: float = 1e-2
    motion_frames: int = 100  # of 200 in a row, drawn anew at every step
    look_frames: int = 4  # of 16, likewise
    contact_weight: float = 6.0  # of a frame with a contact, in the cross-entropy
    holdout: int = 96  # last scenes, kept for the report (those of the other stages, and some more)
    seed: int = 7


@dataclass(frozen=True)
class Truth:
    """Targets of all scenes: contact, place, speed, level float32 ``(n, 200)``; classes int64 ``(n, 4)`` of material,
    kind, form and head (-1: no head to be seen); log size float32 ``(n,)``; onsets in seconds per scene."""

    contact: NDArray[np.float32]
    place: NDArray[np.float32]
    speed: NDArray[np.float32]
    level: NDArray[np.float32]
    classes: NDArray[np.int64]
    size: NDArray[np.float32]
    onsets: tuple[tuple[float, ...], ...]


def truth(split: Split, count: int, frames: int = 200) -> Truth:
    """Targets of the first ``count`` scenes of a split."""
    from protocols.impacts.scene import sample_scene

    per_frame = np.zeros((4, count, frames), np.float32)
    classes, size, onsets = np.zeros((count, 4), np.int64), np.zeros(count, np.float32), []
    times = np.arange(frames) / FRAME_RATE
    for i in range(count):
        scene = sample_scene(split, i)
        contacts = [(t, v) for track in scene.tracks for t, v in zip(track.times, track.speeds, strict=True)]
        fastest = max(v for _, v in contacts)
        for time_, speed in contacts:
            frame = min(round(time_ * FRAME_RATE), frames - 1)
            per_frame[:3, i, frame] = 1.0, time_ * FRAME_RATE - frame, speed / fastest
            since = times - time_ + 0.5 / FRAME_RATE
            left = np.where(since >= 0, speed / fastest * np.exp(-np.maximum(since, 0) / DECAY), 0)
            per_frame[3, i] = np.maximum(per_frame[3, i], left)
        head = scene.head if scene.kind != "drop" else -1
        classes[i] = MATERIALS.index(scene.material), KINDS.index(scene.kind), FORMS.index(scene.form), head
        size[i] = np.log(scene.size)
        onsets.append(scene.onsets)
    contact, place, speed_, level = per_frame
    return Truth(contact, place, speed_, level, classes, size, tuple(onsets))


def train_sight(
    recipe: SightRecipe,
    corpus: Corpus,
    targets: Truth,
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> tuple[Sight, list[dict[str, float]]]:
    """Train Motion, then Look and Words; returns them with the log (one entry per epoch)."""
    torch.manual_seed(recipe.seed)
    sight = Sight().to(device).train()
    log: list[dict[str, float]] = []
    parts: tuple[tuple[StepLoss, nn.Module, int, str], ...] = (
        (motion_loss, sight.motion, recipe.epochs, "motion"),
        (look_loss, nn.ModuleList([sight.look, sight.words]), recipe.look_epochs, "look_and_words"),
    )
    for step_loss, networks, epochs, name in parts:
        rng = np.random.default_rng(recipe.seed)
        count = len(corpus) - recipe.holdout
        steps = count // recipe.batch * epochs
        optimiser = torch.optim.AdamW(networks.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps, pct_start=0.15)
        for epoch in range(1, epochs + 1):
            started, total = time.perf_counter(), 0.0
            order = rng.permutation(count)[: count // recipe.batch * recipe.batch].reshape(-1, recipe.batch)
            for rows in order:
                loss = step_loss(sight, corpus, targets, np.sort(rows), recipe, rng, device)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(networks.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                total += float(loss.detach())
            seconds = time.perf_counter() - started
            log.append({"epoch": epoch, name: round(total / len(order), 4), "seconds": round(seconds, 1)})
            report(f"sight {log[-1]}")
    return sight, log


StepLoss = Callable[[Sight, Corpus, Truth, NDArray[Any], SightRecipe, np.random.Generator, str], Tensor]


def motion_loss(
    sight: Sight,
    corpus: Corpus,
    targets: Truth,
    rows: NDArray[Any],
    recipe: SightRecipe,
    rng: np.random.Generator,
    device: str,
) -> Tensor:
    """Loss of Motion on a window of some scenes: contact, its place and speed, the level; a little of the class."""
    start = int(rng.integers(0, corpus.grey.shape[1] - recipe.motion_frames + 1))
    window = slice(start, start + recipe.motion_frames)
    grey = _varied(torch.from_numpy(corpus.grey[rows, window]).to(device), rng)
    answers, about_motion = sight.motion.heads(sight.motion(grey))
    contact, place, speed, level = (
        torch.from_numpy(array[rows, window]).to(device)
        for array in (targets.contact, targets.place, targets.speed, targets.level)
    )
    here = 1 + (recipe.contact_weight - 1) * contact
    hits = contact.sum().clamp(min=1)
    loss = F.binary_cross_entropy_with_logits(answers.contact, contact, here)
    loss = loss + 0.5 * ((answers.place - place).abs() * contact).sum() / hits
    loss = loss + 0.5 * ((answers.speed - speed).square() * contact).sum() / hits
    loss = loss + 0.5 * (answers.level - level).square().mean()
    return loss + 0.05 * attribute_loss(about_motion, *_attributes(targets, rows, device))


def look_loss(
    sight: Sight,
    corpus: Corpus,
    targets: Truth,
    rows: NDArray[Any],
    recipe: SightRecipe,
    rng: np.random.Generator,
    device: str,
) -> Tensor:
    """Losses of Look and Words: the scene's attributes."""
    picks = np.sort(rng.choice(corpus.colour.shape[1], recipe.look_frames, replace=False))
    colour = _varied(torch.from_numpy(corpus.colour[rows][:, picks]).to(device), rng)
    ids = torch.from_numpy(corpus.words[rows][:, :TEXT_LENGTH].copy()).to(device)
    known = _attributes(targets, rows, device)
    look = attribute_loss(sight.look.heads(sight.look(colour)), *known)
    return look + attribute_loss(sight.words.heads(sight.words(ids)), *known)


def _attributes(targets: Truth, rows: NDArray[Any], device: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(targets.classes[rows]).to(device), torch.from_numpy(targets.size[rows]).to(device)


def attribute_loss(logits: Tensor, classes: Tensor, size: Tensor) -> Tensor:
    """Cross-entropies of material, kind, form and head, and the squared error of the log size."""
    where = attributes()
    loss = (logits[:, where["size"]][:, 0] - size).square().mean() * 4
    for column, name in enumerate(("material", "kind", "form", "head")):
        known = classes[:, column] >= 0
        if bool(known.any()):
            loss = loss + F.cross_entropy(logits[known][:, where[name]], classes[known, column], label_smoothing=0.02)
    return loss


def _varied(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """uint8 ``(B, n, ...)`` -> [0, 1] with random brightness, contrast, mirroring and noise per clip."""
    shape = (-1, *([1] * (frames.ndim - 1)))

    def draw(low: float, high: float) -> Tensor:
        values = rng.uniform(low, high, len(frames)).astype(np.float32)
        return torch.from_numpy(values).to(frames.device).view(shape)

    out = frames.float() / 255.0 * draw(0.85, 1.15) + draw(-0.06, 0.06)
    mirror = torch.from_numpy(rng.uniform(size=len(frames)) < 0.5).to(frames.device).view(shape)
    out = torch.where(mirror, out.flip(-1), out)
    return (out + 0.01 * torch.randn_like(out)).clamp(0, 1)


def _unit(frames: NDArray[np.uint8], device: str) -> Tensor:
    """uint8 frames in [0, 1]; a copy, because the corpus is mapped read-only."""
    return torch.from_numpy(frames.copy()).to(device).float() / 255.0


@torch.no_grad()
def fit_statistics(sight: Sight, corpus: Corpus, count: int = 256, device: str = "cpu") -> None:
    """Mean and deviation of the tokens over the first ``count`` scenes, stored in the networks."""
    sight.eval()
    parts = [slice(start, start + 16) for start in range(0, min(count, len(corpus)), 16)]
    for name, array, network in (("motion", corpus.grey, sight.motion), ("look", corpus.colour, sight.look)):
        tokens = torch.cat([network(_unit(array[p], device)).flatten(0, 1) for p in parts])
        sight.get_buffer(f"{name}_mean").copy_(tokens.mean(dim=0))
        sight.get_buffer(f"{name}_std").copy_(tokens.std(dim=0).clamp(min=1e-3))


@torch.no_grad()
def report_on(
    sight: Sight, corpus: Corpus, targets: Truth, rows: NDArray[Any], device: str = "cpu"
) -> dict[str, float]:
    """Quality on some scenes: strict onset F1 of the frames' answers, and shares of right attributes."""
    from av_bench.metrics.onset import match_onsets

    sight.eval()
    where, f1, errors = attributes(), [], []
    right: dict[str, list[float]] = {}
    for row in rows:
        tokens = sight.motion(_unit(corpus.grey[row : row + 1], device))
        answers, _ = sight.motion.heads(tokens)
        times, strength = contacts(answers.contact[0], answers.place[0])
        scores = match_onsets(times, strength, targets.onsets[row], "strict")
        f1.append(scores.f1 or 0.0)
        errors += [float(np.abs(times - t).min()) for t in targets.onsets[row] if len(times)]
        look = sight.look.heads(sight.look(_unit(corpus.colour[row : row + 1], device)))
        ids = torch.from_numpy(corpus.words[row : row + 1, :TEXT_LENGTH].copy()).to(device)
        words = sight.words.heads(sight.words(ids))
        for source, logits in (("look", look), ("words", words)):
            for column, name in enumerate(("material", "kind", "form")):
                hit = int(logits[0, where[name]].argmax()) == targets.classes[row, column]
                right.setdefault(f"{source}_{name}", []).append(float(hit))
    shares = {key: round(float(np.mean(values)), 4) for key, values in right.items()}
    return {"onset_f1": round(float(np.mean(f1)), 4), "median_error_s": round(float(np.median(errors)), 4), **shares}


def contacts(logits: Tensor, place: Tensor, threshold: float = 0.5) -> tuple[NDArray[Any], NDArray[Any]]:
    """Contact times (s) and probabilities of one clip: peaks of the logits ``(n,)`` moved by their place ``(n,)``."""
    probability = torch.sigmoid(logits)
    neighbours = F.max_pool1d(probability[None, None], 3, 1, 1)[0, 0]
    peaks = torch.nonzero((probability >= neighbours) & (probability > threshold))[:, 0]
    times = ((peaks + place[peaks].clamp(-0.5, 0.5)) / FRAME_RATE).clamp(min=0)
    return times.cpu().double().numpy(), probability[peaks].cpu().double().numpy()
