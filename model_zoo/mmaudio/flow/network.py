"""The flow network of MMAudio (section 3.3, 3.4, Figure 2): official key layout, all variants and ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from av_bench.weights.fill import fill
from model_zoo.mmaudio.config import SYNC_TOKENS, NetworkConfig
from model_zoo.mmaudio.flow.arranged import Arranged
from model_zoo.mmaudio.flow.blocks import ChannelLastConv, FinalLayer, GatedMLP, JointBlock, StreamBlock, TimeEmbedding
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.mmaudio.flow.products import How
from model_zoo.mmaudio.flow.ready import Ready, distinct, repeated, resample
from model_zoo.mmaudio.flow.rope import rotations

DERIVED = ("t_embed.freqs", "latent_rot", "clip_rot")  # buffers that some official files carry


@dataclass(frozen=True)
class Preprocessed:
    """Conditions of a batch, projected once per sample and used at every step.

    clip ``(B, Lv, h)``; sync ``(B, N, h)`` at the latent's rate, None without sync module; text ``(B, Lt, h)``; pooled
    ``(B, h)``: what the global condition takes from clip and text.
    """

    clip: Tensor
    sync: Tensor | None
    text: Tensor
    pooled_clip: Tensor
    pooled_text: Tensor

    def join(self, other: Preprocessed) -> Preprocessed:
        """Both batches, one after the other: conditional and unconditional pass in one."""
        sync = None if self.sync is None or other.sync is None else torch.cat([self.sync, other.sync])
        return Preprocessed(
            torch.cat([self.clip, other.clip]),
            sync,
            torch.cat([self.text, other.text]),
            torch.cat([self.pooled_clip, other.pooled_clip]),
            torch.cat([self.pooled_text, other.pooled_text]),
        )

    def rows(self, part: slice) -> Preprocessed:
        """Some rows of the batch."""
        sync = None if self.sync is None else self.sync[part]
        return Preprocessed(self.clip[part], sync, self.text[part], self.pooled_clip[part], self.pooled_text[part])


Flow = Callable[[Tensor, Tensor, Preprocessed | Ready], Tensor]
"""Latents ``(B, N, C)``, times ``(B,)`` and conditions to velocities: ``FlowNetwork.flow``, compiled or not."""


class FlowNetwork(nn.Module):
    """Velocity of the audio latent given time, video, sync features and text."""

    latent_rot: Tensor
    clip_rot: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        *,
        latent_mean: Tensor | None = None,
        latent_std: Tensor | None = None,
        empty_string: Tensor | None = None,
    ) -> None:
        """``latent_mean`` and ``latent_std`` ``(C,)`` and ``empty_string`` ``(text_len, text_dim)`` come from the data
        or from a checkpoint; until then they are NaN and zero."""
        super().__init__()
        self.config = config
        self.few_step: FewStep | None = None  # of weights that are made for a few large steps
        self.arranged: Arranged | None = None
        h = config.hidden
        self._input_projections(config)
        self.clip_cond_proj, self.text_cond_proj = nn.Linear(h, h), nn.Linear(h, h)
        self.global_cond_mlp = GatedMLP(h, int(h * config.mlp_ratio))
        if config.sync == "module":
            self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, SYNC_TOKENS, config.sync_dim))
        self.final_layer = FinalLayer(h, config.latent_dim, 7)
        self.t_embed = TimeEmbedding(h, config.v2)
        joint = config.depth - config.fused_depth
        self.joint_blocks = nn.ModuleList(
            JointBlock(h, config.heads, config.mlp_ratio, config.ffn, last=i == joint - 1) for i in range(joint)
        )
        kernel = 3 if config.ffn == "conv" else None
        self.fused_blocks = nn.ModuleList(
            StreamBlock(h, config.heads, config.mlp_ratio, kernel, config.ffn) for _ in range(config.fused_depth)
        )
        self._constants(latent_mean, latent_std, empty_string)
        self._initialise()
        self.set_lengths(config.latent_len, config.clip_len, config.sync_len)

    def _input_projections(self, config: NetworkConfig) -> None:
        h, wide = config.hidden, int(config.hidden * config.mlp_ratio)
        activation: type[nn.Module] = nn.SiLU if config.v2 else nn.SELU
        between = [nn.SiLU()] if config.v2 else []
        k3, k7 = (3, 7) if config.ffn == "conv" else (None, None)
        self.audio_input_proj = nn.Sequential(
            ChannelLastConv(config.latent_dim, h, 7), activation(), GatedMLP(h, wide, k7)
        )
        self.clip_input_proj = nn.Sequential(nn.Linear(config.clip_dim, h), *between, GatedMLP(h, wide, k3))
        self.text_input_proj = nn.Sequential(nn.Linear(config.text_dim, h), *between, GatedMLP(h, wide))
        if config.sync == "module":
            self.sync_input_proj: nn.Module = nn.Sequential(
                ChannelLastConv(config.sync_dim, h, 7), activation(), GatedMLP(h, wide, k3)
            )
        elif config.sync == "sum":
            self.sync_input_proj = nn.Linear(config.sync_dim, h)

    def _constants(self, mean: Tensor | None, std: Tensor | None, empty_string: Tensor | None) -> None:
        config = self.config
        shape = (1, 1, config.latent_dim)
        unknown = torch.full(shape, float("nan"))

        def fixed(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.detach().clone().float(), requires_grad=False)

        self.latent_mean = fixed(unknown if mean is None else mean.reshape(shape))
        self.latent_std = fixed(unknown if std is None else std.reshape(shape))
        text = torch.zeros(config.text_len, config.text_dim) if empty_string is None else empty_string
        if text.shape != (config.text_len, config.text_dim):
            raise UsageError(f"empty_string {tuple(text.shape)} must be ({config.text_len}, {config.text_dim})")
        self.empty_string_feat = fixed(text)
        learned = config.empty == "learned"
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, config.clip_dim), requires_grad=learned)
        self.empty_sync_feat = nn.Parameter(
            torch.zeros(1, config.sync_dim), requires_grad=learned and config.sync != "none"
        )

    def _initialise(self) -> None:
        """As published: Xavier for linear layers, small normal in the time embedding, zero where a block ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for index in (0, 2):
            nn.init.normal_(self.t_embed.mlp[index].weight, std=0.02)  # type: ignore[arg-type]
        gates = [m.adaLN_modulation[1] for m in self.modules() if isinstance(m, StreamBlock | FinalLayer)]
        for layer in [*gates, self.final_layer.conv]:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def set_lengths(self, latent_len: int, clip_len: int, sync_len: int) -> None:
        """Rebuild the rotations for other sequence lengths (tokens)."""
        self.config = replace(self.config, latent_len=latent_len, clip_len=clip_len, sync_len=sync_len)
        config, device = self.config, self.latent_mean.device
        scale = latent_len / config.visual_len if config.rope == "aligned" else 1.0
        with torch.inference_mode(False):  # the same network may be sampled first and trained afterwards
            latent = rotations(latent_len, config.head_dim).to(device)
            visual = rotations(config.visual_len, config.head_dim, scale).to(device)
        self.register_buffer("latent_rot", latent, persistent=False)
        self.register_buffer("clip_rot", visual, persistent=False)
        self._set_tables()

    # ------------------------------------------------------------------ for sampling only

    def arrange(self, how: How) -> None:
        """Take the network apart into one of fewer and larger operations, for good: it can project conditions and give
        velocities, as before up to rounding, but neither be trained nor saved any more."""
        if self.arranged is None:
            parts = self.audio_input_proj, self.joint_blocks, self.fused_blocks, self.final_layer
            self.arranged = Arranged(*parts, how)
            del self.joint_blocks, self.fused_blocks, self.audio_input_proj, self.final_layer
            self._set_tables()

    def _set_tables(self) -> None:
        if self.arranged is None:
            return
        config, rotated = self.config, self.config.rope != "none"
        latent, visual = (self.latent_rot, self.clip_rot) if rotated else (None, None)
        self.arranged.set_rotations([(latent, config.latent_len), (visual, config.visual_len), (None, config.text_len)])

    def ready(self, pre: Preprocessed | Ready) -> Preprocessed | Ready:
        """What ``flow`` wants besides latent and time at every step of a sample: of an arranged network, all that does
        not depend on them."""
        if self.arranged is None or isinstance(pre, Ready):
            return pre
        kind, fixed = self.arranged.kind, self.global_cond_mlp(pre.pooled_clip + pre.pooled_text)
        sync, owner = pre.sync, torch.arange(len(fixed), device=fixed.device)
        place = owner
        if sync is not None:
            sync, owner, place = distinct(sync) if sync.device.type == "cpu" else repeated(sync, self.config.sync_len)
        return Ready(pre.clip.to(kind), pre.text.to(kind), fixed, sync, owner, place)

    # ------------------------------------------------------------------ conditions

    def preprocess(self, clip: Tensor, sync: Tensor, text: Tensor) -> Preprocessed:
        """Project raw conditions: clip ``(B, clip_len, clip_dim)``, sync ``(B, sync_len, sync_dim)``, text
        ``(B, text_len, text_dim)``. UsageError for other lengths."""
        config = self.config
        for name, x, length in (
            ("clip", clip, config.clip_len),
            ("sync", sync, config.sync_len),
            ("text", text, config.text_len),
        ):
            if x.shape[1] != length:
                raise UsageError(f"{name} has {x.shape[1]} tokens, the network is set to {length} (set_lengths)")
        visual = self._visual(clip, sync)
        words = self.text_input_proj(text)
        return Preprocessed(
            visual,
            self._sync(sync),
            words,
            self.clip_cond_proj(visual.mean(dim=1)),
            self.text_cond_proj(words.mean(dim=1)),
        )

    def _visual(self, clip: Tensor, sync: Tensor) -> Tensor:
        if self.config.sync != "sum":
            result: Tensor = self.clip_input_proj(clip)
            return result
        at_sync_rate = resample(clip, self.config.sync_len)
        first, *rest = self.clip_input_proj
        x = first(at_sync_rate) + self.sync_input_proj(sync)
        for module in rest:
            x = module(x)
        visual: Tensor = x
        return visual

    def _sync(self, sync: Tensor) -> Tensor | None:
        if self.config.sync != "module":
            return None
        placed = (sync.reshape(len(sync), -1, SYNC_TOKENS, sync.shape[2]) + self.sync_pos_emb).flatten(1, 2)
        return resample(self.sync_input_proj(placed), self.config.latent_len).contiguous()  # every block reads it

    def empty(self, batch: int, negative_text: Tensor | None = None) -> Preprocessed:
        """The unconditional pass: empty video and sync, and an empty or negative text ``(B or 1, Lt, text_dim)``."""
        config = self.config
        text = self.empty_string_feat[None] if negative_text is None else negative_text
        return self.preprocess(
            self.empty_clip_feat.expand(batch, config.clip_len, -1),
            self.empty_sync_feat.expand(batch, config.sync_len, -1),
            text.to(self.empty_string_feat.dtype).expand(batch, -1, -1),
        )

    # ------------------------------------------------------------------ velocity

    def flow(self, latent: Tensor, t: Tensor, pre: Preprocessed | Ready) -> Tensor:
        """Velocity ``(B, N, C)`` of a normalised latent ``(B, N, C)`` at times ``(B,)``."""
        if latent.shape[1] != self.config.latent_len:
            raise UsageError(
                f"latent has {latent.shape[1]} frames, the network is set to {self.config.latent_len} (set_lengths)"
            )
        if self.arranged is not None:
            given, time = self.ready(pre), self.t_embed(t)
            with torch.autocast(latent.device.type, enabled=False):
                made: Tensor = self.arranged(latent, time, given)
            return made
        if isinstance(pre, Ready):
            raise UsageError("these conditions were made ready for an arranged network, and this one is not")
        rotated = self.config.rope != "none"
        latent_rot, clip_rot = (self.latent_rot, self.clip_rot) if rotated else (None, None)
        x, clip, text = self.audio_input_proj(latent), pre.clip, pre.text
        global_c = (self.global_cond_mlp(pre.pooled_clip + pre.pooled_text) + self.t_embed(t))[:, None]
        extended_c = global_c if pre.sync is None else global_c + pre.sync
        for block in self.joint_blocks:
            x, clip, text = block(x, clip, text, global_c, extended_c, latent_rot, clip_rot)
        for block in self.fused_blocks:
            x = block(x, extended_c, latent_rot)
        result: Tensor = self.final_layer(x, global_c)
        return result

    def forward(
        self,
        latent: Tensor,
        clip: Tensor,
        sync: Tensor,
        text: Tensor,
        t: Tensor,
        *,
        drop_video: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Raw conditions to velocity in one call. Masks ``(B,)`` bool: samples whose video (CLIP and sync together) or
        text is replaced by the empty tokens."""
        return self.flow(latent, t, self.preprocess(*self.dropped(clip, sync, text, drop_video, drop_text)))

    def dropped(
        self, clip: Tensor, sync: Tensor, text: Tensor, drop_video: Tensor | None, drop_text: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Raw conditions with the empty tokens where the masks ``(B,)`` say so."""
        if drop_video is not None:
            gone = drop_video[:, None, None]
            clip = torch.where(gone, self.empty_clip_feat.to(clip.dtype), clip)
            sync = torch.where(gone, self.empty_sync_feat.to(sync.dtype), sync)
        if drop_text is not None:
            text = torch.where(drop_text[:, None, None], self.empty_string_feat.to(text.dtype), text)
        return clip, sync, text

    def normalize(self, latent: Tensor) -> Tensor:
        """VAE latent -> zero mean and unit variance per channel, as a new tensor."""
        return (latent - self.latent_mean) / self.latent_std

    def unnormalize(self, latent: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return latent * self.latent_std + self.latent_mean

    def load_official(self, state: Mapping[str, Tensor], where: str = "the given weights") -> None:
        """Strict load of a published state dict; BadWeights names missing and extra keys."""
        own = {key: value for key, value in state.items() if key not in DERIVED}
        fill(self, own, where, copy=True)
