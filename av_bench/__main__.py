"""``python -m av_bench``: the command line, for where no scripts are on the path."""

from av_bench.cli.app import main

if __name__ == "__main__":
    main()
