"""What a clip is generated from: its raw conditions, window by window, and which clips have any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from av_bench.contracts import Clip, ClipSet, MediaError, Modality, Reason, UsageError
from av_bench.features.store import Store
from av_bench.runtime.devices import own_stream
from model_zoo.mmaudio.conditions.published import still, stretches, words
from model_zoo.mmaudio.interfaces import Conditioner
from model_zoo.mmaudio.sampling.settings import Settings
from model_zoo.mmaudio.sampling.windows import Windows

LONGEST_TEXT = 5000  # characters; text encoders read the first 77 tokens, or 24 words


def text_of(clip: Clip) -> str:
    """A clip's text; one of blanks is none."""
    return (clip.text or "").strip()


def negative_of(clip: Clip) -> str:
    """A clip's own negative text; one of blanks is none."""
    return (clip.negative or "").strip()


@dataclass
class Inputs:
    """Raw conditions of one clip, one row per window; None where the modality is missing."""

    clip: Clip
    visual: Tensor | None = None
    sync: Tensor | None = None
    text: Tensor | None = None
    negative: Tensor | None = None
    problem: MediaError | None = None
    seconds: float | None = 0.0  # what the networks took for them; None when the store had the video's tokens


def has_condition(clip: Clip, conditions: Collection[Modality]) -> bool:
    """Whether a clip has any of the conditions that are to be used. A still picture counts as a video."""
    has_video, has_text = clip.video is not None or clip.image is not None, bool(text_of(clip))
    return ("video" in conditions and has_video) or ("text" in conditions and has_text)


def check_clips(name: str, clips: ClipSet, conditions: Collection[Modality], settings: Settings) -> None:
    """UsageError when no clip has any condition that is to be used, or when a text cannot be."""
    if conditions and not any(has_condition(clip, conditions) for clip in clips.clips):
        wanted = " or a ".join(sorted(conditions, reverse=True))
        raise UsageError(f"{name}: no clip of set {clips.name} has a {wanted}; `conditions` names what is used")
    for clip in clips.clips:
        for text in (clip.text, clip.negative):
            if text is not None and len(text) > LONGEST_TEXT:
                raise UsageError(
                    f"{name}: clip {clip.id}: a text of {len(text):,} characters; at most {LONGEST_TEXT:,} are taken, "
                    "and the text encoder reads the first few dozen words: write a caption"
                )
        if negative_of(clip) and not settings.guided:
            raise UsageError(
                f"{name}: clip {clip.id} has a negative text; it is used by the unconditional pass, which "
                f"cfg={settings.cfg:g} leaves out"
            )


@dataclass(frozen=True)
class InputReader:
    """Decodes clips and computes their conditions; the networks' results are kept in ``store`` where there is one."""

    conditioner: Conditioner
    conditions: frozenset[Modality]
    windows: Windows
    seconds: float
    store: Store | None
    device: torch.device

    @torch.no_grad()
    def read(self, clip: Clip) -> Inputs:
        """The conditions of one clip; ``problem`` says why there are none."""
        inputs = Inputs(clip)
        try:
            if self.conditions and not has_condition(clip, self.conditions):
                wanted = " or ".join(sorted(self.conditions))
                detail = f"no {wanted} to generate from; conditions=none generates from nothing"
                raise MediaError(clip.id, Reason.NO_VIDEO if "video" in self.conditions else Reason.NO_TEXT, detail)
            with own_stream(self.device):
                if "video" in self.conditions:
                    self._look(inputs)
                if "text" in self.conditions and (text := text_of(clip)):
                    inputs.text = self._words(inputs, text)
                if negative := negative_of(clip):
                    inputs.negative = self._words(inputs, negative)
        except MediaError as error:
            inputs.problem = error
        return inputs

    def _look(self, inputs: Inputs) -> None:
        """Visual and sync tokens of the video; of a still picture visual ones only, since nothing moves in it."""
        cut, clip = self.windows, inputs.clip
        if clip.video is not None:
            inputs.visual, inputs.sync, inputs.seconds = stretches(
                self.conditioner, clip.video, self.seconds, cut.seconds, cut.starts, self.store
            )
        elif clip.image is not None:
            inputs.visual, inputs.seconds = still(self.conditioner, clip.image, cut.seconds, len(cut), self.store)

    def _words(self, inputs: Inputs, text: str) -> Tensor:
        tokens, seconds = words(self.conditioner, text, self.store)
        inputs.seconds = None if inputs.seconds is None else inputs.seconds + seconds
        return tokens.expand(len(self.windows), -1, -1)
