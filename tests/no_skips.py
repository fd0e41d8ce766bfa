"""``--no-skips-of MARKER``: a skipped test with that marker is a failed one, and so is a run that compared nothing.

A skip says "not here". Where packages and files are promised (``tox -e paper``), it hides that nothing was compared.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

OPTION = "--no-skips-of"
FLAG = "of_a_marker_without_skips"  # on a report; travels from the workers of xdist


def add_option(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption(OPTION, metavar="MARKER", default=None, help="count skipped tests with this marker as failed")


def register(config: pytest.Config) -> None:
    """Switch it on when it was asked for."""
    if marker := config.getoption(OPTION):
        config.pluginmanager.register(NoSkips(config, str(marker)), "no-skips")


class NoSkips:
    """The hooks; on the controller of xdist the counter sees the reports of all workers."""

    def __init__(self, config: pytest.Config, marker: str) -> None:
        self.config, self.marker = config, marker
        self.ran = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A skip becomes a failure that names its reason; an expected failure stays one."""
        report = yield
        if item.get_closest_marker(self.marker) is not None:
            setattr(report, FLAG, True)
            if report.skipped and not hasattr(report, "wasxfail"):
                report.outcome, report.longrepr = "failed", self._said(report.longrepr)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """The same for a module that is skipped as a whole."""
        report = yield
        is_module = report.skipped and isinstance(collector, pytest.Module)
        if is_module and f"mark.{self.marker}" in collector.path.read_text(encoding="utf8"):
            report.outcome, report.longrepr = "failed", self._said(report.longrepr)
        return report

    def _said(self, reason: Any) -> str:
        told = reason[2] if isinstance(reason, tuple) else reason
        return f"{OPTION} {self.marker}: must not be skipped, but was: {told}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what ran to its end, well or badly."""
        self.ran += report.when == "call" and FLAG in report.__dict__

    def _nothing_compared(self) -> bool:
        chosen = self.config.option.keyword or self.config.args_source is pytest.Config.ArgsSource.ARGS
        return not (self.ran or chosen or self.config.option.collectonly or "workerinput" in self.config.__dict__)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A whole run without one marked test fails."""
        if self._nothing_compared() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say why."""
        if self._nothing_compared():
            terminalreporter.write_line(f"{OPTION} {self.marker}: no test marked {self.marker} ran", red=True)
