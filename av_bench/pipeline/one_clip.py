"""One sample of one clip, without a set: a video, a still picture or a text in, a file out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch

import model_zoo
from av_bench.contracts import (
    DEFAULT_SEED,
    Clip,
    ClipSet,
    Generated,
    Generator,
    MediaError,
    Reason,
    UsageError,
    check_id,
    plugin_boundary,
)
from av_bench.media.decode import decode
from av_bench.media.mux import mux
from av_bench.media.still import IMAGE_SUFFIXES
from av_bench.pipeline.generate import checked
from av_bench.runtime.devices import check_device
from av_bench.runtime.files import atomic_path

SECONDS = 8.0  # made unless another duration is asked for, or the video is shorter
SUFFIXES = (".wav", ".flac", ".mp4")


@dataclass(frozen=True)
class OneClip:
    """What is asked for. ``video`` may be a still picture; ``seconds`` None: 8 s, or the video's length if shorter."""

    out: Path
    video: Path | None = None
    text: str | None = None
    negative: str | None = None
    model: str = "mmaudio-nano"
    seed: int = DEFAULT_SEED
    seconds: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.video is None and not (self.text or "").strip():
            raise UsageError("generate: give --video FILE (or a picture), --text TEXT, or both")
        if self.out.suffix.lower() not in SUFFIXES:
            raise UsageError(f"generate: --out {self.out}: the suffix must be one of {', '.join(SUFFIXES)}")
        if self.out.suffix.lower() == ".mp4" and (self.video is None or self.still):
            raise UsageError(f"generate: --out {self.out}: an mp4 needs --video; write .wav or .flac")
        if self.out.is_dir():
            raise UsageError(f"generate: --out {self.out} is a folder; name a file")
        if self.video is not None and self.out.exists() and self.out.samefile(self.video):
            raise UsageError(f"generate: --out {self.out} is the video itself; choose another file")

    @property
    def still(self) -> bool:
        """Whether ``video`` is a picture."""
        return self.video is not None and self.video.suffix.lower() in IMAGE_SUFFIXES

    def clip(self) -> Clip:
        """The clip, with the id that it would have in a folder of videos: its noise is the same as in a run."""
        video, image = (None, self.video) if self.still else (self.video, None)
        return Clip(_id(self.video), video, text=self.text, image=image, negative=self.negative)


def generate_one(asked: OneClip) -> float:
    """Make the sample and write it, whole or not at all; returns its seconds.

    UsageError for a model that makes no samples itself; MediaError with the reason when the clip cannot be used.
    """
    check_device(asked.device)
    source = model_zoo.load(asked.model)
    if not isinstance(source, Generator):
        raise UsageError(f"generate: {asked.model} makes samples of whole sets only: use `av-bench run`")
    clip, seconds = asked.clip(), _seconds(asked)
    with plugin_boundary(f"model {asked.model}"):
        source.place(asked.device)
        _set_up(source, asked, clip, seconds)
        made = checked(next(iter(source.generate([clip], asked.seed))))
    if made.audio is None or made.sample_rate is None:
        raise _refused(made, asked)
    _write(asked, made.audio, made.sample_rate, seconds)
    return made.audio.shape[1] / made.sample_rate


def _set_up(source: Generator, asked: OneClip, clip: Clip, seconds: float) -> None:
    try:
        source.setup(ClipSet("generate", "1", (clip,)), seconds, asked.seed)
    except UsageError as error:
        if asked.video is None or asked.still or asked.seconds is not None or seconds >= SECONDS:
            raise
        raise MediaError(asked.video, Reason.TOO_SHORT_VIDEO, f"it lasts {seconds:.2f} s; {error}") from error


def _seconds(asked: OneClip) -> float:
    if asked.seconds is not None or asked.video is None or asked.still:
        return SECONDS if asked.seconds is None else asked.seconds
    found = decode(asked.video, audio=False).video_seconds
    if found is None:
        raise MediaError(asked.video, Reason.NO_VIDEO, "the file has no picture")
    return min(SECONDS, found)


def _id(path: Path | None) -> str:
    """The file's name without its suffix; "clip" where that is not an id, or without a file."""
    try:
        stem = "clip" if path is None else path.stem
        check_id(stem, "generate")
    except UsageError:
        return "clip"
    return stem


def _refused(made: Generated, asked: OneClip) -> MediaError:
    reason = made.reason or Reason.GENERATOR_FAILED
    where = asked.video or "generate"
    return MediaError(where, reason, made.detail.removeprefix(f"{where}: {reason.value}: "))


def _write(asked: OneClip, audio: torch.Tensor, rate: int, seconds: float) -> None:
    """24-bit wav or flac, a float wav where it exceeds full scale; in an mp4 the video with this sound."""
    samples, kind = audio.cpu().numpy().T, asked.out.suffix.lower()
    if kind == ".mp4" and asked.video is not None:
        with tempfile.TemporaryDirectory() as folder:
            sound = Path(folder) / "sound.wav"
            soundfile.write(sound, samples, rate, subtype="FLOAT")
            mux(asked.video, sound, asked.out, seconds)
        return
    loud = float(abs(samples).max()) > 1
    if loud and kind == ".flac":
        raise UsageError(f"generate: the sound exceeds full scale, which flac cannot hold; write {asked.out.stem}.wav")
    with atomic_path(asked.out, keep_suffix=True) as temporary:
        soundfile.write(temporary, samples, rate, subtype="FLOAT" if loud else "PCM_24")
