"""CLIP as MMAudio uses it: ViT-H/14 trained by DFN (Fang et al., ICLR 2024), model classes and tokenizer of open_clip.

Images: 384 x 384 although the network was trained for 378, so that the last 6 px of each axis fall off the patch grid.
Text: the hidden state of every token, before pooling and projection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from av_bench.contracts import MissingRequirement
from av_bench.networks.packages import quiet, uninitialised
from av_bench.weights.fill import Weights, fill, read

ENTRY = "dfn5b-clip"
SIZE = 384
TOKENS = 77
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIG: dict[str, Any] = {
    "embed_dim": 1024,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 378, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": TOKENS, "vocab_size": 49_408, "width": 1024, "heads": 16, "layers": 24},
}


class CLIPEncoder(nn.Module):
    """Both towers; weights in the official layout."""

    mean: Tensor
    std: Tensor

    def __init__(self, source: Weights = None, config: dict[str, Any] | None = None) -> None:
        """``source``: see ``weights.fill``; ``config`` replaces the sizes (tests). MissingRequirement, BadWeights."""
        super().__init__()
        try:
            from open_clip import SimpleTokenizer
            from open_clip.model import CLIP
        except ImportError as error:
            raise MissingRequirement(
                f"MMAudio's conditions need open_clip: {error}. Get it with\n    pip install 'av-bench[paper]'"
            ) from error
        state = read(source, ENTRY)
        with quiet(), uninitialised():
            self.model = CLIP(**(config or CONFIG))
        fill(self.model, state.tensors, state.source)
        self.tokenizer = SimpleTokenizer(context_length=TOKENS)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def images(self, frames: Tensor) -> Tensor:
        """uint8 ``(n, 3, 384, 384)`` -> unit vectors ``(n, 1024)``."""
        features: Tensor = self.model.encode_image((frames.float() / 255 - self.mean) / self.std)
        return functional.normalize(features.float(), dim=-1)

    def text(self, texts: list[str]) -> Tensor:
        """Texts -> ``(n, 77, 1024)``, each token's last hidden state as a unit vector."""
        model = self.model
        ids = self.tokenizer(texts).to(self.mean.device)
        x = model.transformer(model.token_embedding(ids) + model.positional_embedding, attn_mask=model.attn_mask)
        return functional.normalize(model.ln_final(x).float(), dim=-1)
