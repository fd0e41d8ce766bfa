"""Shared fixtures: an own cache folder for every test run, small real media files, the folder of golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files and real clips, kept outside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no golden files: {SHARED} does not exist")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's caches."""
    os.environ["AV_BENCH_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(12345)


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small real mp4 (see ``tests.media_files.write_video``) into the test's folder."""
    from tests.media_files import write_video as write

    def make(name: str = "clip.mp4", **options: object) -> Path:
        path = tmp_path / name
        write(path, **options)  # type: ignore[arg-type]
        return path

    return make
