"""Sizes of the flow network: the published variants, the ablation switches of the paper, and sequence lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from av_bench.contracts import UsageError

Rate = Literal["16k", "44k"]
SAMPLE_RATES: dict[str, int] = {"16k": 16_000, "44k": 44_100}
HOPS: dict[str, int] = {"16k": 256, "44k": 512}  # samples per mel frame; a latent frame is two
CLIP_FPS, SYNC_FPS = 8, 25
SYNC_SEGMENT, SYNC_STEP, SYNC_TOKENS = 16, 8, 8  # frames per segment, frames between segments, tokens per segment


@dataclass(frozen=True)
class NetworkConfig:
    """One flow network.

    ``depth`` counts all blocks; the last ``fused_depth`` are audio-only (N2), the others joint (N1). The switches are
    the paper's ablations: ``sync`` (Table 6, top; "sum" adds the projected sync features to the visual tokens, at
    their rate, Figure A4), ``rope`` (Table 6, bottom), ``ffn`` (Table 7, top). ``empty`` says what stands for a
    missing modality: learnable tokens (the paper's) or zeros.
    """

    latent_dim: int
    hidden: int
    depth: int
    fused_depth: int
    heads: int
    latent_len: int
    clip_len: int
    sync_len: int
    clip_dim: int = 1024
    sync_dim: int = 768
    text_dim: int = 1024
    text_len: int = 77
    mlp_ratio: float = 4.0
    v2: bool = False
    sync: Literal["module", "sum", "none"] = "module"
    rope: Literal["aligned", "default", "none"] = "aligned"
    ffn: Literal["conv", "mlp"] = "conv"
    empty: Literal["learned", "zero"] = "learned"

    def __post_init__(self) -> None:
        choices = {
            "sync": ("module", "sum", "none"),
            "rope": ("aligned", "default", "none"),
            "ffn": ("conv", "mlp"),
            "empty": ("learned", "zero"),
        }
        for name, allowed in choices.items():
            if vars(self)[name] not in allowed:
                raise UsageError(f"network: {name} must be one of {', '.join(allowed)}, got {vars(self)[name]!r}")
        sizes = ("latent_dim", "hidden", "depth", "heads", "latent_len", "clip_len", "sync_len")
        for name in (*sizes, "clip_dim", "sync_dim", "text_dim", "text_len"):
            if vars(self)[name] < 1:
                raise UsageError(f"network: {name} must be at least 1, got {vars(self)[name]}")
        if not (math.isfinite(self.mlp_ratio) and self.hidden * self.mlp_ratio >= 2):
            raise UsageError(f"network: mlp_ratio must be a number above 2 / hidden, got {self.mlp_ratio}")
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise UsageError(f"network: hidden {self.hidden} must be an even multiple of heads {self.heads}")
        if not 0 <= self.fused_depth < self.depth:
            raise UsageError(
                f"network: fused_depth {self.fused_depth} must be below depth {self.depth}: one joint block is needed"
            )
        if self.sync_len % SYNC_TOKENS:
            raise UsageError(f"network: sync_len {self.sync_len} must be a multiple of {SYNC_TOKENS}")

    @property
    def visual_len(self) -> int:
        """Tokens of the visual stream: frames, or sync tokens where both are summed."""
        return self.sync_len if self.sync == "sum" else self.clip_len

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden // self.heads


@dataclass(frozen=True)
class Variant:
    """A published network with the rate of its audio and its entry of the weights lock file."""

    name: str
    network: NetworkConfig
    rate: Rate
    weights: str


def audio_samples(rate: Rate, seconds: float) -> int:
    """Samples fed to the VAE for ``seconds``: whole latent frames, rounded up."""
    step = 2 * HOPS[rate]
    return -(-round(SAMPLE_RATES[rate] * seconds) // step) * step


def sequence_lengths(rate: Rate, seconds: float) -> tuple[int, int, int]:
    """Tokens of latent, CLIP and sync sequence for a duration; UsageError below one sync segment (0.64 s)."""
    frames = int(SYNC_FPS * seconds)
    if frames < SYNC_SEGMENT:
        raise UsageError(f"MMAudio needs at least {SYNC_SEGMENT / SYNC_FPS:.2f} s, got {seconds:g} s")
    segments = (frames - SYNC_SEGMENT) // SYNC_STEP + 1
    latent = audio_samples(rate, seconds) // (2 * HOPS[rate])
    return latent, int(CLIP_FPS * seconds), segments * SYNC_TOKENS


def _variant(
    name: str, rate: Rate, hidden: int, depth: int, fused: int, heads: int, weights: str, *, v2: bool = False
) -> Variant:
    latent, clip, sync = sequence_lengths(rate, 8.0)
    channels = {"16k": 20, "44k": 40}[rate]
    config = NetworkConfig(channels, hidden, depth, fused, heads, latent, clip, sync, v2=v2)
    return Variant(name, config, rate, weights)


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        _variant("mmaudio-s-16k", "16k", 448, 12, 8, 7, "mmaudio-small-16k"),
        _variant("mmaudio-s-44k", "44k", 448, 12, 8, 7, "mmaudio-small-44k"),
        _variant("mmaudio-m-44k", "44k", 896, 12, 8, 14, "mmaudio-medium-44k"),
        _variant("mmaudio-l-44k", "44k", 896, 21, 14, 14, "mmaudio-large-44k"),
        _variant("mmaudio-l-44k-v2", "44k", 896, 21, 14, 14, "mmaudio-large-44k-v2", v2=True),
    )
}
ALIASES = {"mmaudio-l": "mmaudio-l-44k", "mmaudio-s": "mmaudio-s-44k", "mmaudio-m": "mmaudio-m-44k"}


def variant(name: str) -> Variant:
    """A variant by name or alias; UsageError names the available."""
    found = VARIANTS.get(ALIASES.get(name, name))
    if found is None:
        raise UsageError(f"unknown MMAudio variant {name!r}; available: {', '.join([*VARIANTS, *ALIASES])}")
    return found
