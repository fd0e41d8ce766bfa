"""Fenced blocks of the Markdown pages: which are run, and which commands stand in the others.

A block whose fence says ``sh run`` is run by a test, those of one page after each other in one new folder. Words behind
``run``: ``expect=N`` for another exit code, ``needs=PROGRAM,...`` for programs or Python packages without which the
page is not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
SHELL = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    body: str

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.language in SHELL and "run" in self.words

    @property
    def expected(self) -> int:
        """Exit code it must end with."""
        return int(self._value("expect") or 0)

    @property
    def lacking(self) -> list[str]:
        """What it needs and is not here."""
        needs = [name for name in (self._value("needs") or "").split(",") if name]
        return [name for name in needs if which(name) is None and find_spec(name) is None]

    def _value(self, key: str) -> str | None:
        found = [word.partition("=")[2] for word in self.words if word.startswith(f"{key}=")]
        return found[0] if found else None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf8")
    found = []
    for match in _FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(page, line, language, tuple(words), match["body"]))
    return found


def commands(block: Block, program: str = "av-bench") -> Iterator[tuple[int, list[str]]]:
    """(line, words) of the program's commands in a shell block; lines that go on with a backslash are joined."""
    if block.language not in SHELL:
        return
    line, whole = block.line, ""
    for number, text in enumerate(block.body.splitlines()):
        whole += text.removesuffix("\\") if text.endswith("\\") else text
        if text.endswith("\\"):
            continue
        stripped = whole.strip().removeprefix("$ ")
        if stripped.startswith(f"{program} "):
            yield line, shlex.split(stripped, comments=True)[1:]
        line, whole = block.line + number + 1, ""
