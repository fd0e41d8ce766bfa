"""Figures: what is drawn comes from the runs and from the network's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from av_bench.cli.figure import affinity
from av_bench.contracts import Clip, UsageError
from av_bench.results.record import read_run
from reports import figures, spectrograms
from tests.runs import make_run


class Sounds:
    """A beep at 0.5 s, labelled; one model is silent, another has no sound."""

    seconds = 2.0

    def clip(self, clip_id: str) -> Clip:
        return Clip(clip_id, text="a $beep$", onsets=(0.5, 3.0))

    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None:
        assert clip_id == "c"
        wave = np.zeros(2 * rate, np.float32)
        if name == "none":
            return None
        if name == "real":
            wave[rate // 2 : rate // 2 + 800] = np.sin(2 * np.pi * 1000 * np.arange(800) / rate)
        return wave

    def frames(self, clip_id: str, fps: float, size: int) -> NDArray[np.uint8] | None:
        return np.full((round(2 * fps), size, size, 3), len(clip_id), np.uint8)


def test_real_stands_above_the_models_with_the_onsets_inside_the_window() -> None:
    names = ("real", "silent", "none")
    figure = figures.spectrogram_grid(["c"], [figures.Source(n, n) for n in names], Sounds(), frames=4)
    strips = [axes for axes in figure.axes if axes.get_ylabel() in names]
    assert [axes.get_ylabel() for axes in strips] == list(names)
    places = [axes.get_position().y0 for axes in strips]
    assert places == sorted(places, reverse=True)
    (ticks,) = strips[0].collections
    assert [segment[0][0] for segment in ticks.get_segments()] == [0.5]
    levels = strips[0].images[0].get_array()
    loudest = np.unravel_index(int(np.argmax(levels)), levels.shape)[1] * 0.01
    assert loudest == pytest.approx(0.52, abs=0.03)
    assert [t.get_text() for t in strips[2].texts] == ["no sound"]


def test_sorted_scores_go_from_worst_to_best(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / n, n, shift=s)) for n, s in (("a", 0.0), ("b", 0.4))]
    assert figures.per_clip_metrics(runs, []) == ["KL-x", "F1"]
    figure = figures.sorted_scores(runs, ["KL-x", "F1"])
    lower, higher = (axes.lines[0].get_ydata() for axes in figure.axes[:2])
    assert list(lower) == sorted(runs[0].values()["KL-x"], reverse=True)
    assert list(higher) == sorted(runs[0].values()["F1"])
    with pytest.raises(UsageError, match="unknown metric per clip 'FD-x'"):
        figures.per_clip_metrics(runs, ["FD-x"])


def test_examples_are_where_two_runs_differ_most(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / n, n, seed=i)) for i, n in enumerate("ab")]
    best, worst = figures.extremes(runs[0], runs[1], "KL-x", 1)
    gap = (runs[1].values()["KL-x"] - runs[0].values()["KL-x"]).droplevel("group")
    assert (best, worst) == (gap.idxmax(), gap.idxmin())


def test_alignment_of_rope_is_that_of_the_network() -> None:
    """Token i of 64 meets token 250 / 64 i of 250 when aligned, and token i when not (appendix G.6)."""
    aligned, default = affinity(aligned=True), affinity(aligned=False)
    tokens = np.arange(64)
    assert np.abs(aligned.argmax(axis=0) - tokens * 250 / 64).max() <= 1
    assert (default.argmax(axis=0) == tokens).all()


def test_figures_are_the_same_files_again_and_only_in_known_forms(tmp_path: Path) -> None:
    files = [[tmp_path / f"{i}.{suffix}" for suffix in ("png", "pdf", "svg")] for i in range(2)]
    for some in files:
        figures.save(figures.rope_affinity(affinity(aligned=False), affinity(aligned=True), 8.0), some)
    for first, second in zip(*files, strict=True):
        if first.suffix != ".svg":  # matplotlib names parts of an SVG at random
            assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UsageError, match=r"\.png, \.pdf or \.svg"):
        figures.save(None, [tmp_path / "x.gif"])


def test_a_strip_shows_the_pitch() -> None:
    wave = np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000).astype(np.float32)
    found = spectrograms.strip(wave)
    assert found.seconds == pytest.approx(1.0, abs=0.02)
    from librosa import mel_frequencies

    row = int(found.levels[:, 50].argmax())
    assert mel_frequencies(98, fmax=8000)[row + 1] == pytest.approx(2000, rel=0.04)
    assert spectrograms.png(found, found.loudest)[:8] == b"\x89PNG\r\n\x1a\n"
