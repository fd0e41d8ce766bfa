"""The velocity of MMAudio's flow network written down plainly, to compare with: no fused attention, nothing arranged.

It reads the modules of a ``FlowNetwork`` and follows section 3.3 of the paper line by line: every block projects its
condition, splits queries, keys and values as they come, and calls attention on them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model_zoo.mmaudio.flow.blocks import FinalLayer, JointBlock, SelfAttentionInputs, StreamBlock
from model_zoo.mmaudio.flow.network import FlowNetwork, Preprocessed

Heads = tuple[Tensor, Tensor, Tensor]


def velocity(network: FlowNetwork, latent: Tensor, t: Tensor, pre: Preprocessed) -> Tensor:
    """``(B, N, C)`` at times ``(B,)`` under projected conditions, as ``FlowNetwork.flow``."""
    x, clip, text = network.audio_input_proj(latent), pre.clip, pre.text
    everywhere = (network.global_cond_mlp(pre.pooled_clip + pre.pooled_text) + network.t_embed(t))[:, None]
    here = everywhere if pre.sync is None else everywhere + pre.sync
    for joint in network.joint_blocks:
        x, clip, text = _joint(joint, x, clip, text, everywhere, here, network)  # type: ignore[arg-type]
    for block in network.fused_blocks:
        heads, gates = _before(block, x, here, network.latent_rot)  # type: ignore[arg-type]
        x = _after(block, x, _attention(*heads), gates)  # type: ignore[arg-type]
    return _final(network.final_layer, x, everywhere)


def _joint(
    block: JointBlock, x: Tensor, clip: Tensor, text: Tensor, everywhere: Tensor, here: Tensor, network: FlowNetwork
) -> tuple[Tensor, Tensor, Tensor]:
    streams = (block.latent_block, block.clip_block, block.text_block)
    inputs = ((x, here, network.latent_rot), (clip, everywhere, network.clip_rot), (text, everywhere, None))
    prepared = [_before(stream, *given) for stream, given in zip(streams, inputs, strict=True)]
    q, k, v = (torch.cat([heads[i] for heads, _ in prepared], dim=2) for i in range(3))
    parts = _attention(q, k, v).split([x.shape[1], clip.shape[1], text.shape[1]], dim=1)
    made = [
        _after(stream, given[0], part, gates)
        for stream, given, part, (_, gates) in zip(streams, inputs, parts, prepared, strict=True)
    ]
    return made[0], made[1], made[2]


def _before(stream: StreamBlock, x: Tensor, c: Tensor, rotation: Tensor | None) -> tuple[Heads, tuple[Tensor, ...]]:
    shift, scale, *gates = stream.adaLN_modulation(c).chunk(2 if stream.last else 6, dim=-1)
    return _heads(stream.attn, stream.norm1(x) * (1 + scale) + shift, rotation), tuple(gates)


def _heads(inputs: SelfAttentionInputs, x: Tensor, rotation: Tensor | None) -> Heads:
    batch, tokens, _ = x.shape
    q, k, v = inputs.qkv(x).view(batch, tokens, inputs.heads, -1, 3).transpose(1, 2).unbind(-1)
    q, k = inputs.q_norm(q), inputs.k_norm(k)
    if rotation is not None:
        q, k = _rotated(q, rotation), _rotated(k, rotation)
    return q.to(v.dtype), k.to(v.dtype), v


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    return (rotation[:, None] * pairs).sum(dim=-1).flatten(-2).to(x.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = functional.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(len(out), out.shape[2], -1)


def _after(stream: StreamBlock, x: Tensor, attended: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
    if stream.last:
        return x
    gate1, shift, scale, gate2 = gates
    x = x + stream.linear1(attended) * gate1
    mlp = stream.ffn
    y = stream.norm2(x) * (1 + scale) + shift
    return x + mlp.w2(functional.silu(mlp.w1(y)) * mlp.w3(y)) * gate2


def _final(layer: FinalLayer, x: Tensor, c: Tensor) -> Tensor:
    shift, scale = layer.adaLN_modulation(c).chunk(2, dim=-1)
    made: Tensor = layer.conv(layer.norm(x) * (1 + scale) + shift)
    return made
