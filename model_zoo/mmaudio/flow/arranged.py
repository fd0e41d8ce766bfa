"""The flow network arranged for sampling: the same velocity from fewer and larger operations.

What does not depend on the time is computed once per sample. Equal rows of the per-token condition (sync features are
repeated to the latent's rate, and empty ones repeat themselves) are projected once. Queries, keys and values of all
streams are normalised and turned together, with the norms' weights inside the table of the rotation. The halves of a
SwiGLU are one layer, and short convolutions are ``TiledConv`` on a CPU. Values differ from ``FlowNetwork.flow`` by
rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.mmaudio.flow.blocks import (
    ChannelLastConv,
    FinalLayer,
    GatedMLP,
    JointBlock,
    SelfAttentionInputs,
    StreamBlock,
    project,
)
from model_zoo.mmaudio.flow.products import How, Product, TiledConv
from model_zoo.mmaudio.flow.ready import Ready

_SCALES = (1, 4)  # of shift, scale, gate, shift, scale, gate: those that 1 is added to
Modulation = Sequence[Tensor]


def _layer(module: nn.Module, how: How) -> nn.Module:
    """A linear layer or a convolution over tokens, arranged."""
    if not isinstance(module, ChannelLastConv):
        linear = cast(nn.Linear, module)
        return Product(linear.weight, linear.bias, how)
    return module.to(how.kind) if how.tile is None else TiledConv(module.weight, module.bias, how.tile, how)


class JoinedMLP(nn.Module):
    """``GatedMLP`` whose first and third layer are one."""

    def __init__(self, mlp: GatedMLP, how: How) -> None:
        super().__init__()
        first, third = cast(nn.Linear, mlp.w1), cast(nn.Linear, mlp.w3)  # or convolutions
        weight = torch.cat([first.weight.detach(), third.weight.detach()])
        outputs, inputs, *taps = weight.shape
        with torch.device("meta"):
            both = project(inputs, outputs, taps[0] if taps else None, bias=False)
        both.weight = nn.Parameter(weight, requires_grad=False)
        self.w13, self.w2 = _layer(both, how), _layer(mlp.w2, how)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, dim)`` -> ``(B, N, dim)``."""
        a, b = self.w13(x).chunk(2, dim=-1)
        result: Tensor = self.w2(functional.silu(a) * b)
        return result


def _turning_order(size: int) -> Tensor:
    """Channels of a head, the first of every pair that turns before the second ones."""
    return torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])


def _projection(attn: SelfAttentionInputs, how: How) -> Product:
    """Queries, keys and values one after the other, where published weights alternate; q and k in turning order."""
    outputs = attn.qkv.out_features
    rows = torch.arange(outputs).view(attn.heads, -1, 3)
    turned = rows[:, _turning_order(rows.shape[1])]
    order = torch.cat([turned[..., 0].flatten(), turned[..., 1].flatten(), rows[..., 2].flatten()])
    order = order.to(attn.qkv.weight.device)
    return Product(attn.qkv.weight.detach()[order], attn.qkv.bias.detach()[order], how)


def _table(norms: Tensor, rotation: Tensor | None, tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines times the norms' weights ``(2, d)`` in turning order: two ``(tokens, 2, 1, d)``."""
    if rotation is None:
        still = norms.expand(tokens, 1, 2, -1).transpose(1, 2)
        return still, torch.zeros_like(still)
    cosine, sine = rotation[0, :, :, 0, 0], rotation[0, :, :, 1, 0]
    cosines, sines = torch.cat([cosine, cosine], dim=1), torch.cat([-sine, sine], dim=1)
    partners = norms.roll(norms.shape[1] // 2, dims=1)
    return (norms * cosines[:, None])[:, :, None], (partners * sines[:, None])[:, :, None]


class Attention(nn.Module):
    """Attention over the tokens of one or several streams, from their projections joined."""

    norms: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, parts: Sequence[SelfAttentionInputs]) -> None:
        super().__init__()
        self.heads = parts[0].heads
        device = parts[0].q_norm.weight.device
        order = _turning_order(parts[0].q_norm.weight.shape[0]).to(device)
        weights = [torch.stack([part.q_norm.weight, part.k_norm.weight]).detach().float()[:, order] for part in parts]
        self.register_buffer("norms", torch.stack(weights), persistent=False)  # (streams, 2, d)
        for name in ("cosine", "sine"):
            self.register_buffer(name, torch.empty(0, device=device), persistent=False)

    def set_rotations(self, rotations: Sequence[tuple[Tensor | None, int]]) -> None:
        """The rotation and the number of tokens of each stream; what is too many is not looked at."""
        tables = [_table(norms, *given) for norms, given in zip(self.norms, rotations, strict=False)]
        self.cosine, self.sine = (torch.cat(parts) for parts in zip(*tables, strict=True))

    def forward(self, projected: Tensor, wanted: int) -> Tensor:
        """``(B, N, 3 h)`` -> ``(B, wanted, h)``: what the first tokens attend to."""
        parts = projected.view(*projected.shape[:2], 3, self.heads, -1)
        size = parts.shape[-1]
        x = functional.rms_norm(parts[:, :, :2].float(), (size,))
        x = torch.addcmul(x * self.cosine, x.roll(size // 2, dims=-1), self.sine).to(projected.dtype)
        q, k, v = x[:, :wanted, 0], x[:, :, 1], parts[:, :, 2]
        return attend(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``(B, heads, N, d)`` each. A CPU's products in bf16 are faster than its fused attention; scores are small."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return torch.matmul(scores.softmax(dim=-1), v)


class Stream(nn.Module):
    """``StreamBlock`` around its attention; modulations come from outside, their scales with 1 added."""

    def __init__(self, block: StreamBlock, how: How) -> None:
        super().__init__()
        self.shape = block.norm1.normalized_shape
        self.project = _projection(block.attn, how)
        self.last = block.last
        if not block.last:
            self.linear1, self.ffn = _layer(block.linear1, how), JoinedMLP(block.ffn, how)

    def before(self, x: Tensor, modulation: Modulation) -> Tensor:
        """``(B, N, 3 h)``: queries, keys and values."""
        shift, scale, *_ = modulation
        result: Tensor = self.project(torch.addcmul(shift, functional.layer_norm(x, self.shape), scale))
        return result

    def after(self, x: Tensor, attended: Tensor, modulation: Modulation) -> Tensor:
        """Both residual steps."""
        _, _, gate1, shift, scale, gate2 = modulation
        x = torch.addcmul(x, self.linear1(attended), gate1)
        inside = torch.addcmul(shift, functional.layer_norm(x, self.shape), scale)
        return torch.addcmul(x, self.ffn(inside), gate2)


class Block(nn.Module):
    """The streams of a ``JointBlock``, or the audio stream alone."""

    def __init__(self, parts: Sequence[StreamBlock], how: How) -> None:
        super().__init__()
        self.modulate = Product(*_modulation(parts[0]), how)  # of the audio stream, whose condition differs by token
        self.attention = Attention([part.attn for part in parts])
        self.streams = nn.ModuleList(Stream(part, how) for part in parts)

    def forward(self, states: Sequence[Tensor], modulations: Sequence[Modulation]) -> list[Tensor]:
        """One state and one modulation per stream; streams that go no further come back as they were."""
        streams = [cast(Stream, stream) for stream in self.streams]
        given = list(zip(streams, states, modulations, strict=True))
        projected = [stream.before(x, modulation) for stream, x, modulation in given]
        given = [(stream, x, modulation) for stream, x, modulation in given if not stream.last]
        sizes = [x.shape[1] for _, x, _ in given]
        joined = projected[0] if len(projected) == 1 else torch.cat(projected, dim=1)
        pieces = self.attention(joined, sum(sizes)).split(sizes, dim=1)
        made = [stream.after(x, piece, m) for (stream, x, m), piece in zip(given, pieces, strict=True)]
        return [*made, *states[len(made) :]]


def _modulation(block: StreamBlock | FinalLayer) -> tuple[Tensor, Tensor]:
    """Weight and bias of a block's modulations, 1 added where they are scales."""
    layer = cast(nn.Linear, block.adaLN_modulation[1])
    bias, size = layer.bias.detach().clone(), layer.in_features
    for place in _SCALES:
        bias[place * size : (place + 1) * size] += 1
    return layer.weight.detach(), bias


def _streams(block: nn.Module) -> list[StreamBlock]:
    if isinstance(block, JointBlock):
        return [block.latent_block, block.clip_block, block.text_block]
    return [cast(StreamBlock, block)]


class Arranged(nn.Module):
    """See the module: what ``FlowNetwork.flow`` does between the embedded time and the velocity."""

    def __init__(
        self, entrance: nn.Sequential, joint: nn.ModuleList, fused: nn.ModuleList, final: FinalLayer, how: How
    ) -> None:
        """From the parts of a ``FlowNetwork``. Blocks leave their lists one by one: memory holds weights about once."""
        super().__init__()
        self.kind, self.shape = how.kind, final.norm.normalized_shape
        shared = [_modulation(part) for block in joint for part in _streams(block)[1:]]
        shared.append(_modulation(final))
        weights, biases = zip(*shared, strict=True)
        self.everywhere = Product(torch.cat(weights), torch.cat(biases), how)
        self.sizes = [len(bias) for bias in biases]
        convolution, activation, mlp = entrance
        self.enter = nn.Sequential(convolution.to(how.kind), activation, JoinedMLP(cast(GatedMLP, mlp), how))
        self.leave = final.conv.to(how.kind)
        self.blocks = nn.ModuleList()
        for blocks in (joint, fused):
            for i in range(len(blocks)):
                self.blocks.append(Block(_streams(blocks[i]), how))
                blocks[i] = nn.Identity()

    def set_rotations(self, rotations: Sequence[tuple[Tensor | None, int]]) -> None:
        """The rotation and the number of tokens of the audio, visual and text stream."""
        for block in self.blocks:
            cast(Block, block).attention.set_rotations(rotations)

    def forward(self, latent: Tensor, time: Tensor, given: Ready) -> Tensor:
        """Velocity of a latent ``(B, N, C)``; ``time`` ``(B, h)``: the embedded times."""
        everywhere = given.fixed + time
        shared = self.everywhere(functional.silu(everywhere).to(self.kind))[:, None].split(self.sizes, dim=-1)
        tokens = everywhere if given.sync is None else everywhere[given.owner] + given.sync
        tokens = functional.silu(tokens).to(self.kind)
        states, parts = [self.enter(latent.to(self.kind)), given.clip, given.text], iter(shared)
        for module in self.blocks:
            block = cast(Block, module)
            streams = len(block.streams)
            here = self._spread(block.modulate(tokens), given, states[0])
            others = [self._cut(next(parts)) for _ in range(streams - 1)]
            states = [*block(states[:streams], [here, *others]), *states[streams:]]
        shift, scale = self._cut(next(parts))
        result: Tensor = self.leave(torch.addcmul(shift, functional.layer_norm(states[0], self.shape), scale))
        return result

    def _cut(self, modulation: Tensor) -> Modulation:
        return modulation.chunk(modulation.shape[-1] // self.shape[0], dim=-1)

    def _spread(self, rows: Tensor, given: Ready, x: Tensor) -> Modulation:
        """Modulations of the distinct rows ``(U, 6 h)`` for every token of x."""
        return self._cut(rows[:, None] if given.sync is None else rows[given.place].view(*x.shape[:2], -1))
