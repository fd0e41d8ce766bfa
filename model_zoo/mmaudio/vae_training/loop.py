"""Training of the VAE: reconstruction, KL and adversarial losses, on one process or many, resumable exactly.

    av-bench train vae-16k --data sounds/ --out runs/vae

Every random choice of a step is a function of (seed, step), so a run that was stopped and resumed equals an unbroken
one. Under ``torchrun`` each process takes its share of the batch and gradients are averaged; with the same seed the
result is that of one process up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from av_bench.runtime.files import lock, write_json
from model_zoo.mmaudio.codec.vae import VAE
from model_zoo.mmaudio.training import checkpoints
from model_zoo.mmaudio.training.distributed import Cluster
from model_zoo.mmaudio.training.journal import Journal
from model_zoo.mmaudio.vae_training.data import Items
from model_zoo.mmaudio.vae_training.recipes import VAERecipe, plain
from model_zoo.mmaudio.vae_training.trainer import LossTensors, VAETrainer, read_losses

CHECKPOINTS, WEIGHTS = "checkpoints", "vae.safetensors"


def train(
    recipe: VAERecipe,
    items: Items,
    out: Path,
    device: str = "cpu",
    report: Callable[[str], None] = print,
    processes: Cluster | None = None,
) -> VAE:
    """Train to ``recipe.steps``, from the newest intact checkpoint; returns the VAE, ready for ``fuse``.

    ``out`` holds ``log.jsonl`` (means since the last line), ``checkpoints`` (everything, the newest two) and in the end
    ``vae.safetensors`` (raw weights in the published layout) with ``vae.json`` (the recipe). ``processes``: those that
    train together; UsageError when they do not all see the same checkpoint.
    """
    processes = processes or Cluster(0, 1, torch.device(device))
    trainer = VAETrainer(recipe, items, device)
    out.mkdir(parents=True, exist_ok=True)
    if processes.first:
        checkpoints.sweep(out, out / CHECKPOINTS)
    found = checkpoints.load_agreed(out / CHECKPOINTS, processes)
    if found is None:
        trainer.start()
    else:
        trainer.resume(found, out / CHECKPOINTS)
        report(f"resumed at step {trainer.done}")
    journal = Journal(out, trainer.done, quiet=True) if trainer.rank == 0 else None
    try:
        _steps(trainer, out, journal, report)
    finally:
        trainer.close()
        if journal:
            journal.close()
    if journal:
        save_weights(trainer.vae, recipe, out)
    return trainer.vae


def _steps(trainer: VAETrainer, out: Path, journal: Journal | None, report: Callable[[str], None]) -> None:
    """Steps until the recipe's last one. The process with the journal validates and saves."""
    recipe = trainer.recipe
    window: list[LossTensors] = []
    started = time.perf_counter()
    while trainer.done < recipe.steps:
        window.append(trainer.step())
        step = trainer.done
        if step % recipe.log_every == 0:
            per_second = len(window) * recipe.batch / (time.perf_counter() - started)
            line = {**read_losses(window, step), "rate": recipe.rate_at(step), "windows_per_second": per_second}
            if journal and step % recipe.validate_every == 0 and recipe.holdout:
                line |= trainer.validate()
            if journal:
                journal.write(step, "train", {name: float(f"{value:.6g}") for name, value in line.items()})
                report(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in line.items()))
            window, started = [], time.perf_counter()
        if step % recipe.save_every == 0 or step == recipe.steps:
            read_losses(window, step)  # steps since the last line, which a last step may leave
            if journal:
                checkpoints.save(out / CHECKPOINTS, step, trainer.tensors(), trainer.about())


def save_weights(vae: VAE, recipe: VAERecipe, out: Path) -> None:
    """Raw weights in the published layout, and the recipe beside them."""
    from safetensors.torch import save

    from av_bench.runtime.files import write_atomically

    tensors = {key: value.detach().cpu().contiguous() for key, value in vae.state_dict().items()}
    write_atomically(out / WEIGHTS, save(tensors))
    write_json(out / "vae.json", plain(recipe))


def folder_lock(out: Path, processes: Cluster) -> AbstractContextManager[bool]:
    """The folder's lock, which the first process holds for all."""
    return lock(out / ".lock") if processes.first else nullcontext(True)
