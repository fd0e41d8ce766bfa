"""Adversarial part of the VAE's training: a patch discriminator over mels, hinge losses, the adaptive weight.

Patch discriminator: Isola et al. 2017 (arXiv 1611.07004); hinge losses and the weight that balances the gradients of
reconstruction and adversary at the decoder's last layer: Esser et al. 2021 (arXiv 2012.09841, equation 7), as the
latent-diffusion line of work, and with it Make-An-Audio 2, trains its autoencoders. Group normalisation stands in for
batch normalisation, so that a step does not depend on how the batch is split over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ADAPTIVE_LIMIT = 1e4


class PatchDiscriminator(nn.Module):
    """Normalised mel ``(B, n_mels, L)`` -> one logit per patch, ``(B, patches)``.

    ``layers`` convolutions of stride 2 (channels ``width`` doubling up to ``8 width``), one of stride 1, the logits;
    all 4 x 4. A patch of the default three layers sees 70 x 70 mel bins and frames.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        channels = [width * min(2**i, 8) for i in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(1, channels[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, (before, after) in enumerate(pairwise(channels)):
            stride = 2 if i < layers - 1 else 1
            stages += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.GroupNorm(1, after), nn.LeakyReLU(0.2)]
        stages.append(nn.Conv2d(channels[-1], 1, 4, 1, 1))
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, mel: Tensor) -> Tensor:
        """Logits: high for what looks real."""
        out: Tensor = self.stages(mel[:, None]).flatten(1)
        return out


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator, mean over patches: 0 when real logits are above 1 and fake ones below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """Loss of the generator: the negative mean logit of its output."""
    return -fake.mean()


def adaptive_weight(
    reconstruction: Tensor,
    adversary: Tensor,
    last_layer: Tensor,
    average: Callable[[list[Tensor]], None] | None = None,
) -> Tensor:
    """Norm of the reconstruction's gradient over that of the adversary's, both at ``last_layer``; a detached scalar.

    ``average`` averages the two gradients over processes, in place, before their norms are taken.
    """
    grads = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction, adversary)]
    if average is not None:
        average(grads)
    weight: Tensor = grads[0].norm() / (grads[1].norm() + 1e-4)
    return weight.clamp(0, ADAPTIVE_LIMIT).detach()
