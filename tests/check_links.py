"""Links of the Markdown files: relative targets, anchors, and paths and modules in code font must exist.

``python -m tests.check_links`` prints what is broken and exits with 1. Addresses of other sites are not opened.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = ("av_bench", "model_zoo", "protocols", "reports", "docs", "tests", "benchmarks", "constraints", "examples")
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:/[\w.*-]+)+/?")
PRODUCT = "av_bench|model_zoo|protocols|reports"
NAME = re.compile(rf"(?:{PRODUCT})(?:\.\w+)+")
IMPORT = re.compile(rf"(?:^|\s)(?:from|import|-m)\s+((?:{PRODUCT})(?:\.\w+)*)")
GROUPS = {f"av_bench.{group}" for group in ("models", "metrics", "extractors", "sets", "protocols")}  # entry points
HISTORY = ("CHANGELOG.md",)  # names what was, too


@cache
def tracked() -> tuple[str, ...]:
    """Files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return tuple(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n"))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        elif not fence:
            yield number, line


@cache
def anchors(path: Path) -> frozenset[str]:
    """Anchors that a page has on GitHub: its headings in lower case, blanks as hyphens, other signs left out."""
    found: dict[str, int] = {}
    names = set()
    for _, line in prose(path.read_text(encoding="utf8")):
        if match := re.match(r"#{1,6}\s+(.*)", line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).strip().lower()
            slug = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            names.add(f"{slug}-{found[slug]}" if slug in found else slug)
            found[slug] = found.get(slug, 0) + 1
    return frozenset(names)


def broken_link(page: Path, target: str) -> str | None:
    """Why a link cannot be followed, None when it can."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return f"{target}: no such file"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"{target}: no heading makes this anchor"
    return None


def broken_path(text: str) -> str | None:
    """Why a path of the repository in code font is wrong, None when it exists or is no such path."""
    if PATH.fullmatch(text) is None or any(ROOT.glob(text.rstrip("/"))):
        return None
    return f"`{text}`: no such file or folder"


def broken_name(name: str) -> str | None:
    """Why a dotted name is wrong; None when it leads to a module, or to something its module names."""
    if name in GROUPS:
        return None
    folder = ROOT
    for part in name.split("."):
        source = folder.with_suffix(".py") if folder.with_suffix(".py").is_file() else folder / "__init__.py"
        if (folder / part).is_dir() or (folder / f"{part}.py").is_file():
            folder = folder / part
        elif source.is_file() and re.search(rf"\b{part}\b", source.read_text(encoding="utf8")):
            return None
        else:
            return f"{name}: nothing is called {part!r} there"
    return None


def problems(page: Path) -> list[str]:
    """Everything broken in one Markdown file, as ``file:line: what``."""
    found = []
    text = page.read_text(encoding="utf8")
    if page.name not in HISTORY:
        named = [(number, name) for number, line in enumerate(text.splitlines(), 1) for name in IMPORT.findall(line)]
        named += [(n, name) for n, line in prose(text) for name in CODE.findall(line) if NAME.fullmatch(name)]
        found += [f"{page.relative_to(ROOT)}:{n}: {why}" for n, name in named if (why := broken_name(name))]
    for number, line in prose(text):
        checks = [broken_link(page, target) for target in LINK.findall(CODE.sub("", line))]
        if page.name not in HISTORY:
            checks += [broken_path(text) for text in CODE.findall(line)]
        found += [f"{page.relative_to(ROOT)}:{number}: {why}" for why in checks if why]
    return found


def main() -> int:
    """Check all Markdown files of the repository."""
    pages = [ROOT / name for name in tracked() if name.endswith(".md") and (ROOT / name).is_file()]
    found = [problem for page in pages for problem in problems(page)]
    print("\n".join(found) or f"{len(pages)} pages: every link and path exists")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
