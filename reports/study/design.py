"""A user study as data: which clips, samples and questions. The key, not the page, says which model made what."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import Clip, UsageError
from av_bench.schema import read_yaml
from reports.study.loudness import level_dbfs, loudness

RATE = 48_000
SPEECH = ("speech", "speaking", "speaks", "talking", "talks", "conversation", "narration", "says")
PEAK = 10 ** (-1 / 20)  # no sample is raised above -1 dBFS
QUESTIONS = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True)
class Question:
    """One statement to agree with or not; ``id`` names its column in tables."""

    id: str
    statement: str
    explanation: str = ""


@dataclass(frozen=True)
class Words:
    """All text that participants read."""

    title: str
    consent: str
    introduction: str
    scale: tuple[str, ...]
    questions: tuple[Question, ...]


def read_words(path: Path | None = None) -> Words:
    """The paper's questions, or a YAML file of the same form. UsageError for scales and ids that cannot be scored."""
    where = path or QUESTIONS
    words = read_yaml(where, Words)
    ids = [q.id for q in words.questions]
    if len(words.scale) < 2 or not ids or len(set(ids)) != len(ids):
        raise UsageError(f"{where}: a scale of two steps or more and questions with different ids are needed")
    return words


@dataclass(frozen=True)
class Rules:
    """How clips and samples are chosen. Levels in dBFS, loudness in LUFS, height in pixels of the short side."""

    clips: int = 8
    per_person: int | None = None  # clips that one participant sees; None: all
    min_height: int = 360
    without_words: tuple[str, ...] = SPEECH
    quietest: float = -50.0
    match: float | None = None  # loudness that all samples are brought to
    checks: int = 2
    seed: int = 14159265
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One sample of the study. ``token`` is all the page knows; ``gain`` is what playback was changed by, in dB."""

    token: str
    clip: str
    method: str
    gain: float
    loudness: float | None


@dataclass(frozen=True)
class Design:
    """The samples, by clip, and how many clips each rule left out."""

    samples: tuple[tuple[Sample, ...], ...]
    left_out: dict[str, int]


class Media(Protocol):
    """Where pictures and sounds come from (``av_bench.pipeline.clip_media.ClipMedia``)."""

    def clip(self, clip_id: str) -> Clip: ...
    def height(self, clip_id: str) -> int | None: ...
    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None: ...


def design(candidates: Sequence[str], methods: dict[str, str], media: Media, rules: Rules) -> Design:
    """Choose clips by the rules, in an order drawn by the seed. ``methods``: name in tables -> name of its sounds.

    A clip is taken with a sample of every method or not at all. UsageError when too few are left, with the reasons.
    """
    order = sorted(candidates)
    random.Random(rules.seed).shuffle(order)
    unknown = [name for name in rules.named if name not in candidates]
    if unknown:
        raise UsageError(f"study: {unknown[0]} is not a clip that all runs have scored")
    order = list(rules.named) or order
    left_out: dict[str, int] = {}
    groups: list[tuple[Sample, ...]] = []
    for clip_id in order:
        if len(groups) == rules.clips:
            break
        waves = {name: media.waveform(source, clip_id, RATE) for name, source in methods.items()}
        reason = _reason_against(media, clip_id, waves, rules)
        if reason is not None:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        groups.append(tuple(_sample(clip_id, name, wave, rules) for name, wave in waves.items() if wave is not None))
    wanted = len(rules.named) or rules.clips
    if len(groups) < wanted:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "there are no more"
        raise UsageError(f"study: {wanted} clips are wanted, {len(groups)} fit the rules; left out: {why}")
    return Design(tuple(groups), left_out)


def _reason_against(
    media: Media, clip_id: str, waves: dict[str, NDArray[np.float32] | None], rules: Rules
) -> str | None:
    clip = media.clip(clip_id)
    height = media.height(clip_id)
    if height is None:
        return "without a picture"
    if height < rules.min_height:
        return f"below {rules.min_height} pixels (--min-height)"
    text = f"{clip.label or ''} {clip.text or ''}".lower().replace(",", " ").split()
    if any(word in text for word in rules.without_words):
        return "with a word of speech in label or text (--without)"
    if any(wave is None for wave in waves.values()):
        return "without a sample of every method"
    if any(wave is not None and level_dbfs(wave) < rules.quietest for wave in waves.values()):
        return f"with a sample below {rules.quietest:g} dBFS (--quietest)"
    return None


def _sample(clip_id: str, method: str, wave: NDArray[np.float32], rules: Rules) -> Sample:
    loud = loudness(wave, RATE)
    gain = 0.0
    if rules.match is not None and loud is not None:
        peak = float(np.abs(wave).max())
        gain = min(rules.match - loud, 20 * float(np.log10(PEAK / peak)) if peak > 0 else 0.0)
    token = secrets.token_hex(8)  # random: the page must not reveal the method
    return Sample(token, clip_id, method, round(gain, 2), None if loud is None else round(loud, 2))
