"""Prints what was measured (the tables of docs/precision.md), and sounds that both programs of a comparison read."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_bench.media.decode import decode
from tests.extractors import golden_pipeline


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
