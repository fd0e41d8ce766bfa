"""Thumbnails that stay decoded between two verifications: by bytes, not by number, and only a part of long files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av_bench.audit import excerpts


def test_the_latest_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def read(path: Path, start: float, _end: float) -> excerpts.Excerpt:
        decoded.append(path.name)
        return excerpts.Excerpt(start, np.zeros((100 if path.name == "long" else 10, 1, 1), np.uint8))

    monkeypatch.setattr(excerpts, "read", read)
    kept = excerpts.Excerpts(budget=40)
    for name in ("a", "b", "a", "c", "d", "e", "a", "b"):
        kept.get(Path(name), 10, 0, 5)
    assert decoded == ["a", "b", "c", "d", "e", "b"]  # b had to go for e, a was asked for meanwhile
    assert kept.held == 40
    assert len(kept.get(Path("long"), 10, 0, 5).frames) == 100  # alone beyond the budget, and still served
    assert kept.held == 100
    kept.get(Path("a"), 10, 0, 5)
    assert kept.held == 10


def test_of_a_long_file_a_part_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def read(_path: Path, start: float, end: float) -> excerpts.Excerpt:
        asked.append((start, end))
        return excerpts.Excerpt(start, np.zeros((1, 1, 1), np.uint8))

    monkeypatch.setattr(excerpts, "read", read)
    kept = excerpts.Excerpts(budget=1000)
    kept.get(Path("film"), 5400, 1000, 1010)
    kept.get(Path("film"), 5400, 1005, 1015)  # on the same grid: not decoded again
    kept.get(Path("film"), 5400, 3, 9)
    assert asked == [(960.0, 1050.0), (0.0, 60.0)]
