"""The training objective of one batch, and one optimiser step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from model_zoo.mmaudio.flow import matching
from model_zoo.mmaudio.training.distributed import full_tensor, gradients_stay_local
from model_zoo.mmaudio.training.mix import Batch
from model_zoo.mmaudio.training.tuning import RateGroup, parameter_groups


@dataclass(frozen=True)
class Normaliser:
    """Latent mean and standard deviation (1, 1, C), on the training device.

    Copies of the network's own: the network may keep its parameters in slices.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __call__(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.mean) / self.std


@dataclass(frozen=True)
class Terms:
    """Squared errors of a batch: ``loss`` (B, k) at the times ``t`` (B, k), k of each sample."""

    loss: torch.Tensor
    t: torch.Tensor


class Objective(Protocol):
    """What a network is trained for."""

    def terms(self, module: nn.Module, batch: Batch) -> Terms:
        """Errors of ``module`` on a batch."""


@dataclass(frozen=True)
class Matching:
    """Flow matching: one error per sample, at the batch's t."""

    normalise: Normaliser

    def terms(self, module: nn.Module, batch: Batch) -> Terms:
        """See ``losses``."""
        return Terms(losses(module, batch, self.normalise)[:, None], batch.t[:, None])


def losses(module: nn.Module, batch: Batch, normalise: Normaliser) -> torch.Tensor:
    """Flow-matching loss per sample (B,): mean over frames and channels of the squared error of the velocity.

    The latent is drawn again from the VAE posterior, mean + std * eps, then normalised (paper, 3.1 and appendix F;
    published code). Noise sits at t = 0, data at t = 1.
    """
    rows = batch.rows
    data = normalise(rows.mean.float() + rows.std.float() * batch.eps)
    state = matching.interpolate(batch.noise, data, batch.t)
    velocity = module(
        state,
        rows.clip.float(),
        rows.sync.float(),
        rows.text.float(),
        batch.t,
        drop_video=batch.drop_video,
        drop_text=batch.drop_text,
    )
    return matching.loss_per_sample(velocity.float(), matching.target(batch.noise, data))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast, or nothing for fp32. bf16 has float32's range, so gradients need no scaling."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def gradients(
    module: nn.Module, batch: Batch, objective: Objective, precision: str = "fp32", accumulate: int = 1
) -> torch.Tensor:
    """Add the gradient of the batch's mean loss to the parameters; returns the losses (B,).

    In ``accumulate`` equal pieces; the sum equals the gradient of the whole batch up to rounding.
    """
    found = []
    pieces = batch.split(accumulate) if accumulate > 1 else [batch]
    for number, piece in enumerate(pieces):
        with gradients_stay_local(module, local=number + 1 < len(pieces)):
            with autocast(batch.t.device, precision):
                loss = objective.terms(module, piece).loss.mean(dim=1)
            (loss.mean() / len(pieces)).backward()  # type: ignore[no-untyped-call]
        found.append(loss.detach())
    return torch.cat(found)


def update(optimiser: torch.optim.Optimizer, rate: float, clip: float) -> torch.Tensor:
    """Clip the gradient to norm ``clip``, take one step at learning rate ``rate`` (times each group's ``factor``),
    forget the gradient.

    Returns the norm before clipping.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = full_tensor(nn.utils.clip_grad_norm_(parameters, clip))
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm


def adamw(
    network: nn.Module,
    rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    rates: Sequence[RateGroup] = (),
) -> torch.optim.AdamW:
    """AdamW over all trainable parameters with the fused kernel, one group (published code) unless ``rates`` differ."""
    groups = parameter_groups(network, rates)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay, betas=betas, eps=eps, fused=True)
