"""Prints what the tests measured against originals and float64: the source of the tables in docs/precision.md."""

from __future__ import annotations

import pytest

from tests.extractors import golden_pipeline


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not golden_pipeline.MEASURED:
        return
    terminalreporter.section("largest differences measured")
    terminalreporter.write_line("| what | against | difference | unit |\n|---|---|---|---|")
    for what, against, value, unit in golden_pipeline.MEASURED:
        terminalreporter.write_line(f"| {what} | {against} | {value:.1e} | {unit} |")
