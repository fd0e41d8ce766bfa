"""ImageBind huge, behind the IB-score (Girdhar et al., CVPR 2023, arXiv 2305.05665).

A file becomes several views: three 2 s audio clips, or consecutive frame pairs at three crops. Each view's embedding
has unit length (times 20 for audio), and the feature is the mean over views, not normalised again.

Clips start at 0, 1 and 2 halves of (duration - 2 s): 0, 3, 6 s of 8 s. That is the sampler of the published tool as its
own pins install it (av-benchmark -> ImageBind fork -> pytorchvideo at ae9cfc6). The released pytorchvideo 0.1.5 takes
thirds (0, 2, 4 s) and misses the end.

Flavour "paper": audio is read from channel 0 of the uncut file, and each clip is centred in place, so that clips that
overlap are centred twice. Flavour "strict": the mono mix, cut like everything else, each clip centred once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from av_bench.contracts import Decoded, Flavour, MediaError, Reason, VideoRequest
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor
from av_bench.networks.packages import model_file, on_meta, quiet, untouched
from av_bench.weights.fill import Weights, load_into, read

RATE = 16_000
CLIPS, CLIP_SECONDS = 3, 2
FPS = 0.5
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
TIMM = {"timm.layers.DropPath": nn.Identity, "timm.layers.trunc_normal_": untouched}  # as in inference
TOWERS = ("vision", "audio", "text", "depth", "thermal", "imu")


def build_tower(weights: Weights, tower: str) -> tuple[nn.Module, str]:
    """The network with one tower alone, and the weights hash. The keys of the other towers are ignored."""
    checkpoint = read(weights, "imagebind")
    package = model_file("imagebind.models.imagebind_model", without=("timm",), names=TIMM)
    with quiet(), on_meta():
        network: nn.Module = package.imagebind_huge(pretrained=False)
    for part in PARTS:
        kept = network.get_submodule(part).get_submodule(tower)
        setattr(network, part, nn.ModuleDict({tower: kept}))
    others = "|".join(name for name in TOWERS if name != tower)
    digest = load_into(network, checkpoint, ignore=rf"modality_\w+\.({others})\.")
    return network, digest


def clip_bounds(samples: int) -> list[tuple[int, int]]:
    """Sample ranges of the three 2 s clips, evenly spread from the first sample to the last; all at 0 up to 2 s.

    Computed in fractions of the duration as a float, as the published sampler does: the last sample can depend on it.
    """
    step = Fraction(max(samples / RATE - CLIP_SECONDS, 0.0)) / (CLIPS - 1)
    return [(int(step * i * RATE), int((step * i + CLIP_SECONDS) * RATE)) for i in range(CLIPS)]


def centred_clips(audio: Tensor, bounds: Sequence[tuple[int, int]], *, in_place: bool) -> Tensor:
    """``(channels, samples)`` -> ``(clips, clip samples)`` of channel 0; the mean removed is that of all channels.

    ``in_place``: later clips see what the centring of earlier ones left in the samples they share.
    """
    audio = audio.clone()
    clips = []
    for start, end in bounds:
        clip = audio[:, start:end]
        if not in_place:
            clip = clip.clone()
        clip -= clip.mean()
        clips.append(clip[0].clone())
    return torch.stack(clips)


class ImageBindAudio(BaseExtractor):
    """16 kHz audio -> embedding of 1024 (length at most 20)."""

    name = "imagebind-audio"
    weights_name = "imagebind"
    front_end_version = 2  # 1: clips of flavour "paper" at thirds
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 1024)"}
    flavour_matters = True
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> ImageBindAudio:
        """Weights: the official flat file of 1311 tensors (1200.8 M); only the audio tower is built and read."""
        return cls(*build_tower(weights, "audio"), device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> Tensor:
        """``(3, 32000)``, fewer samples for a file under 2 s. MediaError below one frame of 25 ms."""
        paper = self.flavour == "paper"
        audio = item.channels(RATE, None) if paper else item.waveform(RATE, seconds)[None]
        if audio.shape[1] < 400:
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, f"{audio.shape[1]} samples at 16 kHz; 400 are needed")
        return centred_clips(audio, clip_bounds(audio.shape[1]), in_place=paper)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, 3, samples)`` -> embedding."""
        assert self.module is not None
        mel = frontends.imagebind_mel(batch.flatten(0, 1))
        return {"embedding": self.module({"audio": mel.view(*batch.shape[:2], *mel.shape[1:])})["audio"]}


class ImageBindVideo(BaseExtractor):
    """Frames at 0.5 per second, short side 224 -> embedding of 1024 (length at most 1)."""

    name = "imagebind-video"
    weights_name = "imagebind"
    modality = "video"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 1024)"}
    video_request = VideoRequest(FPS, 224, "short")
    batch_size = 2

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> ImageBindVideo:
        """Weights: the official flat file of 1311 tensors (1200.8 M); only the vision tower is built and read."""
        return cls(*build_tower(weights, "vision"), device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> Tensor:
        """uint8 ``(3, int(seconds / 2), 3, 224, 224)``: crops, frames. MediaError when frames are missing."""
        frames = item.frames(self.video_request)
        needed = max(int(FPS * seconds), 2)
        if len(frames) < needed:
            detail = f"{len(frames)} frames at 0.5 per second; ImageBind needs {needed}"
            raise MediaError(item.path, Reason.TOO_SHORT_VIDEO, detail)
        return frontends.spatial_crops(frames[:needed])

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """uint8 ``(B, 3, frames, 3, 224, 224)`` -> embedding. 4 frames make 3 pairs, so 9 views."""
        assert self.module is not None
        mean, std = (torch.tensor(v, device=batch.device)[:, None, None] for v in (MEAN, STD))
        frames = (batch.float() / 255 - mean) / std
        pairs = frames.unfold(2, 2, 1).movedim(-1, 4)  # (B, crops, pairs, 3, 2, 224, 224)
        return {"embedding": self.module({"vision": pairs.flatten(1, 2)})["vision"]}
