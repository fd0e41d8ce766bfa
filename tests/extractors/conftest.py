"""Keeps the minutes-long tests out of a plain run, and prints what was measured (the tables of docs/precision.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_bench.media.decode import decode
from tests.extractors import golden_pipeline

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tests marked paper or parity when a marker expression or a file asks for them."""
    if config.option.markexpr or config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    later = pytest.mark.skip(reason="takes minutes; ask for it with -m paper, -m parity or by file")
    for item in items:
        if HERE in item.path.parents and any(item.get_closest_marker(name) for name in ("paper", "parity")):
            item.add_marker(later)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Largest differences from originals and from float64."""
    if not golden_pipeline.MEASURED:
        return
    terminalreporter.section("largest differences measured")
    terminalreporter.write_line("| what | against | difference | unit |\n|---|---|---|---|")
    for what, against, value, unit in golden_pipeline.MEASURED:
        terminalreporter.write_line(f"| {what} | {against} | {value:.1e} | {unit} |")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The clips' audio as float wav at its own rate and channels: both programs read the same files."""
    import soundfile

    folder, paths = tmp_path_factory.mktemp("sounds"), []
    for clip in golden_pipeline.SIDE_CLIPS:
        item = decode(golden_pipeline.SHARED / f"clips/{clip}.mp4")
        assert item.audio is not None
        paths.append(folder / f"{clip}.wav")
        soundfile.write(paths[-1], item.audio.T.numpy(), item.sample_rate, subtype="FLOAT")
    return paths
