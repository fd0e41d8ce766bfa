"""What mmaudio-nano's codec loses: real sound through it, on scenes of train that no stage was trained on.

    PYTHONPATH=. python benchmarks/nano_codec.py --corpus runs/nano/corpus --codec runs/nano/codec.safetensors

The codec that ships is always measured, and paired differences are to it. ``--picture`` draws spectrograms of six
scenes, real above each codec. Test clips are not touched, so choices may be made by what is seen here.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_bench.extractors.nano import NanoTagger
from av_bench.metrics.divergence import kl_divergence
from av_bench.metrics.frechet import frechet_distance
from model_zoo.mmaudio.codec.mel import log_mel
from model_zoo.mmaudio.nano.codec import NanoCodec, read_codec
from model_zoo.mmaudio.nano.model import CODEC, WEIGHTS
from model_zoo.mmaudio.nano.recipe import CLIPS
from model_zoo.mmaudio.nano.stage_files import HOLDOUT
from model_zoo.scorers.corpus import corpus
from reports import spectrograms

BATCH = 8
PICTURED = 6  # scenes
RESAMPLES = 2000


@dataclass(frozen=True)
class Judged:
    """What nano-tagger says of sounds: embeddings ``(n, 64)`` and logits ``(n, 24)``."""

    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]


@torch.no_grad()
def judge(tagger: nn.Module, waves: Tensor) -> Judged:
    """Waves ``(n, 128000)`` through the tagger."""
    parts = [tagger(part) for part in waves.split(BATCH)]
    embeddings, logits = (torch.cat(found).numpy() for found in zip(*parts, strict=True))
    return Judged(embeddings, logits)


@torch.no_grad()
def through(codec: NanoCodec, waves: Tensor, whole: bool) -> Tensor:
    """Waves through mel and vocoder, or through the whole codec."""
    made = []
    for part in waves.split(BATCH):
        mel = log_mel(part, codec.config.mel)
        mel = codec.vae.decode(codec.vae.encode(mel).mean) if whole else mel
        made.append(codec.vocoder(mel).clamp(-1, 1))
    return torch.cat(made)


def interval(values: NDArray[np.float64]) -> str:
    """Mean and its 95 % interval over clips (bootstrap)."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def peaks(made: Tensor, real: Tensor) -> float:
    """Median over clips of how high the peak is, relative to the real one."""
    return float((made.abs().amax(dim=1) / real.abs().amax(dim=1)).median())


def picture(rows: list[Tensor], file: Path) -> None:
    """One row of strips per kind of sound, one column per scene."""
    from PIL import Image

    strips = [[spectrograms.strip(wave.numpy()) for wave in row[:PICTURED]] for row in rows]
    width, height, gap = 260, 96, 4
    sheet = Image.new("RGB", (PICTURED * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for column in range(PICTURED):
        loudest = strips[0][column].loudest
        for row, line in enumerate(strips):
            found = Image.open(io.BytesIO(spectrograms.png(line[column], loudest, width, height)))
            sheet.paste(found, (column * (width + gap), row * (height + gap)))
    sheet.quantize(128).save(file, optimize=True)


def main() -> None:
    """Table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--codec", type=Path, nargs="*", default=[], help="weight files of other codecs")
    parser.add_argument("--scenes", type=int, default=HOLDOUT)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()

    audio = corpus(given.corpus, "train", CLIPS).audio[CLIPS - HOLDOUT :][: given.scenes]
    real = torch.from_numpy(audio.astype(np.float32) / 32767)
    tagger = NanoTagger.build(None).module
    assert tagger is not None
    wanted, rows = judge(tagger, real), [real]
    first: dict[bool, NDArray[np.float64]] = {}
    for file in (WEIGHTS / CODEC, *given.codec):
        codec = read_codec(file)
        for whole in (False, True):
            made = through(codec, real, whole)
            found = judge(tagger, made)
            kl = kl_divergence(wanted.logits, found.logits)
            distance = frechet_distance(wanted.embeddings, found.embeddings)
            what = "codec" if whole else "mel and vocoder"
            print(f"{file.name}, {what}: KL-nano {interval(kl)}, FD-nano {distance:.1f}, peaks {peaks(made, real):.3f}")
            print(f"  KL-nano less that of the codec that ships {interval(kl - first.get(whole, kl))}", flush=True)
            first.setdefault(whole, kl)
        rows.append(made)
    if given.picture is not None:
        picture(rows, given.picture)


if __name__ == "__main__":
    main()
