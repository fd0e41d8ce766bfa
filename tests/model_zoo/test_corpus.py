"""The corpus of the nano networks: rendered once, by one process, and taken up where it was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av_bench.contracts import MissingRequirement, UsageError
from av_bench.runtime.files import lock
from model_zoo.scorers import corpus as corpus_module
from tests.model_zoo.mmaudio.goldens import full_disk


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_a_killed_rendering_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_KEEP", 1)
    seen: list[int] = []

    def killed(*_: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        corpus_module.corpus(tmp_path, "train", 10, 1, killed)
    made = corpus_module.corpus(tmp_path, "train", 10, 1, lambda done, _: seen.append(done))
    assert seen == [10]  # the first eight were there
    assert not (tmp_path / "part.json").exists()
    for row in (0, 7, 9):
        arrays, label = corpus_module.render_item("train", row)
        assert made.labels[made.classes[row]] == label
        for name, array in arrays.items():
            np.testing.assert_array_equal(getattr(made, name)[row], array)


@pytest.mark.slow
def test_an_array_that_is_gone_is_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_KEEP", 1)

    def killed(*_: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        corpus_module.corpus(tmp_path, "train", 9, 1, killed)
    (tmp_path / "grey.npy").unlink()
    made = corpus_module.corpus(tmp_path, "train", 9, 1)
    np.testing.assert_array_equal(made.grey[0], corpus_module.render_item("train", 0)[0]["grey"])


def test_one_process_renders(tmp_path: Path) -> None:
    with lock(tmp_path / ".lock") as mine:
        assert mine
        with pytest.raises(UsageError, match="another process renders there"):
            corpus_module.corpus(tmp_path, "train", 10, 1)


def test_a_disk_without_room_is_said_before_anything_is_rendered(tmp_path: Path) -> None:
    with full_disk(1_000_000), pytest.raises(MissingRequirement, match=r"no room for 0\.\d GB .*Free some disk space"):
        corpus_module.corpus(tmp_path, "train", 400, 1)
    assert not list(tmp_path.glob("*.npy"))
