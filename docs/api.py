"""The API reference as HTML, made from docstrings by pdoc: ``python docs/api.py [FOLDER]`` (default ``build/api``)."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("av_bench", "model_zoo", "protocols", "reports")
# run as programs: importing one would start it, or would need the environment of the model it drives
PROGRAMS = ("__main__", "model_zoo.baselines.drivers", "model_zoo.external.driver")


def modules() -> list[str]:
    """Names of all modules that can be imported, packages before what is in them."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return sorted(n for n in names if not n.endswith(PROGRAMS[0]) and not n.startswith(PROGRAMS[1:]))


def main() -> None:
    """Write the pages; an error of a module ends it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/api"
    warnings.filterwarnings("ignore", message="The module specification")  # a package has brought its modules
    pdoc.render.configure(docformat="google", footer_text="av-bench")
    pdoc.pdoc(*modules(), output_directory=folder)
    print(f"{folder}/index.html: {len(modules())} modules")


if __name__ == "__main__":
    main()
