"""Shared fixtures: an own cache folder for every test run, small real media files, the folder of golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import compiled, no_skips

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SLOW = ("paper", "parity")  # minutes long


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--no-skips-of``."""
    no_skips.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """``--no-skips-of``, and the cache of compiled code for workers."""
    no_skips.register(config)
    if config.getoption("numprocesses", None):
        compiled.fill()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run slow tests, and those of the paper's networks, when a marker expression or a file asks for them."""
    if config.option.markexpr or config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    later = pytest.mark.skip(reason="takes minutes; ask for it with -m slow, -m paper, -m parity or by file")
    for item in items:
        networks = item.path.parent.name in ("extractors", "golden") and any(map(item.get_closest_marker, SLOW))
        if networks or item.get_closest_marker("slow"):
            item.add_marker(later)


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


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compiled code is in the workers' cache."""
    compiled.wait()


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
