"""Training of the vocoder, and of the autoencoder's decoder with it: spectral losses, later discriminators as well.

Every random choice of a step is a function of (seed, step), so a run that was stopped and resumed equals an unbroken
one.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_bench.contracts import MetricError, UsageError
from av_bench.weights.fill import fill
from model_zoo.mmaudio.codec.mel import MelConfig, log_mel
from model_zoo.mmaudio.nano.codec import NanoCodec
from model_zoo.mmaudio.nano.discriminators import Discriminators, feature_loss
from model_zoo.mmaudio.nano.spectral_loss import Weights, energy_distance, loud_error
from model_zoo.mmaudio.training import checkpoints
from model_zoo.mmaudio.training.journal import Journal
from model_zoo.mmaudio.vae_training.data import digest
from model_zoo.mmaudio.vae_training.discriminators import discriminator_loss, generator_loss

DECAY = {"vocoder": 1e-3, "decoder": 0.0, "critics": 1e-3}  # of weights
CHECKPOINTS, LOG = "checkpoints", "log.jsonl"


@dataclass(frozen=True)
class VocoderRecipe:
    """Hyper-parameters of the run, kept in its log."""

    steps: int = 1500
    batch: int = 8
    frames: int = 80  # mel frames per crop
    rate: float = 1e-3
    last_rate: float = 0.1  # of the rate, at the last step
    warmup: int = 100  # steps
    mel_weight: float = 4.0
    magnitude_weight: float = 1.0  # of the relative error of magnitudes, against that of their logarithms
    adversarial_from: int = 0  # first step with discriminators; 0: never
    adversarial_weight: float = 0.1
    feature_weight: float = 1.0
    discriminator_rate: float = 5e-4
    discriminator_width: int = 16
    decoder: bool = False  # mels of the autoencoder, whose decoder is trained too, in place of real ones
    decoder_rate: float = 1.0  # times the vocoder's
    average: float = 0.998  # per step, of the weights that are kept
    bf16: bool = True  # autocast
    holdout: int = 64
    log_every: int = 50
    save_every: int = 250
    seed: int = 7

    def rate_at(self, step: int) -> float:
        """Share of the full rate: a linear rise, then half a cosine down to ``last_rate``; the first step is 1."""
        if step < self.warmup:
            return step / self.warmup
        place = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.last_rate + (1 - self.last_rate) * (1 + math.cos(math.pi * min(1.0, place))) / 2


@dataclass(frozen=True)
class Crops:
    """Training data of a step: waves ``(B, frames hop)`` and their log-mels ``(B, n_mels, frames)``."""

    wave: Tensor
    mel: Tensor


class CodecTrainer:
    """State of a run: networks, their averages, optimisers and the number of steps done."""

    def __init__(self, recipe: VocoderRecipe, audio: NDArray[np.int16], codec: NanoCodec, device: str = "cpu") -> None:
        self.recipe, self.audio, self.device = recipe, audio, torch.device(device)
        self.codec = codec.to(self.device).eval().requires_grad_(False)
        trained: dict[str, nn.Module] = {"vocoder": codec.vocoder}
        if recipe.decoder:
            trained["decoder"] = codec.vae.decoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            critics = Discriminators(recipe.discriminator_width).to(self.device).train()
        self.trained = {k: m.train().requires_grad_(True) for k, m in trained.items()}
        self.modules = {**self.trained, "critics": critics}
        self.critics = critics
        self.averages = {name: copy.deepcopy(module).requires_grad_(False) for name, module in self.trained.items()}
        rates = {"vocoder": recipe.rate, "decoder": recipe.decoder_rate * recipe.rate}
        rates["critics"] = recipe.discriminator_rate
        self.rates = {name: rates[name] for name in self.modules}
        self.optimisers = {
            name: torch.optim.AdamW(m.parameters(), self.rates[name], (0.8, 0.95), weight_decay=DECAY[name])
            for name, m in self.modules.items()
        }
        self.weights = Weights(recipe.mel_weight, recipe.magnitude_weight)
        self.done = 0
        self.data = {"items": len(audio), "sha256": digest(audio)}

    def step(self) -> dict[str, float]:
        """One step of all networks; returns the losses. MetricError when one is not finite."""
        step, recipe = self.done + 1, self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        noise = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        crops = draw(recipe, self.audio, rng, self.codec.config.mel, self.device)
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.rates[name] * recipe.rate_at(step)
            optimiser.zero_grad(set_to_none=True)
        adversarial = 0 < recipe.adversarial_from <= step
        losses = self._backward(crops, noise, adversarial)
        self._apply(adversarial)
        found = {name: float(value.detach()) for name, value in losses.items()}
        if not all(map(math.isfinite, found.values())):
            raise MetricError(f"vocoder training: losses of step {step} are not finite; the last checkpoint is intact")
        self.done = step
        return found

    def _backward(self, crops: Crops, noise: torch.Generator, adversarial: bool) -> dict[str, Tensor]:
        """Gradients of all networks; the losses."""
        recipe, mel = self.recipe, crops.mel
        with self._autocast():
            if recipe.decoder:
                mel = self._decoded(mel, noise)
            spectrum, level = self.codec.vocoder.predict(mel)
        draws = self._draws(spectrum, level, noise)
        losses = {"spectral": energy_distance(draws, crops.wave, self.codec.config.mel, self.weights)}
        total = losses["spectral"]
        if recipe.decoder:
            losses["decoder"] = loud_error(mel, crops.mel)
            total = total + losses["decoder"]
        if adversarial:
            losses |= self._judge(draws[0], crops.wave)
            total = total + recipe.adversarial_weight * losses["adversary"] + recipe.feature_weight * losses["features"]
        total.backward()  # type: ignore[no-untyped-call]
        return losses

    def _judge(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Gradients of the discriminators, and what they say of the sound that was made."""
        seen, wanted = self.critics.pictures(made), self.critics.pictures(real)
        with self._autocast():
            maps = self.critics([torch.cat([a, b.detach()]) for a, b in zip(wanted, seen, strict=True)])
        halves = [part[-1].float().chunk(2) for part in maps]
        loss = torch.stack([discriminator_loss(*half) for half in halves]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critics.requires_grad_(False)
        with self._autocast():
            fake = self.critics(seen)
        self.critics.requires_grad_(True)
        targets = [[x.detach()[: len(real)] for x in part] for part in maps]
        adversary = torch.stack([generator_loss(part[-1].float()) for part in fake]).mean()
        return {"critics": loss.detach(), "adversary": adversary, "features": feature_loss(fake, targets)}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16)

    def _decoded(self, mel: Tensor, noise: torch.Generator) -> Tensor:
        """A log-mel through the autoencoder, its latents drawn from the posterior."""
        with torch.no_grad():
            posterior = self.codec.vae.encode(mel)
            drawn = torch.randn(posterior.mean.shape, generator=noise).to(self.device)
        return self.codec.vae.decode(posterior.sample(drawn))

    def _draws(self, spectrum: Tensor, level: Tensor | None, noise: torch.Generator) -> list[Tensor]:
        """Sound of the spectra: with two draws of the noise, or one wave where the vocoder has none."""
        vocoder = self.codec.vocoder
        if level is None:
            return [vocoder.synthesise(spectrum)]
        count, frames = spectrum.shape[0], spectrum.shape[-1]
        return [vocoder.synthesise(spectrum + level * vocoder.draw(frames, noise, count)) for _ in range(2)]

    def _apply(self, adversarial: bool) -> None:
        """Update the networks and the averages of their weights."""
        for name, module in self.modules.items():
            if name == "critics" and not adversarial:
                continue
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            self.optimisers[name].step()
        decay = min(self.recipe.average, (self.done + 1) / (self.done + 10))
        with torch.no_grad():
            for name, average in self.averages.items():
                for mean, value in zip(average.parameters(), self.trained[name].parameters(), strict=True):
                    mean.lerp_(value, 1 - decay)

    def averaged(self) -> NanoCodec:
        """The codec with the averages of what is trained, in evaluation mode."""
        codec = copy.deepcopy(self.codec)
        codec.vocoder.load_state_dict(self.averages["vocoder"].state_dict())
        if self.recipe.decoder:
            codec.vae.decoder.load_state_dict(self.averages["decoder"].state_dict())
        return codec.eval().requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a resumed run needs, by name."""
        found: dict[str, Tensor] = {}
        for kind, modules in (("now", self.modules), ("average", self.averages)):
            for name, module in modules.items():
                found |= {f"{kind}.{name}/{key}": value for key, value in module.state_dict().items()}
        return found | checkpoints.optimiser_tensors(self.optimisers)

    def about(self) -> dict[str, Any]:
        """What tells this run from others."""
        return {"recipe": asdict(self.recipe), "data": self.data}

    def resume(self, found: checkpoints.TrainingCheckpoint, where: Path) -> None:
        """Continue from a checkpoint. UsageError when it is of another recipe or other data."""
        free = {"steps", "log_every", "save_every"}
        before, ours = found.state["recipe"], asdict(self.recipe)
        changed = [key for key in ours if key not in free and before.get(key) != ours[key]]
        if changed or found.state["data"] != self.data:
            what = f"a different recipe ({', '.join(changed)})" if changed else "different data"
            raise UsageError(f"{where}: started with {what}; use another folder")
        for kind, modules in (("now", self.modules), ("average", self.averages)):
            for name, module in modules.items():
                fill(module, checkpoints.below(found.tensors, f"{kind}.{name}/"), str(where), copy=True)
        checkpoints.load_optimisers(self.optimisers, found.tensors)
        self.done = found.step


def train_codec(
    recipe: VocoderRecipe,
    audio: NDArray[np.int16],
    codec: NanoCodec,
    out: Path,
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> NanoCodec:
    """Train to ``recipe.steps``, from the newest intact checkpoint in ``out``; returns the codec with averaged weights.

    ``audio``: waves ``(n, samples)``, the last ``recipe.holdout`` left out. ``codec`` is where a new run starts; its
    encoder stays. ``out`` holds ``log.jsonl`` (means since the last line) and ``checkpoints``.
    """
    trainer = CodecTrainer(recipe, audio, codec, device)
    checkpoints.sweep(out, out / CHECKPOINTS)
    found = checkpoints.load_latest(out / CHECKPOINTS)
    if found is not None:
        trainer.resume(found, out / CHECKPOINTS)
        report(f"{out.name}: resumed at step {trainer.done}")
    journal = Journal(out, trainer.done, tensorboard=False, quiet=True)
    try:
        _steps(trainer, out, journal, report)
    finally:
        journal.close()
    return trainer.averaged()


def _steps(trainer: CodecTrainer, out: Path, journal: Journal, report: Callable[[str], None]) -> None:
    recipe = trainer.recipe
    window: list[dict[str, float]] = []
    started = time.perf_counter()
    while trainer.done < recipe.steps:
        window.append(trainer.step())
        step = trainer.done
        if step % recipe.log_every == 0 or step == recipe.steps:
            names = sorted({name for losses in window for name in losses})
            means = {name: float(np.mean([losses[name] for losses in window if name in losses])) for name in names}
            line = {**means, "seconds": time.perf_counter() - started}
            journal.write(step, "train", {name: float(f"{value:.5g}") for name, value in line.items()})
            report(f"{out.name} step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in line.items()))
            window, started = [], time.perf_counter()
        if step % recipe.save_every == 0 or step == recipe.steps:
            checkpoints.save(out / CHECKPOINTS, step, trainer.tensors(), trainer.about())


def log_lines(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / LOG).read_text(encoding="utf8").splitlines()]


def draw(
    recipe: VocoderRecipe, audio: NDArray[np.int16], rng: np.random.Generator, mel: MelConfig, device: torch.device
) -> Crops:
    """Crops at random places and levels, and their mels."""
    samples = recipe.frames * mel.hop
    rows = rng.integers(0, len(audio) - recipe.holdout, recipe.batch)
    starts = rng.integers(0, (audio.shape[1] - samples) // mel.hop + 1, recipe.batch) * mel.hop
    crops = np.stack([audio[row, start : start + samples] for row, start in zip(rows, starts, strict=True)])
    wave = torch.from_numpy(crops.astype(np.float32) / 32767).to(device)
    levels = torch.from_numpy(rng.uniform(-6, 3, (recipe.batch, 1)).astype(np.float32)).to(device)
    wave = (wave * 10 ** (levels / 20)).clamp(-1, 1)
    return Crops(wave, log_mel(wave, mel))
