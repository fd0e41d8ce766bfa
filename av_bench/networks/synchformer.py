"""Synchformer, the audio-visual synchronisation network behind DeSync (Iashin et al., ICASSP 2024, arXiv 2401.16423).

Three parts, each usable alone, with the key layout of the published checkpoint (513 tensors):

* ``VideoEncoder`` (keys ``vfeat_extractor.``): Motionformer with divided space-time attention, 16 frames of
  224 x 224 per segment -> 8 tokens of 768;
* ``AudioEncoder`` (``afeat_extractor.``): Audio Spectrogram Transformer, 128 mel bins x 66 frames per segment
  -> 6 tokens of 768;
* ``SyncHead`` (``vproj.``, ``aproj.``, ``transformer.``): tokens of 14 segments of both streams -> 21 offset classes.

Segments never see each other inside the encoders. All attention is full, all GELUs are the exact erf form, all
layers are pre-norm. Three different LayerNorm epsilons are used (see the constants): a wrong one is invisible at
ordinary activation sizes and shows only when a residual stream is small.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av_bench.networks.attention import Aggregation, SelfAttention, attend, split_heads

WIDTH = 768
SEGMENTS = 14  # segments per crop: the position table of the head has 1 + 14 * 8 + 1 + 14 * 6 rows
VIDEO_TOKENS = 8  # per segment
AUDIO_TOKENS = 6  # per segment
CLASSES = 21  # offsets -2.0 ... 2.0 s in steps of 0.2 s
EPS_VIDEO = 1e-6
EPS_AUDIO = 1e-12
EPS_HEAD = 1e-5


def class_grid() -> Tensor:
    """Offset of every class in seconds, float32 ``(21,)``: -2.0, -1.8, ..., 2.0."""
    # Not linspace, whose middle value is -3e-8 on some versions of torch.
    return (torch.arange(CLASSES) - CLASSES // 2) / 5


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


# --------------------------------------------------------------------------- video


class DividedAttention(nn.Module):
    """Attention within one axis of the ``steps x places`` token grid, with a global CLS token.

    The CLS query attends to every token; a patch query attends to CLS and to the patches it shares a place with
    (``over="time"``) or a time step with (``over="space"``).
    """

    def __init__(self, width: int, heads: int, over: Literal["time", "space"]) -> None:
        super().__init__()
        self.heads, self.over = heads, over
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """``(B, 1 + steps * places, width)``, CLS first, time-major -> the same shape."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        cls = attend(q[:, :, :1], k, v)
        patches = attend(self._group(q, steps, False), self._group(k, steps, True), self._group(v, steps, True))
        patches = patches.view(len(x), -1, *patches.shape[1:])
        if self.over == "time":
            patches = patches.transpose(1, 2)
        return self.proj(torch.cat([cls, patches.flatten(1, 2)], dim=1))  # type: ignore[no-any-return]

    def _group(self, x: Tensor, steps: int, with_cls: bool) -> Tensor:
        """``(B, heads, 1 + n, d)`` -> ``(B * groups, heads, members, d)``; CLS leads every group if asked."""
        grid = x[:, :, 1:].reshape(*x.shape[:2], steps, -1, x.shape[-1])
        grid = grid.permute(0, 3, 1, 2, 4) if self.over == "time" else grid.permute(0, 2, 1, 3, 4)
        if with_cls:
            cls = x[:, None, :, :1].expand(-1, grid.shape[1], -1, -1, -1)
            grid = torch.cat([cls, grid], dim=3)
        return grid.flatten(0, 1)


class _VideoBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS_VIDEO)
        self.attn = DividedAttention(width, heads, "space")
        self.timeattn = DividedAttention(width, heads, "time")
        self.norm2 = nn.LayerNorm(width, eps=EPS_VIDEO)
        self.mlp = _Mlp(width)
        self.norm3 = nn.LayerNorm(width, eps=EPS_VIDEO)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        # The names do not follow the order: time (norm3), then space (norm1), then the MLP (norm2).
        x = x + self.timeattn(self.norm3(x), steps)
        x = x + self.attn(self.norm1(x), steps)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class _Projection(nn.Module):
    """Holder that gives a patch convolution its published name, ``proj``."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


class VideoEncoder(nn.Module):
    """Motionformer with a spatial aggregation layer; published sizes by default.

    The 2-D ``patch_embed`` is a leftover of the checkpoint's initialisation: it is loaded and never used.
    """

    def __init__(self, width: int = WIDTH, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, VIDEO_TOKENS, width))
        self.patch_embed = _Projection(nn.Conv2d(3, width, 16, 16))
        self.patch_embed_3d = _Projection(nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16)))
        self.blocks = nn.ModuleList(_VideoBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS_VIDEO)
        self.spatial_attn_agg = Aggregation(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [-1, 1], ``(B, S, 16, 3, 224, 224)`` -> ``(B, S, 8, 768)``.

        Raises ValueError when a segment is not 16 frames of 3 x 224 x 224.
        """
        if x.ndim != 6 or x.shape[2:] != (16, 3, 224, 224):
            raise ValueError(f"VideoEncoder takes (B, S, 16, 3, 224, 224), got {tuple(x.shape)}")
        batch, segments = x.shape[:2]
        tokens = self.patch_embed_3d(x.flatten(0, 1).transpose(1, 2)).flatten(2).transpose(1, 2)
        places = self.pos_embed.shape[1] - 1
        positions = self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]  # (1, 8, 196, width)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls, tokens + positions.flatten(1, 2)], dim=1)
        for block in self.blocks:
            tokens = block(tokens, VIDEO_TOKENS)
        tokens = self.norm(tokens[:, 1:]).reshape(-1, places, tokens.shape[-1])
        out: Tensor = self.spatial_attn_agg(tokens)
        return out.view(batch, segments, VIDEO_TOKENS, -1)


# --------------------------------------------------------------------------- audio


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


class _AudioLayer(nn.Module):
    """One AST layer. ``layernorm_after`` is the norm before the MLP; ``output.dense`` its second matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"attention": SelfAttention(width, heads, with_proj=False), "output": _dense(width, width)}
        )
        self.intermediate = _dense(width, 4 * width)
        self.output = _dense(4 * width, width)
        self.layernorm_before = nn.LayerNorm(width, eps=EPS_AUDIO)
        self.layernorm_after = nn.LayerNorm(width, eps=EPS_AUDIO)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention["attention"](self.layernorm_before(x))
        x = x + self.attention["output"]["dense"](attended)  # type: ignore[index]
        hidden = F.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](hidden)  # type: ignore[no-any-return]


class _AudioEmbeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + 12 * AUDIO_TOKENS, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, width, 16, stride=10)})

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](x[:, None]).flatten(2).transpose(1, 2)  # frequency-major
        lead = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(x), -1, -1)
        return torch.cat([lead, patches], dim=1) + self.position_embeddings


class _Ast(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embeddings = _AudioEmbeddings(width)
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*(_AudioLayer(width, heads) for _ in range(depth)))})
        self.layernorm = nn.LayerNorm(width, eps=EPS_AUDIO)

    def forward(self, x: Tensor) -> Tensor:
        return self.layernorm(self.encoder["layer"](self.embeddings(x)))  # type: ignore[no-any-return]


class AudioEncoder(nn.Module):
    """Audio Spectrogram Transformer with a frequency aggregation layer; published sizes by default."""

    def __init__(self, width: int = WIDTH, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.ast = _Ast(width, depth, heads)
        self.freq_attn_agg = Aggregation(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised log-mels ``(B, S, 1, 128, 66)``, frequency first -> ``(B, S, 6, 768)``.

        Raises ValueError on another size: 66 to 75 frames would be accepted by the convolution in silence.
        """
        if x.ndim != 5 or x.shape[2:] != (1, 128, 66):
            raise ValueError(f"AudioEncoder takes (B, S, 1, 128, 66), got {tuple(x.shape)}")
        batch, segments = x.shape[:2]
        tokens = self.ast(x.flatten(0, 2))[:, 2:]  # CLS and distillation tokens end here
        grid = tokens.reshape(len(tokens), 12, AUDIO_TOKENS, -1).transpose(1, 2)
        out: Tensor = self.freq_attn_agg(grid.flatten(0, 1))  # one row of 12 frequencies per time column
        return out.view(batch, segments, AUDIO_TOKENS, -1)


# --------------------------------------------------------------------------- head


class _HeadBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=EPS_HEAD)
        self.ln2 = nn.LayerNorm(width, eps=EPS_HEAD)
        self.attn = SelfAttention(width, heads, with_proj=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))  # type: ignore[no-any-return]


class _HeadTransformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        rows = 1 + SEGMENTS * VIDEO_TOKENS + 1 + SEGMENTS * AUDIO_TOKENS
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.vis_in_lnorm = nn.LayerNorm(width, eps=EPS_HEAD)
        self.aud_in_lnorm = nn.LayerNorm(width, eps=EPS_HEAD)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": nn.Parameter(torch.zeros(1, rows, width))})
        self.blocks = nn.ModuleList(_HeadBlock(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width, eps=EPS_HEAD)
        self.off_head = nn.Linear(width, CLASSES)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        off, mod = (token.expand(len(video), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([off, self.vis_in_lnorm(video), mod, self.aud_in_lnorm(audio)], dim=1)
        x = x + self.pos_emb_cfg["pos_emb"]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x)[:, 0])  # type: ignore[no-any-return]


class SyncHead(nn.Module):
    """Compares 14 segments of both streams and names the offset between them."""

    def __init__(self, width: int = WIDTH, depth: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.vproj = nn.Linear(width, width)
        self.aproj = nn.Linear(width, width)
        self.transformer = _HeadTransformer(width, depth, heads)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Tokens ``(B, 14, 8, 768)`` and ``(B, 14, 6, 768)`` -> logits ``(B, 21)`` over ``class_grid()``.

        Raises ValueError for any other number of segments or tokens.
        """
        if video.shape[1:3] != (SEGMENTS, VIDEO_TOKENS) or audio.shape[1:3] != (SEGMENTS, AUDIO_TOKENS):
            raise ValueError(
                f"SyncHead takes video (B, 14, 8, width) and audio (B, 14, 6, width), "
                f"got {tuple(video.shape)} and {tuple(audio.shape)}"
            )
        out: Tensor = self.transformer(self.vproj(video).flatten(1, 2), self.aproj(audio).flatten(1, 2))
        return out


class Synchformer(SyncHead):
    """The whole network, key for key the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.vfeat_extractor = VideoEncoder()
        self.afeat_extractor = AudioEncoder()
