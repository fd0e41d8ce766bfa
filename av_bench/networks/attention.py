"""Attention blocks of Synchformer: plain multi-head attention and the layer that sums a set of tokens into one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, n, heads * d)`` -> ``(B, heads, n, d)``; a head is a contiguous group of channels."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled softmax attention on ``(B, heads, n, d)`` -> ``(B, n, heads * d)``; the scale is d ** -0.5."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Separate query, key and value projections; ``proj`` exists in the sync head only (the AST keeps it outside)."""

    def __init__(self, width: int, heads: int, with_proj: bool) -> None:
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width) if with_proj else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        return self.proj(attend(q, k, v))  # type: ignore[no-any-return]


class Aggregation(nn.Module):
    """One pre-norm encoder layer over ``[CLS, tokens]`` without positions; only the CLS output is kept.

    Keys are those of ``torch.nn.TransformerEncoderLayer``, plus ``cls_token``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, width)`` -> ``(B, width)``."""
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        attn = self.self_attn
        qkv = F.linear(self.norm1(x), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        # Nothing reads the other rows, so only the CLS query is computed.
        out = x[:, 0] + attn.out_proj(attend(q[:, :, :1], k, v)[:, 0])
        return out + self.linear2(F.gelu(self.linear1(self.norm2(out))))  # type: ignore[no-any-return]
