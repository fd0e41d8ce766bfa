"""Command line of av-bench."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from av_bench.cli.app import main as run_app

    run_app()
