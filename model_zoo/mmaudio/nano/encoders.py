"""Visual and text features of ``mmaudio-nano``: three small networks that learned what a scene of ``impacts`` holds.

They are trained on scene parameters (contact times, speeds, material, form), never on a scoring network or its output,
and their hidden features, not their answers, condition the flow network:

* ``MotionEncoder`` reads grey frames at 25 per second and gives one sync token per frame;
* ``FrameEncoder`` reads colour frames at 2 per second and gives one clip token per frame;
* ``WordEmbedding`` embeds the hashed words of a caption, one text token per word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from av_bench.contracts import VideoRequest
from av_bench.networks.nano import HASHED_WORDS, hashed_words

FRAME_RATE = 25
LOOK_RATE = 2
TEXT_LENGTH = 24
FEATURE = 32  # channels of every token
MOTION_REQUEST = VideoRequest(25.0, 48, "center")
LOOK_REQUEST = VideoRequest(2.0, 64, "center")
MATERIALS = ("wood", "metal", "glass", "ceramic", "plastic", "rubber", "stone", "cardboard")
KINDS = ("strike", "drop", "bounce")
FORMS = ("block", "bar", "bowl", "disc", "tube", "cube", "brick", "cup", "cylinder", "slab")
HEADS = 4
ATTRIBUTES = len(MATERIALS) + len(KINDS) + len(FORMS) + HEADS + 1  # the last one is the logarithm of the size


def attributes() -> dict[str, slice]:
    """Where each attribute lies in the last axis of an attribute head's output."""
    slices, start = {}, 0
    for name, size in (("material", 8), ("kind", 3), ("form", 10), ("head", HEADS), ("size", 1)):
        slices[name] = slice(start, start + size)
        start += size
    return slices


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if kernel == 3 else 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two dilated convolutions over time beside the input, ``(B, d, n)`` -> the same shape."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.second = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


@dataclass(frozen=True)
class MotionHeads:
    """What ``MotionEncoder`` answers per frame, each ``(B, n)``: logit of a contact nearest to this frame, its place in
    the frame (-0.5 to 0.5 frames), its speed relative to the clip's fastest, and the level left of the last contact."""

    contact: Tensor
    place: Tensor
    speed: Tensor
    level: Tensor


class MotionEncoder(nn.Module):
    """Grey frames ``(B, n, 48, 48)`` in [0, 1] -> tokens ``(B, n, 32)``: a frame and its change to both neighbours."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_conv(3, 12, 5, 3), _conv(12, 24, 3, 2), _conv(24, 32, 3, 2))  # 48, 16, 8, 4 px
        self.project = nn.Linear(32 * 16, width)
        self.temporal = nn.Sequential(*(Residual(width, dilation) for dilation in (1, 2, 1, 4)))
        self.feature = nn.Conv1d(width, FEATURE, 1)
        self.answer = nn.Sequential(nn.ReLU(), nn.Conv1d(FEATURE, 4, 1))
        self.classify = nn.Sequential(nn.ReLU(), nn.Linear(FEATURE, ATTRIBUTES))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        batch, count = frames.shape[:2]
        padded = torch.cat([frames[:, :1], frames, frames[:, -1:]], dim=1)
        change = 4.0 * (padded[:, 1:] - padded[:, :-1])
        stack = torch.stack([frames - 0.5, change[:, :-1], change[:, 1:]], dim=2).flatten(0, 1)
        maps = self.trunk(stack.contiguous(memory_format=torch.channels_last))
        flat = self.project(maps.flatten(1)).view(batch, count, -1).transpose(1, 2)
        out: Tensor = self.feature(self.temporal(flat)).transpose(1, 2)
        return out

    def heads(self, tokens: Tensor) -> tuple[MotionHeads, Tensor]:
        """Answers per frame, and attribute logits of the clip ``(B, 26)``, from tokens ``(B, n, 32)``."""
        answers = self.answer(tokens.transpose(1, 2))
        return MotionHeads(*answers.unbind(1)), self.classify(tokens.mean(dim=1))


class FrameEncoder(nn.Module):
    """Colour frames ``(B, n, 3, 64, 64)`` in [0, 1] -> tokens ``(B, n, 32)``, each of one frame alone."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_conv(3, 24, 3, 2), _conv(24, 48, 3, 2), _conv(48, 64, 3, 2), _conv(64, 96, 3, 2))
        self.feature = nn.Sequential(nn.Linear(96 * 5, 96), nn.ReLU(), nn.Linear(96, FEATURE))
        self.classify = nn.Sequential(nn.ReLU(), nn.Linear(FEATURE, ATTRIBUTES))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        batch, count = frames.shape[:2]
        maps = self.trunk((frames.flatten(0, 1) - 0.5).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([F.adaptive_avg_pool2d(maps, 2).flatten(1), maps.amax(dim=(2, 3))], dim=1)
        out: Tensor = self.feature(pooled).view(batch, count, FEATURE)
        return out

    def heads(self, tokens: Tensor) -> Tensor:
        """Attribute logits ``(B, 26)`` from tokens ``(B, n, 32)``."""
        out: Tensor = self.classify(tokens.mean(dim=1))
        return out


class WordEmbedding(nn.Module):
    """Word ids ``(B, 24)``, 0 as padding -> tokens ``(B, 24, 32)``; padding gives zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(HASHED_WORDS, FEATURE, padding_idx=0)
        self.classify = nn.Linear(FEATURE, ATTRIBUTES)

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.words(ids)
        return out

    def heads(self, tokens: Tensor) -> Tensor:
        """Attribute logits ``(B, 26)`` from tokens ``(B, 24, 32)``: no order of words, so the tokens carry it all."""
        out: Tensor = self.classify(tokens.sum(dim=1) / 4.0)
        return out


class Sight(nn.Module):
    """The three networks and the statistics that bring their tokens to mean 0 and deviation 1 per channel."""

    motion_mean: Tensor
    motion_std: Tensor
    look_mean: Tensor
    look_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.motion, self.look, self.words = MotionEncoder(), FrameEncoder(), WordEmbedding()
        for name in ("motion", "look"):
            self.register_buffer(f"{name}_mean", torch.zeros(FEATURE))
            self.register_buffer(f"{name}_std", torch.ones(FEATURE))

    def sync_tokens(self, grey: Tensor) -> Tensor:
        """uint8 ``(B, n, 48, 48)`` -> ``(B, n, 32)``."""
        out: Tensor = (self.motion(grey.float() / 255.0) - self.motion_mean) / self.motion_std
        return out

    def clip_tokens(self, colour: Tensor) -> Tensor:
        """uint8 ``(B, n, 3, 64, 64)`` -> ``(B, n, 32)``."""
        out: Tensor = (self.look(colour.float() / 255.0) - self.look_mean) / self.look_std
        return out

    def text_tokens(self, text: str) -> Tensor:
        """A caption -> ``(24, 32)``; words after the 24th are not read."""
        out: Tensor = self.words(hashed_words(text, TEXT_LENGTH)[None].to(self.words.words.weight.device))[0]
        return out
