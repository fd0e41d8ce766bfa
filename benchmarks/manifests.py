"""Are the official commands of the manifests those of the repositories? Checks every steps file against clones.

    python -m benchmarks.manifests CLONES

``CLONES`` holds a git repository for each manifest, ``owner+name`` or ``owner+name/repo``, with the manifest's revision
(a bare one will do). For each command: the script exists, every flag stands in it or in the ``defaults.ini`` of
prefigure, and so do the functions that are kept or seeded, texts that are replaced, and configuration files. Exit code
1 when something is not found. Drivers that import official functions are not looked at.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model_zoo.baselines import load_manifest
from model_zoo.baselines.load import manifest_names
from model_zoo.baselines.schema import Manifest
from model_zoo.baselines.steps import Step


@dataclass(frozen=True)
class Clone:
    """One revision of a repository, read without a work tree."""

    folder: Path
    revision: str

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout

    @cached_property
    def files(self) -> list[str]:
        """Every path."""
        return self._git("ls-tree", "-r", "--name-only", self.revision).splitlines()

    def text(self, path: str) -> str:
        """A file's text, empty when there is none."""
        return self._git("show", f"{self.revision}:{path}") if path in self.files else ""


def problems(step: Step, clone: Clone) -> Iterator[str]:
    """What a command names and the repository does not have."""
    script = next((part for part in step.run if part.endswith(".py")), None)
    if script is None:
        yield f"no script in {step.run}"
        return
    path = f"{step.cwd.removeprefix('{repo}').strip('/')}/{script}".lstrip("/")
    text = clone.text(path)
    if not text:
        yield f"{path} does not exist"
        return
    options = step.run[step.run.index(script) + 1 :]
    flags = [part for part in options if re.match(r"--?[A-Za-z]", part)]
    defaults = clone.text("defaults.ini") if "prefigure" in text else ""
    for flag in flags:
        name = flag.strip("-").replace("-", "_")
        if not re.search(rf"[\"']{re.escape(flag)}[\"']", text) and not re.search(rf"(?m)^{name}\s*=", defaults):
            yield f"{path}: no flag {flag}"
    for function in (*step.keep, *step.seeds):  # MODULE:NAME lives in another file, often of a package
        if ":" not in function and not re.search(rf"\b{re.escape(function)}\b", text):
            yield f"{path}: no function {function}"
    yield from (f"{path}: no text {old!r}" for old in step.replace if old not in text)
    for part in options:
        if re.search(r"\.(ya?ml|json)$", part) and "{work}" not in part and "{weights}" not in part:
            wanted = part.rpartition("=")[2].removeprefix("{repo}/")
            if not any(f"/{file}".endswith(f"/{wanted}") for file in clone.files):
                yield f"no file {wanted}"


def clone_of(manifest: Manifest, clones: Path) -> Clone | None:
    """The clone of a manifest's repository, None when it is not there."""
    slug = str(manifest.repository).removeprefix("https://github.com/").replace("/", "+")
    found = next((p for p in (clones / slug / "repo", clones / slug) if p.is_dir()), None)
    return Clone(found, str(manifest.revision)) if found is not None else None


def main(clones: Path) -> int:
    """Print a line for each manifest; how many have problems."""
    wrong = 0
    for name in manifest_names():
        manifest = load_manifest(name)
        if manifest.driver.steps is None:
            continue
        clone = clone_of(manifest, clones)
        if clone is None:
            print(f"{name}: no clone of {manifest.repository}")
            continue
        found = [problem for step in manifest.driver.steps.commands for problem in problems(step, clone)]
        wrong += bool(found)
        said = "; ".join(found) or f"{len(manifest.driver.steps.commands)} commands fit"
        print(f"{name} at {manifest.revision}: {said}")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
