"""Synchformer's tokens and sync head, behind DeSync (Iashin et al., ICASSP 2024, arXiv 2401.16423)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch

from av_bench.contracts import Decoded, Flavour, MediaError, MetricError, Reason, VideoRequest, shortfall
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor, BasePairExtractor
from av_bench.networks.packages import on_meta
from av_bench.networks.synchformer import SEGMENTS, AudioEncoder, SyncHead, VideoEncoder
from av_bench.weights.fill import StateDict, Weights, load_into, read

RATE = 16_000
FPS = 25.0
FRAMES, FRAME_STEP = 16, 8  # per segment: 0.64 s every 0.32 s, as for the audio


def _part(weights: Weights, prefix: str) -> StateDict:
    """The official file with ``prefix`` taken off the keys that have it; other keys stay as they are."""
    whole = read(weights, "synchformer")
    return replace(whole, tensors={key.removeprefix(prefix): value for key, value in whole.tensors.items()})


class SynchformerVideo(BaseExtractor):
    """Frames at 25 per second, short side 224, centre crop -> 8 tokens of 768 per segment."""

    name = "synchformer-video"
    weights_name = "synchformer"
    modality = "video"
    outputs: ClassVar[Mapping[str, str]] = {"tokens": "(B, segments, 8, 768); 24 segments for 8 s"}
    video_request = VideoRequest(FPS, 224, "center")
    batch_size = 1  # 24 segments of 1569 tokens each are a full batch

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> SynchformerVideo:
        """Weights: the official file of 513 tensors; those of the other parts are not loaded."""
        with on_meta():
            network = VideoEncoder()
        checkpoint = _part(weights, "vfeat_extractor.")
        digest = load_into(network, checkpoint, ignore=r"afeat_extractor\.|[va]proj\.|transformer\.")
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """uint8 ``(int(25 * seconds), 3, 224, 224)``. MediaError when the video, or one sync crop, is not filled."""
        frames = item.frames(self.video_request)
        needed = max(int(FPS * seconds), (SEGMENTS - 1) * FRAME_STEP + FRAMES)
        if len(frames) < needed:
            detail = f"{len(frames)} frames at 25 per second; Synchformer needs {needed}"
            raise MediaError(item.path, Reason.TOO_SHORT_VIDEO, detail)
        return frames[: int(FPS * seconds)]

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 ``(B, frames, 3, 224, 224)`` -> tokens."""
        assert self.module is not None
        frames = (batch.float() / 255 - 0.5) / 0.5
        segments = frames.unfold(1, FRAMES, FRAME_STEP).movedim(-1, 2)  # (B, S, 16, 3, 224, 224), a view
        return {"tokens": self.module(segments)}


class SynchformerAudio(BaseExtractor):
    """16 kHz mono, mean not removed -> 6 tokens of 768 per segment."""

    name = "synchformer-audio"
    weights_name = "synchformer"
    outputs: ClassVar[Mapping[str, str]] = {"tokens": "(B, segments, 6, 768); 24 segments for 8 s"}
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> SynchformerAudio:
        """Weights: the official file of 513 tensors; those of the other parts are not loaded."""
        with on_meta():
            network = AudioEncoder()
        checkpoint = _part(weights, "afeat_extractor.")
        digest = load_into(network, checkpoint, ignore=r"vfeat_extractor\.|[va]proj\.|transformer\.")
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> torch.Tensor:
        """``(int(16000 * seconds),)``. MediaError when the audio is shorter, or shorter than one sync crop."""
        wave = item.waveform(RATE, seconds, remove_mean=False)
        crop = (SEGMENTS - 1) * frontends.SYNCHFORMER_STEP + frontends.SYNCHFORMER_SEGMENT
        needed = max(int(RATE * seconds), crop)
        if len(wave) < needed:
            detail = f"{shortfall(len(wave), needed, RATE)}; Synchformer needs {needed / RATE:.2f} s"
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, detail)
        return wave

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, samples)`` -> tokens."""
        assert self.module is not None
        return {"tokens": self.module(frontends.synchformer_mel(batch))}


class SynchformerHead(BasePairExtractor):
    """Tokens of a video and an audio -> logits over 21 offsets, for the first and the last 14 segments."""

    name = "synchformer"
    weights_name = "synchformer"
    video = "synchformer-video"
    audio = "synchformer-audio"
    outputs: ClassVar[Mapping[str, str]] = {"logits": "(B, 2, 21): crops, offsets -2.0 ... 2.0 s"}

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> SynchformerHead:
        """Weights: the official file of 513 tensors; those of the encoders are not loaded."""
        del flavour
        with on_meta():
            network = SyncHead()
        digest = load_into(network, read(weights, "synchformer"), ignore=r"[va]feat_extractor\.")
        return cls(network, digest, device)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
        """``(B, S, 8, 768)`` and ``(B, S, 6, 768)`` -> logits ``(B, 2, 21)``. MetricError below 14 segments."""
        if min(video.shape[1], audio.shape[1]) < SEGMENTS:
            raise MetricError(
                f"DeSync needs {SEGMENTS} segments (4.8 s), got {video.shape[1]} of video and {audio.shape[1]} of audio"
            )
        first = self.module(video[:, :SEGMENTS], audio[:, :SEGMENTS])
        last = self.module(video[:, -SEGMENTS:], audio[:, -SEGMENTS:])
        return {"logits": torch.stack([first, last], dim=1)}
