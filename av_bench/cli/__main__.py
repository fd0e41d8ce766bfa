"""``python -m av_bench.cli``."""

from av_bench.cli import main

main()
