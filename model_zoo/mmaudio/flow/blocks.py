"""Building blocks of the flow network (MMAudio, section 3.3, Figure 2 and appendix G). Sequences are ``(B, N, C)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.mmaudio.flow.rope import rotate


class ChannelLastConv(nn.Conv1d):
    """Conv1d over the token axis of ``(B, N, C)``, zero-padded to the same length."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=(kernel - 1) // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, inputs)`` -> ``(B, N, outputs)``."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def project(inputs: int, outputs: int, kernel: int | None, bias: bool) -> nn.Module:
    """A linear layer, or a convolution over tokens when ``kernel`` is given."""
    return nn.Linear(inputs, outputs, bias) if kernel is None else ChannelLastConv(inputs, outputs, kernel, bias)


class GatedMLP(nn.Module):
    """SwiGLU, ``w2(silu(w1 x) * w3 x)`` without biases; with a kernel, the ConvMLP of the paper.

    The hidden width is two thirds of the requested one, rounded up to a multiple of 256 (published code).
    """

    def __init__(self, dim: int, requested: int, kernel: int | None = None, multiple: int = 256) -> None:
        super().__init__()
        hidden = -(-int(2 * requested / 3) // multiple) * multiple
        self.w1 = project(dim, hidden, kernel, bias=False)
        self.w2 = project(hidden, dim, kernel, bias=False)
        self.w3 = project(dim, hidden, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> ``(..., dim)``."""
        result: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return result


class TimeEmbedding(nn.Module):
    """Sinusoids of t in [0, 1], then two linear layers. Version 2 uses wider sinusoids of higher frequency."""

    freqs: Tensor

    def __init__(self, hidden: int, v2: bool) -> None:
        super().__init__()
        width, top = (hidden, 10_000.0) if v2 else (256, 1.0)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width
        # Divided, not raised to a negative power: at version 2's angles of up to 10,000 the last bit of it counts.
        freqs = top / 10_000.0**exponents
        self.register_buffer("freqs", freqs.to(torch.get_default_device()), persistent=False)

    def sinusoids(self, t: Tensor) -> Tensor:
        """``(B,)`` -> ``(B, width)``, cosines first, in float32."""
        angles = t.float()[:, None] * self.freqs.float()
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        """``(B,)`` -> ``(B, hidden)``."""
        result: Tensor = self.mlp(self.sinusoids(t).to(t.dtype))
        return result


class SelfAttentionInputs(nn.Module):
    """Queries, keys and values of one stream, normalised per head and turned by their positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = nn.RMSNorm(dim // heads), nn.RMSNorm(dim // heads)

    def forward(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, dim)`` -> three ``(B, heads, N, head_dim)``.

        In the fused layer q, k and v alternate per channel (head, channel, one of three).
        """
        q, k, v = self.qkv(x).unflatten(-1, (self.heads, -1, 3)).permute(4, 0, 2, 1, 3).unbind(0)
        q, k = self.q_norm(q.float()), self.k_norm(k.float())  # one type for input and weight: one fused operation
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return q.to(v.dtype), k.to(v.dtype), v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without mask; ``(B, heads, N, d)`` -> ``(B, N, heads * d)``.

    Fused kernels want the channels of a token side by side, and q, k and v alternate where they come from.
    """
    return functional.scaled_dot_product_attention(q, k, v.contiguous()).transpose(1, 2).flatten(2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm's affine part."""
    return x * (1 + scale) + shift


class StreamBlock(nn.Module):
    """One stream's part of a block: before attention, and after it (DiT, arXiv 2212.09748).

    ``last`` streams only feed the attention: their own output is not used any more.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        kernel: int | None,
        ffn: Literal["conv", "mlp"],
        last: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attn = SelfAttentionInputs(dim, heads)
        self.last = last
        if not last:
            self.linear1 = project(dim, dim, kernel, bias=True)
            self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
            self.ffn = GatedMLP(dim, int(dim * mlp_ratio), kernel if ffn == "conv" else None)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, (2 if last else 6) * dim))

    def before(
        self, x: Tensor, c: Tensor, rotation: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Queries, keys, values, and what ``after`` needs; ``c`` is ``(B, 1 or N, dim)``."""
        shift, scale, *rest = self.adaLN_modulation(c).chunk(2 if self.last else 6, dim=-1)
        return self.attn(modulate(self.norm1(x), shift, scale), rotation), rest

    def after(self, x: Tensor, attended: Tensor, rest: Sequence[Tensor]) -> Tensor:
        """Both residual steps; ``x`` unchanged in a ``last`` stream."""
        if self.last:
            return x
        gate1, shift, scale, gate2 = rest
        x = x + self.linear1(attended) * gate1
        result: Tensor = x + self.ffn(modulate(self.norm2(x), shift, scale)) * gate2
        return result

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor | None) -> Tensor:
        """The stream on its own: an audio-only block."""
        qkv, rest = self.before(x, c, rotation)
        return self.after(x, attend(*qkv), rest)


class JointBlock(nn.Module):
    """Audio, visual and text stream with one attention over all tokens (MM-DiT, arXiv 2403.03206)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, ffn: Literal["conv", "mlp"], last: bool) -> None:
        super().__init__()
        kernel = 3 if ffn == "conv" else None
        self.latent_block = StreamBlock(dim, heads, mlp_ratio, kernel, ffn)
        self.clip_block = StreamBlock(dim, heads, mlp_ratio, kernel, ffn, last)
        self.text_block = StreamBlock(dim, heads, mlp_ratio, None, "mlp", last)

    def forward(
        self,
        latent: Tensor,
        clip: Tensor,
        text: Tensor,
        global_c: Tensor,
        extended_c: Tensor,
        latent_rotation: Tensor | None,
        clip_rotation: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three streams in, three out; only the audio stream sees the per-token condition."""
        first, rest1 = self.latent_block.before(latent, extended_c, latent_rotation)
        second, rest2 = self.clip_block.before(clip, global_c, clip_rotation)
        third, rest3 = self.text_block.before(text, global_c, None)
        q, k, v = (torch.cat(parts, dim=2) for parts in zip(first, second, third, strict=True))
        sizes = [latent.shape[1], clip.shape[1], text.shape[1]]
        for_latent, for_clip, for_text = torch.split(attend(q, k, v), sizes, dim=1)
        return (
            self.latent_block.after(latent, for_latent, rest1),
            self.clip_block.after(clip, for_clip, rest2),
            self.text_block.after(text, for_text, rest3),
        )


class FinalLayer(nn.Module):
    """To velocity. Fed the global condition, not the per-token one, as every released weight expects."""

    def __init__(self, dim: int, latent_dim: int, kernel: int | None) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.conv = project(dim, latent_dim, kernel, bias=True)

    def forward(self, latent: Tensor, c: Tensor) -> Tensor:
        """``(B, N, dim)`` and ``(B, 1, dim)`` -> ``(B, N, latent_dim)``."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        result: Tensor = self.conv(modulate(self.norm(latent), shift, scale))
        return result
