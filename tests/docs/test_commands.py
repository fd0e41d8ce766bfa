"""Commands in README and docs: marked blocks are run, all others name commands and options that exist."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from tests import program
from tests.conftest import ROOT
from tests.docs.blocks import Block, blocks, commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STORIES = [page for page in PAGES if any(block.runs for block in blocks(page))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The socket of a process that runs av-bench in forks of itself."""
    with program.program() as started:
        yield started.path


@pytest.fixture
def shell(server: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which av-bench is this checkout's."""
    file = tmp_path / "bin" / "av-bench"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{program.__file__}" call "{server}" "$@"\n')
    file.chmod(0o755)
    paths = {"PATH": f"{file.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return os.environ | paths | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_the_program_is_av_bench(shell: dict[str, str], tmp_path: Path) -> None:
    """Arguments, folder, environment, streams and exit code are the caller's."""
    script = "cd sub && av-bench --version && HOME=$PWD AV_BENCH_HOME= av-bench table nothing 2> said"
    (tmp_path / "sub").mkdir()
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=shell, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:9]) == (2, "av-bench ")
    assert "nothing" in (tmp_path / "sub" / "said").read_text()


@pytest.mark.parametrize("page", STORIES, ids=name)
def test_marked_blocks_run(page: Path, shell: dict[str, str], tmp_path: Path) -> None:
    story = [block for block in blocks(page) if block.runs]
    lacking = sorted({what for block in story for what in block.lacking})
    if lacking:
        pytest.skip(f"{name(page)} needs {', '.join(lacking)}")
    folder = tmp_path / "work"
    folder.mkdir()
    for block in story:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.body], cwd=folder, env=shell, capture_output=True, text=True
        )
        where = f"{name(page)}:{block.line}\n{block.body}"
        assert done.returncode == block.expected, f"{where}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@cache
def tree() -> Any:
    """The command line as Click sees it."""
    from av_bench.cli.app import app

    return typer.main.get_command(app)


def problem(command: Any, words: list[str]) -> str | None:
    """What a command line says that the program does not know: a command, or an option."""
    path = []
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {' '.join([*path, words[0]])}"
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known and option != "--":
            return f"{' '.join(path)} has no option {option}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_and_option_exists(page: Path) -> None:
    wrong = [
        f"{name(page)}:{line}: {said}"
        for block in blocks(page)
        for line, words in commands(block)
        if (said := problem(tree(), words)) is not None
    ]
    assert not wrong


def test_the_runner_finds_blocks_and_what_is_wrong_in_them(tmp_path: Path) -> None:
    page = tmp_path / "x.md"
    page.write_text("a\n```sh run expect=2 needs=no-such-thing\nav-bench run \\\n  --sett x\n```\n```python\nx\n```\n")
    first, second = blocks(page)
    assert isinstance(first, Block)
    assert (first.runs, first.expected, first.lacking, first.line) == (True, 2, ["no-such-thing"], 3)
    assert not second.runs
    ((line, words),) = commands(first)
    assert (line, words) == (3, ["run", "--sett", "x"])
    assert problem(tree(), words) == "run has no option --sett"
    assert problem(tree(), ["study", "mak"]) == "no command study mak"
    assert problem(tree(), ["study", "make", "runs/a", "--clips", "8"]) is None
