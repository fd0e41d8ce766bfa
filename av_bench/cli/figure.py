"""`av-bench figure`: the figures of the paper from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from av_bench.contracts import UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from av_bench.pipeline.clip_media import ClipMedia
    from av_bench.results.record import Run

app = typer.Typer(no_args_is_help=True)
Runs = Annotated[list[Path], typer.Argument(help="Run folders of one set.")]
Out = Annotated[list[Path], typer.Option("--out", help="File: .png, .pdf or .svg; may be given several times.")]
Clips = Annotated[list[str] | None, typer.Option("--clip", help="A clip by id; may be given several times.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the set's videos \\[default: the runs'].")]
TableFile = Annotated[Path | None, typer.Option("--table", help="Table of the set \\[default: the runs'].")]
Lists = Annotated[Path | None, typer.Option(help="Lists of the set \\[default: the runs'].")]
LENGTHS = (250, 64, 64)  # audio tokens, visual tokens, channels: 8 s at 31.25 and 8 per second (appendix G.6)


@app.command()
def spectrograms(
    runs: Runs,
    out: Out,
    clip: Clips = None,
    count: Annotated[int, typer.Option(min=1, help="Clips, drawn by the seed, where none is named.")] = 2,
    frames: Annotated[int, typer.Option(min=0, help="Frames above the strips.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 14159265,
    data: Data = None,
    table_file: TableFile = None,
    lists: Lists = None,
) -> None:
    """Real sound above the models', for some clips (Figures 3, A6 to A8)."""
    import random

    from reports import figures

    found, media = _media(runs, data, table_file, lists)
    names = sorted(media.clips)
    chosen = clip or random.Random(seed).sample(names, min(count, len(names)))
    _known(chosen, names)
    sources = [figures.Source("real", "real"), *(figures.Source(r.name, str(r.path)) for r in found)]
    _save(figures.spectrogram_grid(chosen, sources, media, frames), out)


@app.command("sorted")
def sorted_command(
    runs: Runs,
    out: Out,
    metric: Annotated[list[str] | None, typer.Option(help="Metrics \\[default: all per clip].")] = None,
) -> None:
    """Every model's scores from the worst clip to the best (Figure A1)."""
    from av_bench.results.record import read_run
    from reports import figures

    found = [read_run(path) for path in runs]
    _save(figures.sorted_scores(found, figures.per_clip_metrics(found, metric or [])), out)


@app.command()
def examples(
    runs: Runs,
    out: Out,
    metric: Annotated[str | None, typer.Option(help="Metric per clip \\[default: the first].")] = None,
    clip: Clips = None,
    count: Annotated[int, typer.Option(min=1, help="Clips at each end, where none is named.")] = 1,
    data: Data = None,
    table_file: TableFile = None,
    lists: Lists = None,
) -> None:
    """Clips where the first run is furthest ahead of the second, and furthest behind: frames and scores (Figure A2)."""
    from reports import figures

    found, media = _media(runs, data, table_file, lists)
    if len(found) < 2:
        raise UsageError("figure examples: two runs are needed")
    name = figures.per_clip_metrics(found, [metric] if metric else [])[0]
    chosen = clip or figures.extremes(found[0], found[1], name, count)
    _known(chosen, sorted(media.clips))
    _save(figures.examples(chosen, found, name, media), out)


@app.command()
def rope(out: Out) -> None:
    """Affinity of audio and visual tokens under default and aligned RoPE, from the network's code (Figure A5)."""
    from reports import figures

    _save(figures.rope_affinity(affinity(aligned=False), affinity(aligned=True), 8.0), out)


def affinity(*, aligned: bool) -> NDArray[np.float64]:
    """Dot products ``(250, 64)`` of two sequences of ones after the network's rotary embedding."""
    import torch

    from model_zoo.mmaudio.flow.rope import rotate, rotations

    audio, visual, channels = LENGTHS
    scale = audio / visual if aligned else 1.0
    first = rotate(torch.ones(1, 1, audio, channels), rotations(audio, channels))[0, 0]
    second = rotate(torch.ones(1, 1, visual, channels), rotations(visual, channels, scale))[0, 0]
    found: NDArray[np.float64] = (first.double() @ second.double().T).numpy()
    return found


def _media(runs: list[Path], data: Path | None, table: Path | None, lists: Path | None) -> tuple[list[Run], ClipMedia]:
    from av_bench.pipeline.clip_media import clip_media
    from av_bench.results.record import read_run

    found = [read_run(path) for path in runs]
    return found, clip_media(found, data=data, table=table, lists=lists)


def _known(chosen: list[str], names: list[str]) -> None:
    for name in chosen:
        if name not in names:
            raise UsageError(f"--clip: {unknown_name('clip', name, names)}")


def _save(figure: Figure, out: list[Path]) -> None:
    from reports import figures

    figures.save(figure, out)
    typer.echo("\n".join(str(path) for path in out))
