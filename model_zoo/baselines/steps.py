"""Official commands as data: what is written for them, what is run, and which file they leave.

``drivers/stages.py`` carries them out, ``drivers/resident.py`` those that stay for all items. What is not known of an
official command stands as ``<...>`` in a template and has to be filled in by the user: a command that was guessed must
not look like one that is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, Literal

from av_bench.contracts import UsageError, unknown_name
from av_bench.schema import read_yaml

PLACEHOLDERS = (
    *("python", "python2", "repo", "weights", "work", "out"),  # of the job
    *("id", "name", "k", "seed", "seconds", "video", "suffix", "text", "text_json", "gpu"),  # of the item
)
_OPEN = re.compile(r"<[^<>{}]+>")
_PLAIN = re.compile(r"extras\.\d+|commands\.\d+\.(name|part|keep\.\d+|seeds\.\d+)")  # taken as they stand
_KEYS = re.compile(r"write|copy|csv\.columns|jsonl\.fields|commands\.\d+\.(env|replace)")  # keys are the user's texts
_ROOTS = ("{repo}", "{work}", "{out}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. ``cwd`` is a folder below the repository, or below ``{work}`` or ``{out}``.

    With ``keep``, ``seeds`` or ``replace`` it is ``[interpreter, script, ...]`` and stays for all items: what the
    functions ``keep`` return is kept, the functions ``seeds`` get the item's seed, texts of the script's source are
    replaced in memory (``drivers/resident.py``).
    """

    name: str = ""
    part: Literal["features", "generation", "decoding"] = "generation"
    cwd: str = "{repo}"
    env: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    run: tuple[str, ...]

    @property
    def stays(self) -> bool:
        """Whether one process runs it for all items."""
        return bool(self.keep or self.seeds or self.replace)


@dataclass(frozen=True)
class Csv:
    """A table with a header and the item's row, below the work folder."""

    file: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class JsonLines:
    """A file with one JSON object, the item's; values that are not text stay what they are."""

    file: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Reencode:
    """Another frame rate (frames per second) is needed: a silent copy at it is ``{video_fps}``.

    ``silence``: with a track of digital zeros, for official readers that wait for one.
    """

    fps: float
    silence: bool = False


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One item from its inputs to a wav or flac file. Files are below the item's work folder."""

    extras: tuple[str, ...] = ()  # keys of the extras file that are needed, beside those of the manifest
    reencode: Reencode | None = None
    copy: Mapping[str, str] = field(default_factory=dict)  # file -> the file that is copied
    write: Mapping[str, str] = field(default_factory=dict)  # file -> its text
    csv: Csv | None = None
    jsonl: JsonLines | None = None
    commands: tuple[Step, ...]
    collect: str  # a pattern below {out} that must fit one file


def read_steps(path: Path, extras: tuple[str, ...]) -> tuple[Steps, str]:
    """A steps file of the user and its sha256; ``extras`` are the manifest's. UsageError names file and key."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    steps = read_yaml(path, Steps)
    for problem in problems(steps, extras):
        raise UsageError(f"{path}: {problem}")
    return steps, hashlib.sha256(payload).hexdigest()


def problems(steps: Steps, extras: tuple[str, ...]) -> list[str]:
    """What the types alone do not catch: unknown placeholders, paths that lead away, nothing to run."""
    known = [*PLACEHOLDERS, *extras, *steps.extras, *(["video_fps"] if steps.reencode else [])]
    found = [] if steps.commands and all(step.run for step in steps.commands) else ["commands: there is nothing to run"]
    if steps.reencode is not None and not 0 < steps.reencode.fps <= 240:
        found.append(f"reencode.fps is {steps.reencode.fps:g}")
    for where, text in templates(steps):
        try:
            names = [name for _, name, *_ in Formatter().parse(text) if name is not None]
        except ValueError as error:
            found.append(f"{where}: {error} (a brace that is meant is written twice)")
            continue
        found += [f"{where}: {unknown_name('placeholder', name, known)}" for name in names if name not in known]
    files = [*steps.write, *steps.copy, *(t.file for t in (steps.csv, steps.jsonl) if t is not None), steps.collect]
    found += [f"{name!r} must be a relative path that does not climb" for name in files if not _stays(name)]
    for number, step in enumerate(steps.commands):
        root, _, rest = step.cwd.partition("/")
        if step.stays and not _is_script(step.run):
            found.append(f"commands.{number}: keep, seeds and replace need run: [{{python}}, SCRIPT.py, ...]")
        if not _stays(rest if root in _ROOTS else step.cwd):
            found.append(f"commands.{number}.cwd: {step.cwd!r} must be below {', '.join(_ROOTS)}")
    return found


def _is_script(run: tuple[str, ...]) -> bool:
    return len(run) > 1 and run[0] in ("{python}", "{python2}") and run[1].endswith(".py")


def _stays(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def templates(steps: Steps) -> Iterator[tuple[str, str]]:
    """Every text that is filled in for an item, with its place."""
    for place, value in _leaves(steps, ""):
        if isinstance(value, str) and not _PLAIN.fullmatch(place):
            yield place, value


def _leaves(value: object, place: str) -> Iterator[tuple[str, object]]:
    """Texts and numbers in depth-first order; keys that are not names of ours (of files, of columns) count too."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if _KEYS.fullmatch(place):
                yield place, key
            yield from _leaves(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}.{number}")
    else:
        yield place, value


def open_places(steps: Steps) -> list[str]:
    """The ``<...>`` that are still to be filled in, with where they stand."""
    return [f"{where} {place}" for where, text in templates(steps) for place in _OPEN.findall(text)]


def uses(steps: Steps, placeholder: str) -> bool:
    """Whether any text asks for a placeholder."""
    return any(f"{{{placeholder}}}" in text for _, text in templates(steps))


def as_yaml(steps: Steps) -> str:
    """A steps file; what is left at its default is left out."""
    import yaml

    text: str = yaml.safe_dump(_without_defaults(steps), sort_keys=False, allow_unicode=True, width=1000)
    return text


def _without_defaults(value: object) -> object:
    if is_dataclass(value):
        return {
            key: _without_defaults(inner)
            for key, inner in vars(value).items()
            if inner not in (None, (), {}, "", "{repo}")
        }
    if isinstance(value, Mapping):
        return {key: _without_defaults(inner) for key, inner in value.items()}
    return [_without_defaults(inner) for inner in value] if isinstance(value, (list, tuple)) else value
