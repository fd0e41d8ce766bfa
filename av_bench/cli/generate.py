"""`av-bench generate`: sound for one video, one picture or one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from av_bench.contracts import DEFAULT_SEED


def generate(
    out: Annotated[Path, typer.Option(help="File to write: .wav, .flac, or .mp4 (the video with the sound).")],
    video: Annotated[
        Path | None, typer.Option(help="Video, or a still picture (.png, .jpg, .webp, .bmp, .tif).")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What is to be heard.")] = None,
    negative: Annotated[str | None, typer.Option(help="What is not to be heard (needs guidance).")] = None,
    model: Annotated[str, typer.Option(help="Model with its options, e.g. mmaudio-l:steps=10.")] = "mmaudio-nano",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = DEFAULT_SEED,
    seconds: Annotated[
        float | None, typer.Option(help="Duration \\[default: 8, or the video's if it is shorter].")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Make the sound of one video, one still picture or one text, without a set.

    A video gives the same sample as `av-bench run --set clips` on its folder, with the same text and seed.
    """
    from av_bench.pipeline.one_clip import OneClip, generate_one

    asked = OneClip(out, video, text, negative, model, seed, seconds, device)
    typer.echo(f"{out}: {generate_one(asked):.2f} s")
