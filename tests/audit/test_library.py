"""The files that stay decoded between two verifications: by bytes, not by number, since files may be long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av_bench.audit import library


def test_the_latest_views_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def view(path: Path) -> library.View:
        decoded.append(path.name)
        size = 100 if path.name == "long" else 10
        return np.zeros((size, 1, 1), np.float32), None

    monkeypatch.setattr(library, "_view", view)
    views = library._Views(budget=160)
    for name in ("a", "b", "a", "c", "d", "e", "a", "b"):
        views(Path(name))
    assert decoded == ["a", "b", "c", "d", "e", "b"]  # b had to go for e, a was asked for meanwhile
    assert views.held == 160
    assert views(Path("long"))[0].nbytes == 400  # alone beyond the budget, and still served
    assert views.held == 400
    views(Path("a"))
    assert views.held == 40
