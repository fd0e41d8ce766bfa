"""Starts a driver inside a model's repository: ``start.py DRIVER request.json ...``, working folder: the repository.

A script's own folder comes first on the path, so a driver called ``tango.py`` would be found in place of the
repository's ``tango.py``. Here the repository comes first instead, the folder of the drivers is not on the path at all,
and the driver runs as the main program, under no name that could be imported. Standard library only, Python 3.8.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the driver named by the first argument as if it had been started itself."""
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: {sys.argv[0]} DRIVER request.json")
    driver = Path(__file__).resolve().with_name(f"{sys.argv[1]}.py")
    if not driver.is_file():
        raise SystemExit(f"{driver}: no such driver")
    sys.path[0] = str(Path.cwd())
    sys.argv = [str(driver), *sys.argv[2:]]
    runpy.run_path(str(driver), run_name="__main__")


if __name__ == "__main__":
    main()
