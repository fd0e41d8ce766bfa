"""One step of VAE training, and the state of a run: networks, optimisers, steps done.

The loss is the absolute error in log-mel plus the weighted KL, both summed over a window, plus from ``disc_start`` on
the adversarial loss, weighted so that its gradient at the last layer is ``disc_weight`` times the error's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from av_bench.contracts import MetricError, UsageError
from av_bench.weights.fill import fill
from model_zoo.mmaudio.codec.vae import VAE
from model_zoo.mmaudio.training import checkpoints
from model_zoo.mmaudio.training.buckets import Buckets
from model_zoo.mmaudio.training.checkpoints import TrainingCheckpoint
from model_zoo.mmaudio.training.mix import Loader
from model_zoo.mmaudio.vae_training.data import Items, Windows, digest
from model_zoo.mmaudio.vae_training.discriminators import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)
from model_zoo.mmaudio.vae_training.recipes import VAERecipe, difference, plain

Losses = dict[str, float]
LossTensors = dict[str, Tensor]


@dataclass
class Share:
    """One process's part of a step: ``windows`` of sound or mel, and ``noise`` (n, embed_dim, latent frames)."""

    windows: Tensor
    noise: Tensor

    def pin(self) -> Share:
        """In page-locked memory."""
        return Share(self.windows.pin_memory(), self.noise.pin_memory())


class VAETrainer:
    """State of a run: networks, optimisers and the number of steps done."""

    def __init__(self, recipe: VAERecipe, items: Items, device: str = "cpu") -> None:
        self.recipe, self.windows, self.device = recipe, Windows(items, recipe), torch.device(device)
        self.rank, self.world = (int(os.environ.get(key, default)) for key, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        if recipe.batch % self.world:
            raise UsageError(f"VAE training: a batch of {recipe.batch} does not split over {self.world} processes")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.vae = VAE(recipe.vae)
            self.discriminator = PatchDiscriminator(recipe.disc_width, recipe.disc_layers)
        self.vae.to(self.device).train()
        self.discriminator.to(self.device).train()
        fused = True if self.device.type == "cuda" else None
        self.optimisers = {
            name: torch.optim.Adam(module.parameters(), recipe.rate, recipe.betas, fused=fused)
            for name, module in self._modules()
        }
        self._buckets = {name: Buckets(list(m.parameters())) for name, m in self._modules() if self.world > 1}
        self.done = 0
        self.data = {"items": len(items), "sha256": digest(items)}
        self._loader = Loader(self._share, 1, self.device.type == "cuda")  # the next steps while the device computes

    def start(self) -> None:
        """Measure the data's statistics; they become part of the VAE's weights."""
        mean, std = self.windows.statistics()
        self.vae.data_mean.copy_(mean[None, :, None])
        self.vae.data_std.copy_(std[None, :, None])

    def step(self) -> LossTensors:
        """One step on this process's share of the batch; losses are means over the whole batch, on the device.

        Nothing waits for the device: whether they are finite is asked when they are read (``read_losses``).
        """
        step, recipe = self.done + 1, self.recipe
        prepared = self._loader(step)
        windows, noise = prepared.windows, prepared.noise
        size = recipe.micro_batch or len(windows)
        adversarial = recipe.adversarial and step >= recipe.disc_start
        for optimiser in self.optimisers.values():
            optimiser.param_groups[0]["lr"] = recipe.rate_at(step)
            optimiser.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for start in range(0, len(windows), size):
            if start + size >= len(windows):
                self._send_from_now_on(adversarial)
            part = windows[start : start + size].to(self.device, non_blocking=True)
            part_noise = noise[start : start + size].to(self.device, non_blocking=True)
            fraction = len(part) / len(windows)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
                found = self._backward(self.windows.mel(part), part_noise, adversarial, fraction)
            for name, value in found.items():
                total[name] = total[name] + value * fraction if name in total else value * fraction
        losses = self._apply(total, adversarial)
        self.done = step
        return losses

    def close(self) -> None:
        """Stop preparing batches."""
        self._loader.close()

    def _share(self, step: int) -> Share:
        share = slice(self.rank, None, self.world)
        return Share(self.windows.batch(step, share), self._noise(step, self.recipe.batch)[share])

    def _noise(self, step: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        frames = self.recipe.frames // self.recipe.vae.stride
        return torch.randn(count, self.recipe.vae.embed_dim, frames, generator=generator)

    def _backward(self, mel: Tensor, noise: Tensor, adversarial: bool, share: float) -> dict[str, Tensor]:
        """Gradients of both networks from one part of the batch; losses per window, detached."""
        posterior = self.vae.encode(mel)
        output = self.vae.decode(posterior.sample(noise))
        reconstruction = (output - mel).abs().sum((1, 2)).mean()
        kl = posterior.kl().mean()
        loss = reconstruction + self.recipe.kl_weight * kl
        found = {"l1": reconstruction.detach() / mel[0].numel(), "kl": kl.detach() / noise[0].numel()}
        if adversarial:
            self.discriminator.requires_grad_(False)
            adversary = generator_loss(self.discriminator(self._normalized(output)))
            last = self.vae.decoder.conv_out.weight
            balance = adaptive_weight(reconstruction, adversary, last, _average if self.world > 1 else None)
            loss = loss + self.recipe.disc_weight * balance * adversary
            found |= {"adversary": adversary.detach(), "balance": balance}
        (loss * share).backward()  # type: ignore[no-untyped-call]
        if adversarial:
            self.discriminator.requires_grad_(True)
            real, fake = (self.discriminator(self._normalized(x)) for x in (mel, output.detach()))
            hinge = discriminator_loss(real, fake)
            (hinge * share).backward()  # type: ignore[no-untyped-call]
            found["discriminator"] = hinge.detach()
        return found

    def _normalized(self, mel: Tensor) -> Tensor:
        return (mel - self.vae.data_mean) / self.vae.data_std

    def _send_from_now_on(self, adversarial: bool) -> None:
        """The last backward passes of a step are at hand: what they complete is sent while they continue."""
        if self.world > 1:
            self._buckets["vae"].start()
            if adversarial:
                self._buckets["discriminator"].start()

    def _apply(self, total: dict[str, Tensor], adversarial: bool) -> LossTensors:
        """Average over processes, update the networks."""
        names = sorted(total)
        values = torch.stack([total[name].float() for name in names])
        if self.world > 1:
            _average([values])
        for name in self.optimisers:
            if name == "vae" or adversarial:
                if self.world > 1:
                    self._buckets[name].finish()
                self.optimisers[name].step()
        return dict(zip(names, values.unbind(), strict=True))

    @torch.no_grad()
    def validate(self) -> Losses:
        """Mean absolute error in log-mel of the held-out windows, decoded from the posterior's mean."""
        held_out, total, size = self.windows.held_out(), 0.0, self.recipe.micro_batch or 32
        self.vae.eval()
        for start in range(0, len(held_out), size):
            mel = self.windows.mel(held_out[start : start + size].to(self.device))
            total += float((self.vae.decode(self.vae.encode(mel).mean) - mel).abs().mean((1, 2)).sum())
        self.vae.train()
        return {"validation_l1": total / len(held_out)}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a resumed run needs, by name."""
        found: dict[str, Tensor] = {}
        for name, module in self._modules():
            found |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        return found | checkpoints.optimiser_tensors(self.optimisers)

    def about(self) -> dict[str, Any]:
        """What tells this run from others."""
        return {"recipe": plain(self.recipe), "data": self.data}

    def resume(self, found: TrainingCheckpoint, where: Path) -> None:
        """Continue from a checkpoint. UsageError when it is of another recipe (the fields are named), of other data, or
        of a later step than the recipe's last."""
        changed = difference(found.state["recipe"], self.recipe)
        if changed:
            raise UsageError(
                f"{where}: started with a different recipe ({', '.join(changed)} differ); use another folder"
            )
        before = found.state["data"]
        if before != self.data:
            counts = f"{before['items']} items then, {self.data['items']} now"
            what = f"({counts})" if before["items"] != self.data["items"] else "of the same number of items"
            raise UsageError(f"{where}: started with different data {what}; bring the data back, or use another folder")
        if found.step > self.recipe.steps:
            raise UsageError(f"{where}: already at step {found.step}, the recipe ends at {self.recipe.steps}")
        for name, module in self._modules():
            fill(module, checkpoints.below(found.tensors, f"{name}/"), str(where), copy=True)
        checkpoints.load_optimisers(self.optimisers, found.tensors)
        self.done = found.step

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        return ("vae", self.vae), ("discriminator", self.discriminator)


def read_losses(window: Sequence[LossTensors], last: int) -> Losses:
    """Means of the losses of the steps up to ``last``, each over the steps that have it. MetricError when one is not
    finite: nothing of these steps may be saved."""
    names = sorted({name for losses in window for name in losses})
    rows = {name: torch.stack([losses[name] for losses in window if name in losses]) for name in names}
    values = {name: row.tolist() for name, row in rows.items()}
    wrong = [name for name, row in values.items() if not all(map(math.isfinite, row))]
    if wrong:
        raise MetricError(
            f"VAE training: losses are not finite at or before step {last} ({', '.join(wrong)}); the last checkpoint "
            "is from before it. Lower the rate, or look at the data"
        )
    return {name: sum(row) / len(row) for name, row in values.items()}


def _average(tensors: list[Tensor]) -> None:
    """Mean over processes, in place, one message for all tensors."""
    import torch.distributed as dist

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    pieces = torch.split(flat / dist.get_world_size(), [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))
