"""Figures of the paper from run folders: spectrogram grids, sorted scores, examples with frames, RoPE affinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from av_bench.contracts import Clip, UsageError, unknown_name
from av_bench.results.record import Run, by_clip
from reports import spectrograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 7  # pt of text, as in a paper's figure
COLOURS = ("#1f5f99", "#c2571a", "#2e7d4f", "#7b4ea3", "#a8324a", "#6b5b2a", "#3b8ea5", "#555f6b")


class Media(Protocol):
    """Where pictures and sounds come from (``av_bench.pipeline.clip_media.ClipMedia``)."""

    seconds: float

    def clip(self, clip_id: str) -> Clip: ...
    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None: ...
    def frames(self, clip_id: str, fps: float, size: int) -> NDArray[np.uint8] | None: ...


@dataclass(frozen=True)
class Source:
    """A row of a grid: its name, and the name of its sounds."""

    name: str
    sounds: str


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """Write PNG, PDF or SVG by the suffix; without dates, so that the same figure is the same file."""
    for path in paths:
        if path.suffix not in (".png", ".pdf", ".svg"):
            raise UsageError(f"{path}: figures are written as .png, .pdf or .svg")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        dates: dict[str, dict[str, None]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
        figure.savefig(path, dpi=200, metadata=dates[path.suffix])


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return " ".join(text.replace("$", r"\$").split())


def spectrogram_grid(clips: Sequence[str], sources: Sequence[Source], media: Media, frames: int = 6) -> Figure:
    """One column per clip: frames, then the real sound above those of the models, with the labelled onsets as ticks.

    Strips of one clip share one scale. A missing sound leaves its place empty and says so.
    """
    if not clips or not sources:
        raise UsageError("figure spectrograms: at least one clip and one run are needed")
    heights = ([0.42] if frames else []) + [0.5] * len(sources)
    figure = _figure(0.9 + 3.1 * len(clips), sum(heights) + 0.55 + 0.04 * len(heights))
    grid = figure.add_gridspec(
        len(heights), len(clips), height_ratios=heights, hspace=0.1, wspace=0.04,
        left=0.9 / (0.9 + 3.1 * len(clips)), right=0.995, top=0.93, bottom=0.4 / (sum(heights) + 0.55),
    )  # fmt: skip
    for column, clip_id in enumerate(clips):
        clip = media.clip(clip_id)
        if frames:
            axes = figure.add_subplot(grid[0, column])
            _filmstrip(axes, media.frames(clip_id, frames / media.seconds, 96), frames)
            axes.set_title(_shortened(plain(clip.text or clip.label or clip.id), 52), fontsize=SIZE, pad=3)
        waves = [media.waveform(source.sounds, clip_id, spectrograms.RATE) for source in sources]
        strips = [None if wave is None else spectrograms.strip(wave) for wave in waves]
        loudest = max((s.loudest for s in strips if s is not None), default=0.0)
        for row, (source, strip) in enumerate(zip(sources, strips, strict=True)):
            axes = figure.add_subplot(grid[row + (1 if frames else 0), column])
            _strip(axes, strip, loudest, media.seconds, [t for t in clip.onsets or () if t < media.seconds])
            if column == 0:
                axes.set_ylabel(plain(source.name), fontsize=SIZE, rotation=0, ha="right", va="center", labelpad=4)
            if row == len(sources) - 1:
                axes.tick_params(axis="x", labelbottom=True, labelsize=SIZE - 1, length=2, pad=1)
                axes.set_xlabel("time (s)", fontsize=SIZE, labelpad=1)
    return figure


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _filmstrip(axes: Axes, pictures: NDArray[np.uint8] | None, count: int) -> None:
    axes.axis("off")
    if pictures is None or not len(pictures):
        return
    at = np.linspace(0, len(pictures) - 1, count).round().astype(int)
    axes.imshow(np.concatenate([pictures[i] for i in at], axis=1), aspect="auto", interpolation="antialiased")


def _strip(
    axes: Axes, strip: spectrograms.Strip | None, loudest: float, seconds: float, onsets: Sequence[float]
) -> None:
    axes.set_yticks([])
    axes.set_xlim(0, seconds)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_facecolor("black")
    if strip is None:
        axes.text(seconds / 2, 0.5, "no sound", color="white", fontsize=SIZE, ha="center", va="center")
        return
    extent = (0, strip.seconds, 0, 1)
    low = loudest - spectrograms.RANGE_DB
    axes.imshow(strip.levels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=loudest)
    axes.vlines(onsets, 0.78, 1.0, color="white", linewidth=0.7)
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, 1)


def per_clip_metrics(runs: Sequence[Run], wanted: Sequence[str]) -> list[str]:
    """The metrics asked for, or all that every run has per clip. UsageError for names that some run has not."""
    known = [m for m in runs[0].scores["protocol"]["metrics"] if all(m in run.per_clip() for run in runs)]
    for name in wanted:
        if name not in known:
            raise UsageError(f"--metric: {unknown_name('metric per clip', name, known)}")
    if not known:
        raise UsageError("the runs share no metric with a value per clip")
    return list(wanted) or known


def sorted_scores(runs: Sequence[Run], metrics: Sequence[str]) -> Figure:
    """One panel per metric: every model's values from the worst clip to the best (Figure A1)."""
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = _figure(2.4 * columns + 0.3, 1.9 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, metric in zip(panels.ravel(), metrics, strict=False):
        entry = runs[0].scores["metrics"][metric]
        for i, run in enumerate(runs):
            values = np.sort(run.values()[metric].dropna().to_numpy())
            values = values if entry["higher_is_better"] else values[::-1]
            share = np.linspace(0, 100, len(values)) if len(values) > 1 else np.array([50.0])
            axes.plot(share, values, color=COLOURS[i % len(COLOURS)], linewidth=1.1, label=plain(run.name))
        arrow = "↑" if entry["higher_is_better"] else "↓"
        unit = f" ({entry['unit']})" if entry["unit"] else ""
        axes.set_title(f"{plain(metric)}{unit} {arrow}", fontsize=SIZE + 1)
        axes.tick_params(labelsize=SIZE - 1, length=2)
        axes.grid(color="#e3e7eb", linewidth=0.5)
        axes.set_xlabel("clips, from worst to best (%)", fontsize=SIZE)
    for axes in panels.ravel()[len(metrics) :]:
        axes.axis("off")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.25 / (1.9 * lines + 0.5)))
    figure.legend(handles, names, loc="upper center", ncols=min(6, len(names)), fontsize=SIZE, frameon=False)
    return figure


def extremes(first: Run, second: Run, metric: str, count: int) -> list[str]:
    """Clips where the first run is furthest ahead of the second, then those where it is furthest behind."""
    ours, theirs = (run.values()[metric].dropna() for run in (first, second))
    gap = (ours - theirs).dropna()
    if not first.scores["metrics"][metric]["higher_is_better"]:
        gap = -gap
    order = list(gap.sort_values(ascending=False, kind="stable").index.get_level_values("id"))
    count = min(count, len(order) // 2)
    return [*order[:count], *order[len(order) - count :]]


def examples(clips: Sequence[str], runs: Sequence[Run], metric: str, media: Media, frames: int = 3) -> Figure:
    """Frames of clips with their text and every model's score (Figure A2)."""
    if not clips:
        raise UsageError("figure examples: too few clips have a value in both runs")
    figure = _figure(3.4 * len(clips), 1.55 + 0.16 * len(runs))
    scores = [by_clip(run.values()[metric]) for run in runs]
    for column, clip_id in enumerate(clips):
        clip = media.clip(clip_id)
        axes = figure.add_axes((column / len(clips) + 0.01, 0.42, 1 / len(clips) - 0.02, 0.56))
        _filmstrip(axes, media.frames(clip_id, frames / media.seconds, 160), frames)
        text = [_shortened(plain(clip.text or clip.label or clip.id), 54)]
        for run, known in zip(runs, scores, strict=True):
            text += [f"{plain(metric)}, {plain(run.name)}: {known[clip_id]:.4g}"] if clip_id in known else []
        figure.text(column / len(clips) + 0.01, 0.4, "\n".join(text), fontsize=SIZE, va="top", linespacing=1.4)
    return figure


def rope_affinity(default: NDArray[np.float64], aligned: NDArray[np.float64], seconds: float) -> Figure:
    """Affinities ``(audio tokens, visual tokens)`` of two constant sequences under both embeddings (Figure A5)."""
    figure = _figure(4.6, 2.5)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, matrix, name in zip(panels, (default, aligned), ("default RoPE", "aligned RoPE"), strict=True):
        axes.imshow(matrix, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest")
        tokens = np.arange(matrix.shape[1])
        axes.plot(tokens, tokens * matrix.shape[0] / matrix.shape[1], color="white", linewidth=0.6, linestyle=":")
        axes.set_xlim(-0.5, matrix.shape[1] - 0.5)
        axes.set_ylim(-0.5, matrix.shape[0] - 0.5)
        axes.set_title(name, fontsize=SIZE + 1)
        axes.set_xlabel(f"visual token ({matrix.shape[1]} in {seconds:g} s)", fontsize=SIZE)
        axes.tick_params(labelsize=SIZE - 1, length=2)
    panels[0].set_ylabel(f"audio token ({default.shape[0]} in {seconds:g} s)", fontsize=SIZE)
    figure.tight_layout()
    return figure
